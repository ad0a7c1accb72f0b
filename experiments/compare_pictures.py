"""The same test images as each of several runs reconstructs them, in one PNG.

Letters: C channels, h x w px of an image.
"""

import pickle
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.charts import GREY, png_of
from experiments.columns import MSE, SSIM
from experiments.compare_runs import ComparedRun
from experiments.overview import tiled
from experiments.reconstructions import PictureRow, Pictures, reconstruct, spread
from vae_core.config import parse_config
from vae_core.data import prepare
from vae_core.errors import UserError
from vae_core.yaml_io import load_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vae_core.data import Dataset

_IMAGES = 8
_DPI = 110
_WIDTH, _ROW_TITLE, _MARGIN = 9.0, 0.28, 0.5  # inches
_TALLEST_ROW = 2.5  # inches


def draw_side_by_side(runs: list[ComparedRun]) -> tuple[bytes | None, str]:
    """Return a PNG with the targets and a row per run, and a sentence on it; without a PNG it says why."""
    rows, note = picture_rows(runs)
    return (png_of(_figure(rows, note)) if rows else None), note


def picture_rows(runs: list[ComparedRun]) -> tuple[list[PictureRow], str]:
    """Return a row of test images and one of what each run makes of them, and a note; without rows it says why."""
    seen = next((run for run in runs if run.result.state == "done"), None)
    if seen is None:
        return [], "No pictures: none of the runs is finished."
    try:
        dataset = _data_of(seen)
    except UserError as error:
        return [], f"No pictures: {error.messages[0]}"
    if dataset.fingerprint != seen.result.data_fingerprint:
        return [], f"No pictures: the data set is no longer the one that {seen.letter} has seen."
    indices = spread(dataset, _IMAGES)
    targets = [dataset.image(int(index)).astype(np.float32) / np.float32(255) for index in indices]
    rows = [PictureRow("targets", targets), *(_row(run, dataset, indices) for run in runs)]
    note = f"{len(indices)} test images of the data that {seen.letter} has seen; selected weights, z sampled once"
    return rows, note


def _data_of(run: ComparedRun) -> "Dataset":
    where = run.found.directory.config_file
    return prepare(parse_config(load_yaml(where), str(where)).data)


def _row(run: ComparedRun, dataset: "Dataset", indices: npt.NDArray[np.int64]) -> PictureRow:
    name = f"{run.letter}: {run.found.name}"
    if run.result.state != "done":
        return PictureRow(f"{name} ({run.result.state}: no selected weights)", None)
    if run.result.data_fingerprint != dataset.fingerprint:
        return PictureRow(f"{name} (saw other data)", None)
    try:
        pictures: Pictures = reconstruct(run.found.study, run.result, dataset, indices)
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        return PictureRow(f"{name} (best.pt: {type(error).__name__})", None)
    metrics = run.result.metrics
    return PictureRow(f"{name}, test MSE {metrics[MSE]:.4f}, SSIM {metrics[SSIM]:.3f}", pictures)


def _figure(rows: list[PictureRow], note: str) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no global state

    canvases = [tiled([row]) for row in rows]
    first = canvases[0]
    height = 0.0 if first is None else min(_TALLEST_ROW, _WIDTH * first.shape[0] / first.shape[1])
    heights = [height if canvas is not None else 0.02 for canvas in canvases]
    size = (_WIDTH, _MARGIN + sum(_ROW_TITLE + own for own in heights))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[max(own, 0.02) for own in heights])[:, 0]
    for axes, row, canvas in zip(grid, rows, canvases, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(row.label, fontsize=9, loc="left", pad=3, parse_math=False)  # may hold any dollar sign
        if canvas is not None:
            axes.imshow(canvas, interpolation="nearest")
            axes.set_anchor("W")
    figure.supxlabel(note, fontsize=8, color=GREY, parse_math=False)
    return figure
