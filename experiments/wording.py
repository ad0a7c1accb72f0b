"""Differences and p-values as text; every form of the report uses the same."""

from typing import TYPE_CHECKING

from experiments.columns import Column
from experiments.estimates import Estimate, digits

if TYPE_CHECKING:
    from experiments.comparison import Comparison

_SMALLEST_P = 0.001


def p_text(p: float | None) -> str:
    """Return `p = 0.012`, `p < 0.001`, or `no p` where nothing was tested."""
    if p is None:
        return "no p"
    if p < _SMALLEST_P:
        return f"p < {_SMALLEST_P}"
    return f"p = {p:.2g}" if p >= 0.01 else f"p = {p:.1g}"


def difference_text(comparison: "Comparison", column: Column, *, sign: int | None = None) -> str:
    """Return `+0.10 [+0.08, +0.12]`; with a `sign` (+1 or -1) its size in that direction, `0.10 [0.08, 0.12]`."""
    mark = "+" if sign is None else ""
    factor = sign or 1
    decimals = _decimals(comparison, column)
    mean = f"{factor * comparison.difference:{mark}.{decimals}f}"
    if comparison.low is None or comparison.high is None:
        return mean
    low, high = sorted((factor * comparison.low, factor * comparison.high))
    return f"{mean} [{low:{mark}.{decimals}f}, {high:{mark}.{decimals}f}]"


def spent(seconds: float) -> str:
    """Return a time to two or three digits in the unit that suits it: `9.7 s`, `32 min`, `5.1 h`."""
    if seconds < 120:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    if seconds < 7200:
        return f"{seconds / 60:.{1 if seconds < 600 else 0}f} min"
    return f"{seconds / 3600:.{1 if seconds < 360_000 else 0}f} h"


def effect_text(effect: float | None) -> str:
    """Return `d = 1.2`; empty where there is no effect size."""
    return "" if effect is None else f"d = {effect:.1f}" if abs(effect) < 100 else f"d = {effect:.0f}"


def _decimals(comparison: "Comparison", column: Column) -> int:
    """Return how many digits to show: as of a mean, and more where an interval that excludes zero would show it."""
    if comparison.low is None or comparison.high is None:
        return column.decimals
    half_width = (comparison.high - comparison.low) / 2
    text = digits(Estimate(comparison.difference, half_width, comparison.n), column.decimals, column.most)[0]
    decimals = len(text.partition(".")[2])
    nearest = min(abs(comparison.low), abs(comparison.high))
    while comparison.holds and decimals < column.most and round(nearest, decimals) == 0:
        decimals += 1
    return decimals
