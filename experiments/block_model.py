"""Randomised blocks: value = cell + seed + residual, where every cell sees the same seeds (common random numbers).

The fit is least squares, so cells may lack seeds. Beside the pooled residual variance it gives each cell its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TOLERANCE = 1e-9
_UNCAPPED = 1e9


@dataclass(frozen=True)
class BlockFit:
    """Variances of residuals, batched over B columns of values.

    Attributes:
        pooled: (B,), residual variance as if all cells had the same.
        df: degrees of freedom of `pooled`.
        own: (B, K), variance of each cell over its seeds after the mean of the other cells is subtracted; too large by
            1 / (number of other cells), never too small. 0 where a cell has no residual.
        own_df: (K,), degrees of freedom of `own`: seeds shared with other cells, less one.
        residuals: (B, N), of the values that are there, in the order of the design.
    """

    pooled: Array
    df: int
    own: Array
    own_df: Array
    residuals: Array


class BlockDesign:
    """Which cell has which seed."""

    def __init__(self, present: NDArray[np.bool_]) -> None:
        """Take `present` (K cells, S seeds)."""
        self.cell, self.seed = np.nonzero(present)  # (N,) each
        self._cells, seeds = present.shape
        columns = np.concatenate([np.eye(self._cells)[self.cell], np.eye(seeds)[self.seed]], axis=1)  # (N, K + S)
        left, singular, _ = np.linalg.svd(columns, full_matrices=False)
        self._basis = left[:, singular > _TOLERANCE * singular.max(initial=0.0)]  # (N, rank)
        self.df = len(self.cell) - self._basis.shape[1]
        company = present.sum(axis=0)[self.seed].astype(float)  # (N,): cells that share the value's seed
        shared = company > 1
        seeds_shared = self._by_cell(shared.astype(float))  # (K,)
        self._own_df = np.maximum(seeds_shared - 1, 0)
        self._scale = self._own_scale(self._by_cell(company * shared) / np.maximum(seeds_shared, 1))

    def _own_scale(self, company: Array) -> Array:
        """Return what a cell's sum of squares is multiplied by, from the mean number of cells on its seeds, (K,)."""
        expected = self._by_cell(1 - np.sum(self._basis**2, axis=1))  # of that sum, for a common variance of 1
        fitted = expected > _TOLERANCE
        return np.where(fitted, company / np.maximum(company - 1, 1) / np.where(fitted, expected, 1), 0.0)

    def fit(self, values: Array) -> BlockFit:
        """Fit `values` (B, N), ordered by cell, then seed. `pooled` is 0 where no degree of freedom is left."""
        residuals = values - (values @ self._basis) @ self._basis.T
        squares = residuals**2
        return BlockFit(
            pooled=squares.sum(axis=1) / max(self.df, 1),
            df=self.df,
            own=self._by_cell(squares) * self._scale,
            own_df=self._own_df,
            residuals=residuals,
        )

    def _by_cell(self, values: Array) -> Array:
        """Sum `values` (..., N) over each cell: (..., K)."""
        return np.asarray(values @ np.eye(self._cells)[self.cell])


@dataclass(frozen=True)
class Weights:
    """How far a variance above the pooled one is believed: 1 entirely, 0 not at all (the pooled one is taken)."""

    baseline: float
    cell: float
    df_per_seed: float  # the degrees of freedom are at most this times (seeds - 1)


# Against a baseline, whose variance is in every comparison, and for all pairs; with 3 or 4 seeds, and from 5 on.
BASELINE_FEW, BASELINE = Weights(1.0, 0.45, 2.5), Weights(0.8, 0.45, _UNCAPPED)
PAIRS_FEW, PAIRS = Weights(0.8, 0.8, 2.5), Weights(0.6, 0.6, _UNCAPPED)
ENOUGH_SEEDS = 5


def difference_variance(
    fit: BlockFit, first: NDArray[np.int_], second: NDArray[np.int_], weights: Weights
) -> tuple[Array, Array]:
    """Return the variance of one seed's difference between two cells and its degrees of freedom, both (B, P).

    Each of the two variances is the pooled one, or, where the cell's own is larger, a mixture of both. So cells of
    equal spread share their degrees of freedom, and a cell that scatters more is not tested by the others' spread. The
    degrees of freedom are those of Satterthwaite 1946 (Biometrics Bulletin 2, 110-114), at most those of the pooled
    variance. Shrinking towards a pooled variance is that of Smyth 2004 (doi 10.2202/1544-6115.1027), here from above
    only, with weights chosen by simulation (benchmarks/simulate_statistics.py).

    Args:
        fit: of B columns.
        first: (P,), index of the cell that all comparisons share, or of any cell.
        second: (P,), index of the other cell.
        weights: for `first` (baseline) and `second` (cell).
    """
    one, one_spread = _from_above(fit, first, weights.baseline)
    other, other_spread = _from_above(fit, second, weights.cell)
    variance = one + other
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(variance > 0, variance**2 / (one_spread + other_spread), fit.df)
    cap = weights.df_per_seed * np.minimum(fit.own_df[first], fit.own_df[second])
    return variance, np.maximum(np.minimum(np.minimum(df, fit.df), cap), 1.0)


def _from_above(fit: BlockFit, cell: NDArray[np.int_], weight: float) -> tuple[Array, Array]:
    """Return a cell's variance and the sum of squared parts over their degrees of freedom, both (B, P)."""
    pooled, own, own_df = fit.pooled[:, None], fit.own[:, cell], np.maximum(fit.own_df[cell], 1)
    mixed = weight * own + (1 - weight) * pooled
    spread = (weight * own) ** 2 / own_df + ((1 - weight) * pooled) ** 2 / max(fit.df, 1)
    larger = own > pooled
    shared = np.broadcast_to(pooled, own.shape)
    return np.where(larger, mixed, shared), np.where(larger, spread, shared**2 / max(fit.df, 1))
