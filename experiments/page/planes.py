"""Two metrics against each other: rate and distortion, error and size; and the cells that no other one beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.ablation import Ablation
from experiments.columns import ELBO, KL, MSE, RECONSTRUCTION
from experiments.comparability import DIFFERENT_IMAGES
from experiments.page.axes import plain_ticks, scale_to
from experiments.page.parts import (
    MOST_SERIES,
    FigureGroup,
    LeftOut,
    Numbers,
    Panel,
    Series,
    all_series,
    finite,
    shown_series,
)
from experiments.page.svg import ACCENT, BAD, GRID, MUTED, SURFACE, inline_svg, new_axes, page_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_SEEDS = 1000  # marks; beyond, only means are drawn
_MOST_MARKED = 300  # cells; more are dots without looks of their own
_SIZE = (5.0, 3.6)  # inches
_ISO_LINES = 6


@dataclass(frozen=True)
class _Point:
    series: Series
    x: float
    y: float


def rate_distortion(ablation: Ablation, prefix: str, *, same_elbo: bool) -> FigureGroup | LeftOut:
    """Draw R (KL) against D (negative log-likelihood) of all cells and seeds, with lines of equal ELBO."""
    title = "Rate-distortion plane"
    if not same_elbo:
        return LeftOut(title, "the cells' likelihoods or images differ, so their distortions are in different units")
    points = _points(ablation, KL, RECONSTRUCTION)
    if len(points) < 2:
        return LeftOut(title, "fewer than two cells have a finished run")
    key = f"{prefix}-plane"
    front = _front(points)
    with page_style(key):
        figure, axes = new_axes(*_SIZE)
        seeds = _draw_points(axes, points, KL, RECONSTRUCTION)
        _draw_front(axes, front)
        _draw_iso_elbo(axes)
        axes.set(xlabel="rate R: KL, nats per image", ylabel="distortion D: −ln p(x|z), nats per image")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        svg = inline_svg(figure, key, _words("rate R", "distortion D", points))
    lead = (
        f"Test split, nats per image. Large marks: means over seeds{'; small: seeds' if seeds else ''}. "
        "Thin diagonals: equal ELBO = −(R + D), higher towards the lower left. "
        + (
            f"On the stepped line nothing is gained in one without losing in the other: {_names(front, points)}."
            if len(front) > 1
            else f"The mean of {_names(front, points)} is the lowest in both."
        )
    )
    legend = tuple(series.marked_legend for series in shown_series(ablation)) if len(points) <= MOST_SERIES else ()
    return FigureGroup("plane", title, lead, (Panel("Rate and distortion", svg),), legend, _numbers(points))


def pareto(ablation: Ablation, prefix: str, *, same_elbo: bool) -> FigureGroup | LeftOut:
    """Draw the best metric of a model against its size, where sizes differ; the front is marked."""
    title = "Pareto front: quality and size"
    if not ablation.results.one_data_set:
        return LeftOut(title, DIFFERENT_IMAGES)
    key, name, sign = (ELBO, "ELBO, nats per image", -1.0) if same_elbo else (MSE, "MSE, squared pixel units", 1.0)
    points = [
        _Point(series, float(sizes.pop()), mean)
        for series in all_series(ablation)
        if len(sizes := {run.parameters for run in series.cell.done if run.parameters}) == 1
        and (mean := _mean(series, key)) is not None
    ]
    if len({point.x for point in points}) < 2:
        return LeftOut(title, "all cells' models have the same number of parameters")
    front = _front([_Point(point.series, point.x, sign * point.y) for point in points])
    chosen = {point.series.row.name for point in front}
    anchor = f"{prefix}-pareto"
    with page_style(anchor):
        figure, axes = new_axes(*_SIZE)
        _draw_points(axes, points, None, key)
        _draw_front(axes, [point for point in points if point.series.row.name in chosen])
        scale_to(axes, [point.x for point in points])
        axes.set(xlabel="parameters", ylabel=name)
        plain_ticks(axes.yaxis)
        svg = inline_svg(figure, anchor, _words("parameters", name, points))
    lead = (
        f"Test split, means over seeds. No other cell is both smaller and better than these: {_names(front, points)}."
    )
    legend = tuple(series.marked_legend for series in shown_series(ablation)) if len(points) <= MOST_SERIES else ()
    return FigureGroup("pareto", title, lead, (Panel(f"{name} against size", svg),), legend)


def _points(ablation: Ablation, x: str, y: str) -> list[_Point]:
    found = [(series, _mean(series, x), _mean(series, y)) for series in all_series(ablation)]
    return [_Point(series, a, b) for series, a, b in found if a is not None and b is not None]


def _mean(series: Series, key: str) -> float | None:
    values = [value for run in series.cell.done if (value := finite(run.metrics, key)) is not None]
    return float(np.mean(values)) if values else None


def _front(points: Sequence[_Point]) -> list[_Point]:
    """Return the points that no other one is below in both coordinates, by ascending x."""
    front: list[_Point] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        if not front or point.y < front[-1].y:
            front.append(point)
    return front


def _draw_points(axes: "Axes", points: Sequence[_Point], x: str | None, y: str) -> bool:
    """Draw means and, where they are not too many and have an x of their own, seeds; return whether."""
    if len(points) > _MOST_MARKED:
        for collapsed, colour in ((False, MUTED), (True, BAD)):
            chosen = [point for point in points if _is_collapsed(point) == collapsed]
            axes.plot([point.x for point in chosen], [point.y for point in chosen], ".", color=colour, markersize=4)
        return False
    several = any(len(point.series.cell.done) > 1 for point in points)
    with_seeds = x is not None and several and sum(len(point.series.cell.done) for point in points) <= _MOST_SEEDS
    for point in points:
        series = point.series
        for run in series.cell.done if with_seeds else ():
            a, b = finite(run.metrics, x or ""), finite(run.metrics, y)
            if a is not None and b is not None:
                axes.plot(
                    a, b, marker=series.marker, color=series.colour, markersize=3.2, alpha=0.65, markeredgewidth=0
                )
        collapsed = _is_collapsed(point)
        edge = BAD if collapsed else SURFACE
        axes.plot(point.x, point.y, marker=series.marker, color=series.colour, markersize=7.5, markeredgecolor=edge,
                  markeredgewidth=1.4 if collapsed else 0.8, zorder=4)  # fmt: skip
    return with_seeds


def _is_collapsed(point: _Point) -> bool:
    return point.series.cell.verdicts["full"] == len(point.series.cell.done)


def _draw_front(axes: "Axes", front: Sequence[_Point]) -> None:
    ordered = sorted(front, key=lambda point: point.x)
    if len(ordered) > 1:
        axes.step([point.x for point in ordered], [point.y for point in ordered], where="post",
                  color=ACCENT, linewidth=1, alpha=0.8, zorder=2)  # fmt: skip


def _draw_iso_elbo(axes: "Axes") -> None:
    """Draw lines of equal R + D across the chart as it is now."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in np.linspace(left + bottom, right + top, _ISO_LINES + 2)[1:-1]:
        axes.plot([left, right], [total - left, total - right], color=GRID, linewidth=0.9, zorder=0)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def _numbers(points: Sequence[_Point]) -> Numbers:
    rows = tuple(
        (point.series.label, f"{point.x:.4g}", f"{point.y:.4g}", f"{-(point.x + point.y):.4g}")
        for point in points[:_MOST_MARKED]
    )
    return Numbers(("cell", "R, nats", "D, nats", "ELBO = −(R + D), nats"), rows)


def _words(x: str, y: str, points: Sequence[_Point]) -> str:
    values = "; ".join(f"{point.series.label}: {point.x:.4g}, {point.y:.4g}" for point in points[:MOST_SERIES])
    return f"{y} against {x}, means over seeds: {values}."


def _names(front: Sequence[_Point], points: Sequence[_Point]) -> str:
    if len(front) == len(points):
        return "all cells"
    named = "; ".join(point.series.label for point in front[:MOST_SERIES])
    return f"{named} and {len(front) - MOST_SERIES} more" if len(front) > MOST_SERIES else named
