"""The rows of a table that need no training: the constant mean image, and PCA with latent_dim components.

Both are fitted on the train split of the base config's data and measured on its test split, once per data
set: the numbers are kept in the study's folder. Importing this needs no torch; measuring does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.results import StudyResults
from tracking.files import read_json, write_json
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

_VERSION = 1
_LATENT_DIM = "model.latent_dim"
_MOST_ROWS = 6


@dataclass(frozen=True)
class ReferenceRow:
    """One row: `components` is None for the mean image; `metrics` has the keys of a run's test metrics."""

    name: str
    components: int | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class References:
    """The rows, PCA's test MSE by number of components (0: the mean image), and what is missing and why."""

    rows: tuple[ReferenceRow, ...] = ()
    pca_mse: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def mse_of_pca(self, components: float) -> float | None:
        """Return PCA's test MSE with that many components (or with all there are); None where unknown."""
        return self.pca_mse[min(round(components), len(self.pca_mse) - 1)] if self.pca_mse else None


def references(study: StudyDirectory, results: StudyResults) -> References:
    """Return the study's reference rows, measured now unless `references.json` has them for this data.

    Where the data set cannot be had (another machine, or changed since), there are no rows, and a note says
    why.
    """
    file = study.path / "references.json"
    key = _key(results)
    stored = _stored(file, key)
    if stored is not None:
        return stored
    try:
        measured = _measure(results, key)
    except UserError as error:
        return References(notes=(f"No reference rows: {'; '.join(error.messages)}.",))
    # what was actually measured is stored, so that missing LPIPS weights are looked for again next time
    has_lpips = any("test/lpips" in row.metrics for row in measured.rows)
    try:
        write_json(file, {"key": {**key, "lpips": has_lpips}, **asdict(measured)})
    except OSError as error:  # the folder is someone else's, to be read only
        note = f"Reference rows are measured anew each time: {file} cannot be written ({error.strerror})."
        return replace(measured, notes=(*measured.notes, note))
    return measured


def _key(results: StudyResults) -> dict[str, Any]:
    """Return what the rows depend on; they are measured anew when it changes."""
    evaluate = results.config.get("evaluate", {})
    return {
        "version": _VERSION,
        "data_fingerprint": results.data.get("fingerprint"),
        "latent_dims": latent_dims(results),
        "likelihood": [evaluate.get("likelihood"), evaluate.get("scale_images")],
        "lpips": any(run.lpips == "measured" for run in results.runs),
    }


def latent_dims(results: StudyResults) -> list[int]:
    """Return the distinct latent sizes of the study, ascending; of many, some from the smallest to the largest."""
    axis = results.space.get(_LATENT_DIM)
    found = {cell.params[_LATENT_DIM] for cell in results.cells if _LATENT_DIM in cell.params}
    if isinstance(axis, list):
        found |= set(axis)
    if axis is None or not found:  # a sampled axis of which nothing has been proposed yet
        found.add(results.config["model"]["latent_dim"])
    ordered = sorted(int(value) for value in found)
    if len(ordered) <= _MOST_ROWS:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(place * last / (_MOST_ROWS - 1))] for place in range(_MOST_ROWS)]


def _stored(file: Path, key: Mapping[str, Any]) -> References | None:
    """Return the rows in `file` where they are for `key`; an unreadable file is as good as none."""
    try:
        content = read_json(file)
        if content["key"] != key:
            return None
        rows = tuple(ReferenceRow(**row) for row in content["rows"])
        return References(rows, tuple(content["pca_mse"]), tuple(content["notes"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # torn by hand: they are measured anew
        return None


def _measure(results: StudyResults, key: Mapping[str, Any]) -> References:
    from experiments.reference_measuring import measure
    from vae_core.config import parse_config
    from vae_core.data import prepare

    config = parse_config(results.config, f"{results.name}: config")
    dataset = prepare(config.data)
    planned = key["data_fingerprint"]
    if planned is not None and dataset.fingerprint != planned:
        raise UserError(f"the data set's fingerprint is now {dataset.fingerprint}, but the runs have seen {planned}")
    mode = "auto" if key["lpips"] else "off"
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"lpips": mode})})
    return measure(config, dataset, key["latent_dims"])
