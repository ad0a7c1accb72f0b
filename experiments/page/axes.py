"""Scales and ticks of charts: plain numbers, logarithmic where values span much."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.table import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
_LOG_SPAN = 50  # largest over smallest value from which an axis is logarithmic
_MOST_TICKS = 9
_DENSE = 0.045  # of an axis; ticks nearer than this would touch


def plain_ticks(axis: "Axis", *, whole: bool = False, most: int = 8) -> None:
    """Write ticks as plain numbers (1000, 0.001), not as powers; `whole`: integers only; `most`: on a linear scale."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if whole:
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    elif axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(nbins=most, steps=_STEPS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "\N{MINUS SIGN}")))
    axis.set_minor_formatter(NullFormatter())


def scale_to(axes: "Axes", values: Sequence[float]) -> None:
    """Make the x axis logarithmic where its values span much, with ticks at the values where they fit."""
    import numpy as np

    positive = [value for value in values if value > 0]
    if positive and min(values) >= 0 and max(positive) > _LOG_SPAN * min(positive):
        if len(positive) == len(values):
            axes.set_xscale("log")
        else:  # zero has no logarithm
            axes.set_xscale("symlog", linthresh=min(positive))
    distinct = sorted(set(values))
    places = axes.transData.transform([(value, 0.0) for value in distinct])[:, 0]
    width = float(np.ptp(places)) or 1.0
    kept: list[tuple[float, float]] = []
    for value, place in zip(distinct, places, strict=True):
        if not kept or place - kept[-1][1] > _DENSE * width:
            kept.append((value, place))
    if len(kept) <= _MOST_TICKS:
        axes.set_xticks([value for value, _ in kept], [plain(value) for value, _ in kept])
        axes.set_xticks([], minor=True)
    else:
        plain_ticks(axes.xaxis)
