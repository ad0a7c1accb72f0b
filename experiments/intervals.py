"""Intervals beside Student's t that are worth printing, from ten seeds on.

What is offered was chosen by coverage (BENCHMARKS.md, "Statistics of tables"). Bootstrap intervals of the mean are not,
percentile or BCa: nominal 95% covers 85% at 5 seeds, 90% at 10 and under 93% still at 20; Student's t covers 95%.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_VALUES = 10
_TRIMMED = 0.25
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval over `n` seeds."""

    value: float
    low: float
    high: float
    n: int


def iqm_interval(values: Sequence[float]) -> Interval | None:
    """Return the interquartile mean and its interval; None for fewer than ten values.

    The mean of what is left when a quarter of the values, rounded down, is cut off at each end (rliable's IQM of one
    task: Agarwal et al. 2021, arXiv 2108.13264). The interval is Yuen's (1974, Biometrika 61, 165-170):
    t with n - 2 g - 1 degrees of freedom on the winsorised variance, where g values are cut at each end.
    """
    n = len(values)
    if n < LEAST_VALUES:
        return None
    from scipy.special import stdtrit

    cut = int(_TRIMMED * n)
    kept = n - 2 * cut
    ordered = np.sort(np.asarray(values, dtype=float))
    mean = float(ordered[cut : n - cut].mean())
    winsorised = np.clip(ordered, ordered[cut], ordered[n - cut - 1])
    error = float(winsorised.std(ddof=1)) * math.sqrt((n - 1) / (kept * (kept - 1)))
    half_width = float(stdtrit(kept - 1, 0.5 + _LEVEL / 2)) * error
    return Interval(mean, mean - half_width, mean + half_width, n)


def improvement_interval(cell: Sequence[float], baseline: Sequence[float], higher_is_better: bool) -> Interval | None:
    """Return the probability that a run of `cell` is better than one of `baseline`; None where either has under ten.

    The share of all pairs of runs in which the cell's is better, ties counted half (rliable's probability of
    improvement). The interval holds all probabilities that are within t standard errors of the share. The standard
    error is that of Hanley & McNeil 1982 (Radiology 143, 29-36) at the probability, with the numbers of runs averaged
    as in Newcombe's method 5 (2006, Statistics in Medicine 25, 559-573), or that of DeLong et al. 1988 (Biometrics 44,
    837-845) where it is larger, as it is when one cell scatters more. It is meant for independent runs: the same seeds
    in both make it wider than needed. `n` is the smaller number of runs.
    """
    if min(len(cell), len(baseline)) < LEAST_VALUES:
        return None
    from scipy.special import stdtrit

    first, second = (np.asarray(values, dtype=float) for values in (cell, baseline))
    sign = 1 if higher_is_better else -1
    better = np.sign(sign * (first[:, None] - second[None])) / 2 + 0.5  # (runs of the cell, runs of the baseline)
    share = float(better.mean())
    quantile = float(stdtrit(len(first) + len(second) - 2, 0.5 + _LEVEL / 2))
    of_sample = math.sqrt(sum(better.mean(axis=k).var(ddof=1) / better.shape[1 - k] for k in (0, 1)))

    def outside(probability: float) -> bool:
        error = max(_hanley_mcneil(probability, len(first), len(second)), of_sample)
        return abs(share - probability) > quantile * error

    low, high = _edge(outside, share, 0.0), _edge(outside, share, 1.0)
    return Interval(share, low, high, min(len(first), len(second)))


def _hanley_mcneil(probability: float, first: int, second: int) -> float:
    """Return the standard error of a share of pairs for exponential values."""
    others = (first + second) / 2 - 1
    spread = 1 + others * ((1 - probability) / (2 - probability) + probability / (1 + probability))
    return math.sqrt(probability * (1 - probability) * spread / (first * second))


def _edge(outside: Callable[[float], bool], inner: float, outer: float) -> float:
    """Return where `outside` begins between a value inside and one that is outside, or `outer` if it is not."""
    for _ in range(60):
        middle = (inner + outer) / 2
        if outside(middle):
            outer = middle
        else:
            inner = middle
    return (inner + outer) / 2
