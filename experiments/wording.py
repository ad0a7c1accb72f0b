"""Differences and p-values as text; every form of the report uses the same."""

from typing import TYPE_CHECKING

from experiments.columns import Column
from experiments.estimates import decimals_of, is_small, scientific, vanishes

if TYPE_CHECKING:
    from experiments.comparison import Comparison

_SMALLEST_P = 0.001


def p_text(p: float | None) -> str:
    """Return `p = 0.012`, `p < 0.001`, or `no p` where nothing was tested."""
    if p is None:
        return "no p"
    if p < _SMALLEST_P:
        return f"p < {_SMALLEST_P}"
    if 0.045 <= p < 0.055:  # two digits would not tell the side of 0.05
        return f"p = {p:.4f}"
    return f"p = {p:.2g}" if p >= 0.01 else f"p = {p:.1g}"


def difference_text(comparison: "Comparison", column: Column, *, sign: int | None = None) -> str:
    """Return `+0.10 [+0.08, +0.12]`; with a `sign` (+1 or -1) its size in that direction, `0.10 [0.08, 0.12]`."""
    mean, *ends = difference_numbers(comparison, column, factor=sign or 1, mark="+" if sign is None else "")
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def difference_numbers(comparison: "Comparison", column: Column, *, factor: int = 1, mark: str = "") -> list[str]:
    """Return a difference and, where it was tested, both ends of its interval, the lower first.

    Args:
        comparison: a cell's.
        column: the metric's.
        factor: -1 turns the difference round.
        mark: "+": positive numbers have their sign.
    """
    half_width = _half_width(comparison)
    decimals, is_cut = _decimals(comparison, column, half_width)
    values = [factor * comparison.difference]
    if comparison.low is not None and comparison.high is not None:
        values += sorted((factor * comparison.low, factor * comparison.high))
    hidden = is_cut and any(vanishes(value, decimals) for value in values)
    return [
        scientific(value, half_width, mark) if hidden and is_small(value, decimals) else f"{value:{mark}.{decimals}f}"
        for value in values
    ]


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


def _half_width(comparison: "Comparison") -> float | None:
    return None if comparison.low is None or comparison.high is None else (comparison.high - comparison.low) / 2


def _decimals(comparison: "Comparison", column: Column, half_width: float | None) -> tuple[int, bool]:
    """Return how many decimals to show, and whether a number that they do not show needs scientific notation.

    As many as of a mean, and more where an interval that excludes zero would show it.
    """
    if not half_width or comparison.low is None or comparison.high is None:
        return column.most if vanishes(comparison.difference, column.decimals) else column.decimals, True
    decimals = decimals_of(half_width)
    nearest = min(abs(comparison.low), abs(comparison.high))
    while comparison.holds and decimals < column.most and round(nearest, decimals) == 0:
        decimals += 1
    return min(decimals, column.most), comparison.holds or decimals > column.most
