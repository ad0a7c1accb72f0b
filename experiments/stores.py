"""Where the MLflow and Optuna stores of a root lie: in it, or on a local disk where the root is on the network."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from experiments.file_system import file_system_of
from tracking.mlflow_address import address_mistake, shown_uri
from vae_core.errors import UserError

TRACKING_VARIABLE = "VAE_SWEEP_MLFLOW_URI"
_SERVERS = ("http://", "https://", "databricks")
_LOCAL = Path("/var/tmp")  # noqa: S108 - it outlives a restart, and holds only what can be made anew


def checked_address(uri: str, place: str) -> str:
    """Return a tracking URI as it is.

    Args:
        uri: of the user.
        place: where it stands: a variable or an option.

    Raises:
        UserError: it names no tracking server.
    """
    if mistake := address_mistake(uri):
        raise UserError(f"{place} {shown_uri(uri)}: {mistake}")
    return uri


@dataclass(frozen=True)
class Stores:
    """The stores of the studies under `root`; views that `vae-sweep rebuild` can make anew."""

    root: Path

    @property
    def place(self) -> Path:
        """Return the folder of the two databases.

        SQLite and a network file system do not go together: there it is a folder of this machine, below
        $VAE_SWEEP_STATE or `/var/tmp/vae-sweep-<uid>`.
        """
        root = self.root.absolute()
        if not self.are_elsewhere:
            return root
        state = os.environ.get("VAE_SWEEP_STATE") or _LOCAL / f"vae-sweep-{os.getuid()}"
        return Path(state) / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"

    @property
    def are_elsewhere(self) -> bool:
        """Return whether the databases lie outside the root."""
        root = self.root.absolute()
        existing = next(path for path in (root, *root.parents) if path.exists())
        system = file_system_of(existing)
        return system is not None and system.of_the_network

    @property
    def tracking_uri(self) -> str:
        """Return where coordinators write: $VAE_SWEEP_MLFLOW_URI where that is set, else the root's own database.

        Raises:
            UserError: the variable's value is no address of a tracking server.
        """
        uri = os.environ.get(TRACKING_VARIABLE)
        return checked_address(uri, TRACKING_VARIABLE) if uri else self.mlflow_uri

    def artifacts_of(self, tracking_uri: str) -> Path | None:
        """Return the folder of the artifacts that a store at a tracking URI shows; None: the server has a place."""
        if tracking_uri.startswith(_SERVERS):
            return None
        if tracking_uri == self.mlflow_uri:
            return self.mlflow_artifacts
        return self.root.absolute() / f"mlartifacts-{hashlib.sha256(tracking_uri.encode()).hexdigest()[:8]}"

    @property
    def mlflow_uri(self) -> str:
        """Return the tracking URI of the root's own store: a SQLite file."""
        return f"sqlite:///{self.mlflow_file}"

    @property
    def mlflow_file(self) -> Path:
        """Return MLflow's database."""
        return self.place / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Return the folder of MLflow's artifacts."""
        return self.root.absolute() / "mlartifacts"

    @property
    def optuna_journal(self) -> Path:
        """Return Optuna's journal file."""
        return self.place / "optuna.journal"

    @property
    def files(self) -> tuple[Path, Path]:
        """Return the files that the web pages show."""
        return self.mlflow_file, self.optuna_journal
