"""One picture of a study: KL, active units and error over its cells, and the reconstructions."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.charts import GREY, draw_charts, png_of
from experiments.naming import short_label
from experiments.reconstructions import Gallery, PictureRow, gallery
from experiments.references import References, references
from experiments.results import StudyResults
from tracking.files import write_atomic
from tracking.run_directory import StudyDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_IMAGES = 6
_CHARTS_WIDTH, _LABELS_WIDTH = 5.6, 1.7  # inches
_ROW, _HEIGHT, _GALLERY_WIDTH = 1.15, (8.5, 14.0), 8.0  # inches
_DPI = 110


def write_overview(study: StudyDirectory, results: StudyResults) -> Path:
    """Draw the study into `report/overview.png` and return the path."""
    study.report.mkdir(exist_ok=True)
    path = study.report / "overview.png"
    write_atomic(path, png_of(overview(study, results)))
    return path


def overview(study: StudyDirectory, results: StudyResults) -> "Figure":
    """Return the picture: charts on the left, reconstructions on the right where there are any."""
    import matplotlib as mpl

    labels = _labels(results)
    with mpl.rc_context({"text.parse_math": False}):  # a question, a cell or a value may hold any dollar sign
        return _drawn(results, labels, gallery(study, results, labels, _IMAGES), references(study, results))


def _drawn(results: StudyResults, labels: Sequence[str], found: Gallery, rows: References) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no global state

    mosaic = tiled(found.rows)
    height = float(np.clip(1.0 + _ROW * len(found.rows), *_HEIGHT))
    right = 0.01
    if mosaic is not None:
        right = _LABELS_WIDTH + min(_GALLERY_WIDTH, (height - 1.0) * mosaic.shape[1] / mosaic.shape[0])
    figure = Figure(figsize=(_CHARTS_WIDTH + right, height), dpi=_DPI, layout="constrained", facecolor="white")
    charts, pictures = figure.subfigures(1, 2, squeeze=False, width_ratios=[_CHARTS_WIDTH, right])[0]
    draw_charts(charts, results, labels, rows)
    if mosaic is not None:
        _draw_gallery(pictures, mosaic, found)
    figure.suptitle(_title(results, int((_CHARTS_WIDTH + right) * 8.5)), fontsize=13, fontweight="bold")
    figure.supxlabel(_footer(results, found, mosaic is None), fontsize=8, color=GREY)
    return figure


def _labels(results: StudyResults) -> list[str]:
    """Return a short name for every measured cell: its own, or one line per axis."""
    return [short_label(results, cell, "\n") for cell in results.measured]


def _title(results: StudyResults, columns: int) -> str:
    return textwrap.fill(f"{results.name}: {results.question}", max(40, columns))


def _footer(results: StudyResults, found: Gallery, without_pictures: bool) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in results.counts().items()) or "no runs yet"
    words = f"{len(results.runs)} runs: {counts}. Test split, weights selected on val."
    return f"{words} {textwrap.shorten(found.note, 150)}" if without_pictures else words


def tiled(rows: Sequence[PictureRow]) -> npt.NDArray[np.float32] | None:
    """Return all pictures in one image `(H, W, 3)` on white, one row each; None where there are none."""
    known = [picture for row in rows for picture in row.pictures or []]
    if not known:
        return None
    height, width = (max(picture.shape[side] for picture in known) for side in (1, 2))
    gap = max(1, round(max(height, width) / 24))
    columns = max(len(row.pictures or []) for row in rows)
    canvas = np.ones((len(rows) * (height + gap), columns * (width + gap), 3), dtype=np.float32)
    for line, row in enumerate(rows):
        for column, picture in enumerate(row.pictures or []):
            top, left = line * (height + gap), column * (width + gap)
            _, h, w = picture.shape
            canvas[top : top + h, left : left + w] = picture.transpose(1, 2, 0).clip(0, 1)  # gray spreads to RGB
    return canvas


def _draw_gallery(figure: "SubFigure", mosaic: npt.NDArray[np.float32], found: Gallery) -> None:
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="nearest")
    step = mosaic.shape[0] / len(found.rows)
    axes.set_yticks([(line + 0.5) * step for line in range(len(found.rows))], [row.label for row in found.rows])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_title("Targets, and what each cell reconstructs", fontsize=10, loc="left")
    axes.set_xlabel(textwrap.fill(found.note, 70), fontsize=8, color=GREY)
