"""The prepared data sets of a study: one, unless a field of `data` is swept."""

from collections.abc import Callable

from vae_core.config import DataConfig, RunConfig
from vae_core.data import Dataset, prepare
from vae_core.errors import UserError


class Datasets:
    """Prepares each distinct `data` section once.

    Args:
        where: the sweep file, for messages.
        progress: called with (what, done, total) while images are being read.
    """

    def __init__(self, where: str, progress: Callable[[str, int, int], None] | None = None) -> None:
        self._where = where
        self._progress = progress
        self._prepared: dict[str, Dataset] = {}
        self._configs: dict[str, DataConfig] = {}

    @property
    def configs(self) -> list[DataConfig]:
        """Return the distinct `data` sections prepared so far."""
        return list(self._configs.values())

    def of(self, config: RunConfig) -> Dataset:
        """Return the data set of a run.

        Raises:
            UserError: the data cannot be prepared; the message names the sweep file.
        """
        key = config.data.model_dump_json()
        if key not in self._prepared:
            try:
                self._prepared[key] = prepare(config.data, self._progress)
            except UserError as error:
                raise UserError([f"{self._where}: {message}" for message in error.messages]) from error
            self._configs[key] = config.data
        return self._prepared[key]
