"""Charts of a study: KL, active units and error over its only numeric axis, or as bars over its cells."""

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.columns import ACTIVE_UNITS, KL, MSE
from experiments.references import ReferenceRow, References, latent_dims
from experiments.results import CellResult, StudyResults
from experiments.table import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito's palette, which the colour-blind can tell apart
_BLUE, _VERMILLION, GREY = "#0072B2", "#D55E00", "#595959"
_BAR = "#9CC9E3"
_REFERENCE_COLOURS = (GREY, "#009E73", "#CC79A7", "#B07D00", "#56B4E9")
_SEED: Mapping[str, Any] = {"marker": "o", "color": _BLUE, "markersize": 5, "markeredgecolor": "white"}
_COLLAPSED: Mapping[str, Any] = {"marker": "x", "color": _VERMILLION, "markersize": 7, "markeredgewidth": 1.8}
_PANELS = (
    (KL, "KL to the prior (nats per image)"),
    (ACTIVE_UNITS, "Active units (of {dims} dimensions)"),
    (MSE, "Reconstruction error (MSE)"),
)
_LOG_SPAN = 50  # largest over smallest value from which an axis is logarithmic
_LEGEND_ROW = 15  # points
_MOST_NAMED = 24  # bars
_NAME_WIDTH = 26  # characters


def png_of(figure: "Figure") -> bytes:
    """Return the picture; equal figures give equal files. Letters that matplotlib's font lacks are boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing", UserWarning)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_charts(figure: "SubFigure", results: StudyResults, labels: Sequence[str], found: References) -> None:
    """Draw one chart below the other.

    Args:
        figure: where to draw.
        results: the study; only cells with a finished run are drawn.
        labels: names of those cells, in their order.
        found: drawn as dashed lines into the chart of errors.
    """
    cells = results.measured
    is_curve = results.numeric_axis is not None
    dims = "/".join(str(dim) for dim in latent_dims(results))
    for axes, (key, title) in zip(figure.subplots(len(_PANELS), 1), _PANELS, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if results.numeric_axis is not None and cells:
            _draw_curve(axes, results.numeric_axis, cells, key)
        elif cells:
            _draw_bars(axes, cells, labels, key)
        else:
            axes.text(0.5, 0.5, "no finished run yet", transform=axes.transAxes, ha="center", color=GREY)
        rows = found.rows if key == MSE and cells else ()
        handles = _draw_references(axes, rows, horizontal=is_curve)
        if key == KL and cells:
            handles = _seed_handles(cells, is_curve=is_curve)
        _head(axes, title.format(dims=dims), handles)
        _limit(axes, [run.metrics[key] for cell in cells for run in cell.done], rows, is_curve)


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
    if len(cells) <= _MOST_NAMED:
        names = [textwrap.fill(label.replace("\n", ", "), _NAME_WIDTH) for label in labels]
        axes.set_yticks(range(len(cells)), names, fontsize=8 if len(cells) <= 8 else 6)
    else:
        axes.set_ylabel("row of the table", fontsize=9)
        axes.set_yticks(range(0, len(cells), 10), [str(row + 1) for row in range(0, len(cells), 10)])
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)


def _draw_seeds(axes: "Axes", cell: CellResult, key: str, *, at: float, horizontal: bool) -> None:
    """Draw one mark per seed; a cross where the posterior collapsed fully."""
    for run in cell.done:
        x, y = (run.metrics[key], at) if horizontal else (at, run.metrics[key])
        axes.plot(x, y, **(_COLLAPSED if run.verdict == "full" else _SEED), zorder=4, clip_on=False)


def _seed_handles(cells: Sequence[CellResult], *, is_curve: bool) -> "list[Artist]":
    """Return what the legend of means and seeds shows."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    mean = Line2D([], [], color=_BLUE, label="mean") if is_curve else Patch(color=_BAR, label="mean")
    handles: list[Artist] = [mean, Line2D([], [], **_SEED, linestyle="", label="a seed")]
    if any(cell.verdicts["full"] for cell in cells):
        handles.append(Line2D([], [], **_COLLAPSED, linestyle="", label="a seed, fully collapsed"))
    return handles


def _head(axes: "Axes", title: str, handles: "Sequence[Artist]") -> None:
    """Write the title and, below it, the legend."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = 1 if longest > _NAME_WIDTH else 3 if len(handles) <= 3 else 2
    rows = -(-len(handles) // columns)
    axes.set_title(title, fontsize=10, loc="left", pad=5 + _LEGEND_ROW * rows)
    if handles:
        axes.legend(
            handles=list(handles),
            fontsize=8,
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            borderpad=0,
            ncols=columns,
        )


def _draw_references(axes: "Axes", rows: Sequence[ReferenceRow], *, horizontal: bool) -> "list[Artist]":
    """Draw the mean image and PCA as dashed lines across the axis of errors, and return the lines."""
    draw = axes.axhline if horizontal else axes.axvline
    return [
        draw(
            row.metrics[MSE],
            color=_REFERENCE_COLOURS[number % len(_REFERENCE_COLOURS)],
            linestyle="--",
            linewidth=1.3,
            label=row.name,
            zorder=3,
        )
        for number, row in enumerate(rows)
    ]


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
    elif axes.get_xscale() != "linear":
        axes.xaxis.set_major_formatter(lambda value, _: plain(float(value)))  # its own writes formulas
