"""One picture of a study: KL, active units and error over its cells, and the reconstructions."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.reconstructions import Gallery, PictureRow, gallery
from experiments.references import ReferenceRow, References, latent_dims, references
from experiments.results import CellResult, StudyResults
from experiments.table import ACTIVE_UNITS, KL, MSE, plain
from tracking.files import write_atomic
from tracking.run_directory import StudyDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito's palette, which the colour-blind can tell apart
_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#595959"
_BAR = "#9CC9E3"
_REFERENCE_COLOURS = ("#595959", "#009E73", "#CC79A7", "#B07D00", "#56B4E9")
_PANELS = (
    (KL, "KL to the prior (nats per image)"),
    (ACTIVE_UNITS, "Active units (of {dims} dimensions)"),
    (MSE, "Reconstruction error (MSE)"),
)
_IMAGES = 6
_LOG_SPAN = 50  # largest over smallest value from which an axis is logarithmic
_CHARTS_WIDTH, _LABELS_WIDTH = 5.6, 1.7  # inches
_ROW, _HEIGHT, _GALLERY_WIDTH = 1.15, (8.5, 14.0), 8.0  # inches
_DPI = 110


def write_overview(study: StudyDirectory, results: StudyResults) -> Path:
    """Draw the study into `report/overview.png` and return the path."""
    buffer = io.BytesIO()
    # without time stamps: equal numbers give equal files
    overview(study, results).savefig(buffer, format="png", metadata={"Software": None})
    study.report.mkdir(exist_ok=True)
    path = study.report / "overview.png"
    write_atomic(path, buffer.getvalue())
    return path


def overview(study: StudyDirectory, results: StudyResults) -> "Figure":
    """Return the picture: charts on the left, reconstructions on the right where there are any."""
    from matplotlib.figure import Figure  # not pyplot: no global state

    labels = _labels(results)
    found = gallery(study, results, labels, _IMAGES)
    mosaic = _mosaic(found.rows)
    height = float(np.clip(1.0 + _ROW * len(found.rows), *_HEIGHT))
    right = 0.01
    if mosaic is not None:
        right = _LABELS_WIDTH + min(_GALLERY_WIDTH, (height - 1.0) * mosaic.shape[1] / mosaic.shape[0])
    figure = Figure(figsize=(_CHARTS_WIDTH + right, height), dpi=_DPI, layout="constrained", facecolor="white")
    charts, pictures = figure.subfigures(1, 2, squeeze=False, width_ratios=[_CHARTS_WIDTH, right])[0]
    _draw_charts(charts, results, labels, references(study, results))
    if mosaic is not None:
        _draw_gallery(pictures, mosaic, found)
    figure.suptitle(_title(results, int((_CHARTS_WIDTH + right) * 8.5)), fontsize=13, fontweight="bold")
    figure.supxlabel(_footer(results, found, mosaic is None), fontsize=8, color=_GREY)
    return figure


def _labels(results: StudyResults) -> list[str]:
    """Return a short name for every measured cell, one line per axis."""
    names = [path.rpartition(".")[2] for path in results.space]
    if len(set(names)) < len(names):
        names = list(results.space)
    return [
        "\n".join(f"{name} = {plain(cell.params[path])}" for name, path in zip(names, results.space, strict=True))
        or cell.cell
        for cell in results.measured
    ]


def _title(results: StudyResults, columns: int) -> str:
    return textwrap.fill(f"{results.name}: {results.question}", max(40, columns))


def _footer(results: StudyResults, found: Gallery, without_pictures: bool) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in results.counts().items()) or "no runs yet"
    words = f"{len(results.runs)} runs: {counts}. Test split, weights selected on val."
    return f"{words} {textwrap.shorten(found.note, 150)}" if without_pictures else words


def _draw_charts(figure: "SubFigure", results: StudyResults, labels: Sequence[str], found: References) -> None:
    cells = results.measured
    panels = figure.subplots(len(_PANELS), 1)
    axis = results.numeric_axis
    dims = "/".join(str(dim) for dim in latent_dims(results))
    for axes, (key, title) in zip(panels, _PANELS, strict=True):
        axes.set_title(title.format(dims=dims), fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if not cells:
            axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color=_GREY)
        elif axis is None:
            _draw_bars(axes, cells, labels, key)
        else:
            _draw_curve(axes, axis, cells, key)
        rows = found.rows if key == MSE and cells else ()
        _draw_references(axes, rows, horizontal=axis is not None)
        _limit(axes, [run.metrics[key] for cell in cells for run in cell.done], rows, axis is not None)
    if cells:
        _draw_legend(panels[0], cells, is_curve=axis is not None)


def _draw_curve(axes: "Axes", axis: str, cells: Sequence[CellResult], key: str) -> None:
    ordered = sorted(cells, key=lambda cell: float(cell.params[axis]))
    values = [float(cell.params[axis]) for cell in ordered]
    axes.plot(values, [np.mean(cell.values(key)) for cell in ordered], color=_BLUE, linewidth=1.3, zorder=2)
    for value, cell in zip(values, ordered, strict=True):
        _draw_seeds(axes, cell, key, at=value, horizontal=False)
    _scale(axes, values)
    axes.set_xlabel(axis, fontsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)


def _draw_bars(axes: "Axes", cells: Sequence[CellResult], labels: Sequence[str], key: str) -> None:
    axes.barh(range(len(cells)), [np.mean(cell.values(key)) for cell in cells], color=_BAR, height=0.7, zorder=2)
    for position, cell in enumerate(cells):
        _draw_seeds(axes, cell, key, at=position, horizontal=True)
    size = 8 if len(cells) <= 8 else 6
    axes.set_yticks(range(len(cells)), [label.replace("\n", ", ") for label in labels], fontsize=size)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)


def _draw_seeds(axes: "Axes", cell: CellResult, key: str, *, at: float, horizontal: bool) -> None:
    """Draw one mark per seed; a cross where the posterior collapsed fully."""
    for run in cell.done:
        x, y = (run.metrics[key], at) if horizontal else (at, run.metrics[key])
        if run.verdict == "full":
            axes.plot(
                x,
                y,
                marker="x",
                color=_VERMILLION,
                markersize=7,
                markeredgewidth=1.8,
                zorder=4,
                clip_on=False,
            )
        else:
            axes.plot(x, y, marker="o", color=_BLUE, markersize=5, markeredgecolor="white", zorder=3, clip_on=False)


def _draw_legend(axes: "Axes", cells: Sequence[CellResult], *, is_curve: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    mean = Line2D([], [], color=_BLUE, label="mean") if is_curve else Patch(color=_BAR, label="mean")
    handles: list[Line2D | Patch] = [
        mean,
        Line2D([], [], color=_BLUE, marker="o", linestyle="", label="a seed"),
    ]
    if any(cell.verdicts["full"] for cell in cells):
        cross = Line2D([], [], color=_VERMILLION, marker="x", markeredgewidth=1.8, linestyle="", label="full collapse")
        handles.append(cross)
    axes.legend(handles=handles, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def _draw_references(axes: "Axes", rows: Sequence[ReferenceRow], *, horizontal: bool) -> None:
    """Draw the mean image and PCA as dashed lines across the axis of errors."""
    for number, row in enumerate(rows):
        colour = _REFERENCE_COLOURS[number % len(_REFERENCE_COLOURS)]
        draw = axes.axhline if horizontal else axes.axvline
        draw(row.metrics[MSE], color=colour, linestyle="--", linewidth=1.2, label=row.name, zorder=1)
    if rows:
        columns = min(3, len(rows))
        axes.legend(fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns)


def _limit(axes: "Axes", values: Sequence[float], rows: Sequence[ReferenceRow], is_vertical: bool) -> None:
    """Let the axis of a metric start at zero and hold every mark and every reference."""
    top = 1.06 * max([*values, *(row.metrics[MSE] for row in rows)], default=0.0) or 1.0
    if is_vertical:
        axes.set_ylim(0, top)
    else:
        axes.set_xlim(0, top)


def _scale(axes: "Axes", values: Sequence[float]) -> None:
    """Make the axis of values logarithmic where they span much, with ticks at the values themselves."""
    positive = [value for value in values if value > 0]
    if min(values) >= 0 and positive and max(positive) > _LOG_SPAN * min(positive):
        if len(positive) == len(values):
            axes.set_xscale("log")
        else:  # zero has no logarithm
            axes.set_xscale("symlog", linthresh=min(positive))
    if len(set(values)) <= 8:
        axes.set_xticks(values, [plain(value) for value in values])
        axes.set_xticks([], minor=True)


def _mosaic(rows: Sequence[PictureRow]) -> npt.NDArray[np.float32] | None:
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
    axes.set_xlabel(textwrap.fill(found.note, 70), fontsize=8, color=_GREY)
