"""The same few test images as every cell of a study reconstructs them, from the selected weights on disk.

Letters: C channels, h x w px of an image.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.columns import MSE
from experiments.results import CellResult, StudyResults
from experiments.run_result import RunResult
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

if TYPE_CHECKING:
    from vae_core.config import RunConfig
    from vae_core.data import Dataset
    from vae_core.evaluation import Evaluator
    from vae_core.models.latent import LatentModel

Pictures = list[npt.NDArray[np.float32]]  # (C, h, w) each, in [0, 1]

_Named = tuple[CellResult, str]

_MOST_CELLS = 12


@dataclass(frozen=True)
class PictureRow:
    """A label and its pictures; None where they could not be made, and the label says why."""

    label: str
    pictures: Pictures | None


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures, targets first; without rows, `note` says why."""

    rows: tuple[PictureRow, ...]
    note: str


def gallery(study: StudyDirectory, results: StudyResults, labels: Sequence[str], count: int) -> Gallery:
    """Reconstruct `count` test images with the first finished run of each cell that has one.

    Args:
        study: the study's folder.
        results: what was collected from it.
        labels: what to call the measured cells, in their order.
        count: number of images; fewer where the test split has fewer.
    """
    try:
        dataset = seen_dataset(results)
    except UserError as error:
        return Gallery((), f"No pictures: {error.messages[0]}")
    chosen = spread(dataset, count)
    targets = [dataset.image(int(index)).astype(np.float32) / np.float32(255) for index in chosen]
    rows = [PictureRow("target", targets)]
    shown = _at_most(list(zip(results.measured, labels, strict=True)), _MOST_CELLS)
    rows += [_cell_row(study, cell, label, dataset, chosen) for cell, label in shown]
    return Gallery(tuple(rows), _note(results, shown, len(chosen)))


def seen_dataset(results: StudyResults) -> "Dataset":
    """Return the data set of a study's base config.

    Raises:
        UserError: it cannot be had here, or is no longer the one that the runs have seen.
    """
    from vae_core.config import parse_config
    from vae_core.data import prepare

    dataset = prepare(parse_config(results.config, f"{results.name}: config").data)
    if results.data.get("fingerprint") not in (None, dataset.fingerprint):
        raise UserError("the data set is no longer the one the runs have seen.")
    return dataset


def _note(results: StudyResults, shown: Sequence[_Named], count: int) -> str:
    seeds = sorted({cell.done[0].seed for cell, _ in shown})
    words = f"{count} test images; seed {', '.join(map(str, seeds))}, selected weights, z sampled once"
    left = len(results.measured) - len(shown)
    return f"{words}; {left} more cells" if left else words


def spread(dataset: "Dataset", count: int) -> npt.NDArray[np.int64]:
    """Return test images evenly spaced over labels, or over the split where nothing is labelled."""
    indices = dataset.splits["test"]
    if dataset.labels is not None:
        indices = indices[np.argsort(dataset.labels[indices], kind="stable")]
    count = min(count, len(indices))
    return indices[((np.arange(count) + 0.5) * len(indices) / count).astype(np.int64)]


def _at_most(items: list[_Named], most: int) -> list[_Named]:
    """Return at most `most` of the items, evenly spaced, first and last included."""
    if len(items) <= most:
        return items
    return [items[round(position)] for position in np.linspace(0, len(items) - 1, most)]


def _cell_row(
    study: StudyDirectory, cell: CellResult, label: str, dataset: "Dataset", indices: npt.NDArray[np.int64]
) -> PictureRow:
    run = cell.done[0]
    if run.data_fingerprint not in (None, dataset.fingerprint):
        return PictureRow(f"{label}\n(other data)", None)
    try:
        pictures = reconstruct(study, run, dataset, indices)
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        return PictureRow(f"{label}\n(best.pt: {type(error).__name__})", None)
    return PictureRow(f"{label}\nMSE {run.metrics[MSE]:.4f}", pictures)


def reconstruct(study: StudyDirectory, run: RunResult, dataset: "Dataset", indices: npt.NDArray[np.int64]) -> Pictures:
    """Return what the selected weights of a finished run make of the images at `indices`.

    Raises:
        OSError, RuntimeError, EOFError, UnpicklingError: there are no weights, or they cannot be read or fit no such
            model.
    """
    model, evaluator = selected_model(study, run, dataset)
    return [picture.numpy() for picture in evaluator.reconstruct(model, indices)]


def weights_file(study: StudyDirectory, run: RunResult) -> Path | None:
    """Return where the selected weights of a finished run are; None where there is no such file."""
    name = run.artifacts.get("best.pt")
    file = study.run(run.run).attempt(run.attempt or 0).path / name if name else None
    return file if file and file.is_file() else None


def selected_model(study: StudyDirectory, run: RunResult, dataset: "Dataset") -> "tuple[LatentModel, Evaluator]":
    """Return the model with the selected weights of a finished run, on the CPU, and what evaluates it, without LPIPS.

    Raises:
        OSError, RuntimeError, EOFError, UnpicklingError: there are no weights, or they cannot be read or fit no such
            model.
    """
    import torch

    from vae_core.config import parse_config
    from vae_core.evaluation import Evaluator
    from vae_core.models.vae import build_model
    from vae_core.yaml_io import load_yaml

    directory = study.run(run.run)
    config = parse_config(load_yaml(directory.config_file), str(directory.config_file))
    weights = weights_file(study, run)
    if weights is None:
        raise FileNotFoundError(f"{directory.path}: no best.pt")
    model = build_model(config.model, dataset.channels, config.seed, "cpu", len(dataset.label_names))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model, Evaluator(_without_lpips(config), dataset, "cpu")


def _without_lpips(config: "RunConfig") -> "RunConfig":
    """Return the config with a metric switched off that takes seconds to load and is not measured here."""
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"lpips": "off"})})
