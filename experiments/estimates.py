"""A mean over seeds with its 95% interval, and how many digits of it are worth printing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEVEL = 0.95


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

    Args:
        value: the estimate.
        usual: decimals where there is no interval (or one of width zero).
        most: decimals that are never exceeded.
    """
    if not value.half_width:
        half_width = None if value.half_width is None else f"{0:.{usual}f}"
        return f"{value.mean:.{usual}f}", half_width
    decimals = min(most, max(0, 1 - math.floor(math.log10(value.half_width))))
    return f"{value.mean:.{decimals}f}", f"{value.half_width:.{decimals}f}"


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three points or a constant."""
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
