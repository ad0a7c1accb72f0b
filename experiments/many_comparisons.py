"""Distributions of the largest of many t statistics: Dunnett's (all against one) and Tukey's (all pairs).

Both are one integral over the common standard error, s = chi(df) / sqrt(df), of one integral over the normal that the
comparisons share, taken by fixed Gauss rules: the same numbers every time, in about a millisecond for a whole column.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NODES = 48
_TAIL = 1e-12
_ALPHA = 0.05
_LARGEST_DF = 1e6


def dunnett_p(t: ArrayLike, comparisons: int, df: ArrayLike, correlation: float = 0.5) -> Array:
    """Return P(max |T_i| > |t|) for equally correlated t statistics with a common standard error.

    Args:
        t: the statistics; any shape that broadcasts with `df`.
        comparisons: how many cells are compared with the baseline.
        df: degrees of freedom of the standard error, above zero.
        correlation: between any two of them; 0.5 where all cells have the same seeds, at least 0, under 1.

    Source: Dunnett 1955, JASA 50, 1096-1121; two-sided as in Dunnett 1964, Biometrics 20, 482-491.
    """
    shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)

    def inside(bound: Array) -> Array:
        from scipy.special import ndtr

        nodes, weights = _normal_nodes()
        within = ndtr((shared * nodes + bound) / own) - ndtr((shared * nodes - bound) / own)
        return np.asarray((within**comparisons) @ weights)

    return _outside(inside, np.abs(np.asarray(t, dtype=float)), np.asarray(df, dtype=float))


def tukey_p(t: ArrayLike, cells: int, df: ArrayLike) -> Array:
    """Return P(max over all pairs of `cells` of |T_ij| > |t|): the studentized range at sqrt(2) |t|.

    Source: Tukey 1953; for unequal standard errors Kramer 1956; with degrees of freedom of each pair Games & Howell
    1976 (doi 10.3102/10769986001002113).
    """

    def inside(bound: Array) -> Array:
        from scipy.special import ndtr

        nodes, weights = _normal_nodes()
        within = ndtr(nodes) - ndtr(nodes - np.sqrt(2) * bound)
        return np.asarray(cells * (within ** (cells - 1)) @ weights)

    return _outside(inside, np.abs(np.asarray(t, dtype=float)), np.asarray(df, dtype=float))


def dunnett_critical(comparisons: int, df: ArrayLike, correlation: float = 0.5) -> Array:
    """Return the |t| at which `dunnett_p` is 0.05, to about 1e-4, for `df` of any shape and at least 1."""
    inverse, critical = _critical_table(comparisons, round(float(correlation), 4))
    return np.asarray(np.interp(1 / np.asarray(df, dtype=float), inverse, critical))


@cache
def _critical_table(comparisons: int, correlation: float) -> tuple[Array, Array]:
    """Return 1 / df, increasing, and the critical values there, which are nearly linear in it."""
    inverse = np.linspace(_LARGEST_DF ** (-2 / 3), 1, 48) ** 1.5
    df = 1 / inverse
    low, high = np.full_like(df, 0.5), np.full_like(df, 200.0)
    for _ in range(30):
        middle = (low + high) / 2
        above = dunnett_p(middle, comparisons, df, correlation) > _ALPHA
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return inverse, (low + high) / 2


def _outside(inside: Callable[[Array], Array], t: Array, df: Array) -> Array:
    """Return 1 - E[inside(t s)] over s = chi(df) / sqrt(df); `inside` takes a bound with one more axis at its end."""
    scale, weights = _scale_nodes(df)  # (..., S)
    return np.asarray(np.clip(1 - np.sum(inside((t[..., None] * scale)[..., None]) * weights, axis=-1), 0.0, 1.0))


@cache
def _normal_nodes() -> tuple[Array, Array]:
    """Return nodes and weights of E over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes, weights / weights.sum()


@cache
def _unit_nodes() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1) / 2, weights / 2


def _scale_nodes(df: Array) -> tuple[Array, Array]:
    """Return values of s (..., S) and their weights, which sum to one."""
    from scipy.special import gammainccinv, gammaincinv

    half = df[..., None] / 2
    lowest, highest = np.sqrt(gammaincinv(half, _TAIL) / half), np.sqrt(gammainccinv(half, _TAIL) / half)
    nodes, weights = _unit_nodes()
    scale = lowest + (highest - lowest) * nodes
    log_density = (2 * half - 1) * np.log(scale) - half * scale**2
    density = weights * np.exp(log_density - log_density.max(axis=-1, keepdims=True))
    return scale, density / density.sum(axis=-1, keepdims=True)
