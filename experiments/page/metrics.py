"""Each metric over the study's only numeric axis, or as a dot plot of its cells; means with 95% intervals."""

import os.path
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.ablation import Ablation, TableRow
from experiments.columns import ACTIVE_UNITS, ELBO, KL, LPIPS, MSE, MUTUAL_INFORMATION, RECONSTRUCTION, SSIM, Column
from experiments.page.axes import plain_ticks, scale_to
from experiments.page.parts import (
    FigureGroup,
    LeftOut,
    Panel,
    Series,
    all_series,
    finite,
    left_out_words,
    reference_looks,
    shown_series,
)
from experiments.page.svg import ACCENT, BAD, MUTED, inline_svg, new_axes, page_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = (ELBO, RECONSTRUCTION, KL, SSIM, LPIPS, MSE, ACTIVE_UNITS, MUTUAL_INFORMATION)
_RELATIVE = (ELBO, RECONSTRUCTION)
_MOST_DOTS = 24
_ASIDE = 0.075  # inches; seeds stand beside their mean
_SEED_MARKS: Mapping[bool, Any] = {
    False: {"marker": "o", "color": MUTED, "markeredgewidth": 0, "markersize": 3.2},
    True: {"marker": "x", "color": BAD, "markeredgewidth": 1.4, "markersize": 4.5},
}  # by whether the posterior collapsed fully
_NAME = 34  # characters of a cell's name beside its dot


def metric_charts(ablation: Ablation, prefix: str, *, same_elbo: bool) -> FigureGroup | LeftOut:
    """Draw the metrics of the table; those of the evaluation likelihood only where cells share it (`same_elbo`)."""
    axis = ablation.results.numeric_axis
    title = f"Metrics against {axis}" if axis else "Metrics by cell"
    shown = all_series(ablation) if axis else shown_series(ablation, _MOST_DOTS)
    columns = [
        column
        for column in ablation.columns
        if column.key in _DRAWN and (same_elbo or column.key not in _RELATIVE) and _has(column, shown)
    ]
    if not columns:
        return LeftOut(title, "no cell has a finished run")
    references = [row for row in ablation.rows if row.cell is None]
    panels = []
    for number, column in enumerate(columns):
        key = f"{prefix}-metric{number}"
        with page_style(key):
            panels.append(_curve(axis, column, shown, references, key) if axis
                          else _dots(column, shown, references, key))  # fmt: skip
    crosses = any(series.cell.verdicts["full"] for series in shown)
    lead = (
        "Test split. Bars: mean and 95% interval over seeds; small marks beside them: single seeds"
        f"{' (a cross: its posterior collapsed fully)' if crosses else ''}; "
        "dashed: references that need no training, where they have the metric."
    )
    legend = tuple(
        item for row, _, item in reference_looks(references) if any(_number(row, column) for column in columns)
    )
    return FigureGroup("metrics", title, lead + left_out_words(ablation, shown), tuple(panels), legend)


def _number(row: TableRow, column: Column) -> bool:
    return row.entries[column.key].mean is not None


def _has(column: Column, shown: Sequence[Series]) -> bool:
    return any(_number(series.row, column) for series in shown)


def _curve(axis: str, column: Column, shown: Sequence[Series], references: Sequence[TableRow], key: str) -> Panel:
    figure, axes = new_axes()
    points = [(float(series.cell.params[axis]), series) for series in shown]
    scale_to(axes, [value for value, _ in points])
    means = [(value, series.row.entries[column.key].mean) for value, series in points]
    axes.plot(*zip(*[(value, mean) for value, mean in means if mean is not None], strict=True), color=ACCENT)
    _draw_cells(axes, points, column, horizontal=False)
    _draw_references(axes, column, references, horizontal=True)
    axes.set(xlabel=axis, ylabel=_unit(column))
    axes.grid(axis="y")
    plain_ticks(axes.yaxis)
    return Panel(column.head, inline_svg(figure, key, _words(column, shown)))


def _dots(column: Column, shown: Sequence[Series], references: Sequence[TableRow], key: str) -> Panel:
    figure, axes = new_axes(height=1.0 + 0.24 * max(3, len(shown)))
    _draw_cells(axes, [(float(place), series) for place, series in enumerate(shown)], column, horizontal=True)
    _draw_references(axes, column, references, horizontal=False)
    axes.set_yticks(range(len(shown)), shortened([series.label for series in shown]))
    axes.set(xlabel=_unit(column), ylim=(len(shown) - 0.5, -0.5))
    axes.grid(axis="x")
    plain_ticks(axes.xaxis, most=4)
    return Panel(column.head, inline_svg(figure, key, _words(column, shown)))


def _draw_cells(axes: "Axes", placed: Sequence[tuple[float, Series]], column: Column, *, horizontal: bool) -> None:
    """Draw each cell's mean and interval at its place, and beside it one mark per seed of several.

    A seed's mark is a cross where its posterior collapsed fully. Few artists of many points: drawing takes a time per
    artist.
    """
    from matplotlib.transforms import offset_copy

    entries = [(at, series.row.entries[column.key]) for at, series in placed]
    means = [(at, entry.mean, entry.half_width or 0.0) for at, entry in entries if entry.mean is not None]
    places, values, reach = ([found[part] for found in means] for part in range(3))
    looks: Any = {"color": ACCENT, "capsize": 3, "linewidth": 1.3, "fmt": "o", "markersize": 5 if horizontal else 4.5}
    if horizontal:
        axes.errorbar(values, places, xerr=reach, **looks)
    else:
        axes.errorbar(places, values, yerr=reach, **looks)
    across, down = (0.0, -_ASIDE) if horizontal else (_ASIDE, 0.0)
    beside = offset_copy(axes.transData, axes.get_figure(root=True), x=across, y=down)
    for is_full, marks in _SEED_MARKS.items():
        seeds = [
            (at, value)
            for at, series in placed
            for run in (series.cell.done if len(series.cell.done) > 1 else ())
            if (run.verdict == "full") == is_full and (value := finite(run.metrics, column.key)) is not None
        ]
        x, y = [at for at, _ in seeds], [value for _, value in seeds]
        axes.plot(*((y, x) if horizontal else (x, y)), linestyle="none", zorder=4, transform=beside, **marks)


def _draw_references(axes: "Axes", column: Column, references: Sequence[TableRow], *, horizontal: bool) -> None:
    """Draw each reference that has the metric across its axis; the legend names them."""
    draw = axes.axhline if horizontal else axes.axvline
    for row, dashes, _ in reference_looks(references):
        value = row.entries[column.key].mean
        if value is not None:
            draw(value, color=MUTED, linewidth=1, linestyle=(0, dashes), zorder=1)


def _unit(column: Column) -> str:
    unit = column.unit.partition(" (")[0]
    return f"{column.title}, {unit}" if unit else column.title


def _words(column: Column, shown: Sequence[Series]) -> str:
    """Return the chart in words, for a screen reader; every number also stands in the table."""
    values = "; ".join(f"{series.label}: {series.row.entries[column.key].text}" for series in shown)
    return f"{_unit(column)} by cell, mean and 95% interval: {values}."


def shortened(labels: Sequence[str]) -> list[str]:
    """Return labels that fit beside a chart, cut at their ends, or where that makes two equal, in what they share."""
    cut = [label if len(label) <= _NAME else f"{label[: _NAME - 1]}…" for label in labels]
    counts = Counter(cut)
    found = []
    for label, short in zip(labels, cut, strict=True):
        twins = [other for other, same in zip(labels, cut, strict=True) if same == short]
        shared = os.path.commonprefix(twins)  # noqa: RUF071 - of characters: labels are no paths
        found.append(short if counts[short] == 1 else _around(label, len(shared)))
    return found


def _around(label: str, start: int) -> str:
    """Return a label without a part of its middle, so that what follows `start` stays."""
    head = _NAME // 3
    tail = _NAME - head - 1
    end = max(len(label) - tail, 0) if len(label) - start <= tail else start
    return f"{label[:head]}…{label[end : end + tail]}"
