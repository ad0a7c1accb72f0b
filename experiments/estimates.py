"""A mean over seeds with its 95% interval, and how many digits of it are worth printing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEVEL = 0.95
_MOST_PLACES = 3  # after the point of a number in scientific notation
_ROUNDING = 1e-12  # smaller numbers are what rounding leaves of zero


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; `half_width` of its 95% interval is None for a single value."""

    mean: float
    half_width: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean and t(0.975, n - 1) * s / sqrt(n), Student's half-width; None for no values."""
    if not values:
        return None
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), None, 1)
    from scipy.special import stdtrit  # the t quantile without the second that scipy.stats takes to import

    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Estimate(mean, float(stdtrit(n - 1, 0.5 + _LEVEL / 2)) * math.sqrt(variance / n), n)


def digits(value: Estimate, usual: int, most: int) -> tuple[str, str | None]:
    """Return mean and half-width as text: the half-width to two significant digits, the mean alike.

    What so many decimals would show as zero, though it is not, is in scientific notation.

    Args:
        value: the estimate.
        usual: decimals where there is no interval (or one of width zero).
        most: decimals that are never exceeded.
    """
    mean, half_width = value.mean, value.half_width
    wanted = decimals_of(half_width) if half_width else usual
    decimals = min(wanted, most)
    if not half_width and vanishes(mean, decimals):
        decimals = most
    if wanted > most or not half_width:
        is_hidden = vanishes(mean, decimals) or vanishes(half_width or 0.0, decimals)
        if is_hidden and is_small(mean, decimals):
            return scientific(mean, half_width), None if half_width is None else scientific(half_width, half_width)
    return f"{mean:.{decimals}f}", None if half_width is None else f"{half_width:.{decimals}f}"


def decimals_of(half_width: float) -> int:
    """Return the decimals that show a half-width to two significant digits."""
    return max(0, 1 - _magnitude(half_width))


def vanishes(value: float, decimals: int) -> bool:
    """Return whether a value that is not zero would be printed as zero."""
    return abs(value) > _ROUNDING and round(value, decimals) == 0


def is_small(value: float, decimals: int) -> bool:
    """Return whether at most one significant digit of a value would be printed."""
    return abs(value) < 10.0 ** (1 - decimals)


def scientific(value: float, half_width: float | None = None, sign: str = "") -> str:
    """Return `4.20e-07`: as many digits as two of its interval's half-width leave, or two without; zero as `0`.

    Args:
        value: any number.
        half_width: of the interval that decides on its digits.
        sign: "+": a positive number has its sign.
    """
    if not value:
        return "0"
    places = _magnitude(value) - _magnitude(half_width or value) + 1
    return f"{value:{sign}.{min(_MOST_PLACES, max(0, places))}e}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three points or a constant."""
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
