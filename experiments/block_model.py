"""Randomised blocks: value = cell + seed + residual, where every cell sees the same seeds (common random numbers).

The fit is least squares, so cells may lack seeds. Cells of like spread share a pooled residual variance; one that
scatters far more than the others is left out of it, so that it does not hide what the others show.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int_]
Mask = NDArray[np.bool_]

_TOLERANCE = 1e-9
_UNCAPPED = 1e9
NO_SPREAD = 1e-12  # relative to the values: what is left of equal numbers after rounding
_NOISY = 0.005  # level of the test by which a cell is left out, corrected for the number of cells
_LEAST_LIKE = 2  # cells that stay; and at least half of all


@dataclass(frozen=True)
class BlockFit:
    """Variances of residuals, batched over B columns of values.

    Attributes:
        pooled: (B,), residual variance of the cells of like spread, as if all had the same.
        df: (B,), degrees of freedom of `pooled`.
        own: (B, K), variance of each cell over its seeds after the mean of the other cells of like spread is
            subtracted; too large by 1 / (number of these), never too small. 0 where a cell has no residual.
        own_df: (B, K), degrees of freedom of `own`: seeds shared with other cells, less one.
        like: (B, K), whether the cell is one of like spread.
    """

    pooled: Array
    df: Array
    own: Array
    own_df: Array
    like: Mask


class BlockDesign:
    """Which cell has which seed; the means of cells are eliminated, so that only a system of the seeds is solved."""

    def __init__(self, present: Mask) -> None:
        """Take `present` (K cells, S seeds)."""
        self.present = present
        self._there = present.astype(float)
        self._counts = np.maximum(self._there.sum(axis=1), 1)  # (K,)
        gram = np.diag(self._there.sum(axis=0)) - self._there.T @ (self._there / self._counts[:, None])
        self._inverse, rank = _pseudo_inverse(gram)  # (S, S)
        self.df = int(np.sum(present)) - int(np.sum(present.any(axis=1))) - rank
        company = present.sum(axis=0).astype(float)  # (S,): cells that share the seed
        shared = self._there * (company > 1)
        seeds_shared = shared.sum(axis=1)  # (K,)
        self.own_df = np.maximum(seeds_shared - 1, 0)
        self._scale = self._own_scale(shared @ company / np.maximum(seeds_shared, 1))

    def residuals(self, values: Array) -> Array:
        """Return what least squares leaves of `values` (B, K, S); 0 where none is present."""
        there = np.where(self.present, values, 0.0)
        centred = np.where(self.present, there - there.sum(axis=2, keepdims=True) / self._counts[:, None], 0.0)
        of_seed = centred.sum(axis=1) @ self._inverse  # (B, S)
        of_cell = of_seed @ self._there.T / self._counts  # (B, K)
        return np.where(self.present, centred - of_seed[:, None, :] + of_cell[:, :, None], 0.0)

    def own(self, residuals: Array) -> Array:
        """Return the variance of each cell from `residuals` (B, K, S): (B, K)."""
        return np.asarray(np.sum(residuals**2, axis=2) * self._scale)

    def _own_scale(self, company: Array) -> Array:
        """Return what a cell's sum of squares is multiplied by, from the mean number of cells on its seeds, (K,)."""
        spent = self._there @ np.diag(self._inverse) - np.sum((self._there @ self._inverse) * self._there, axis=1) / (
            self._counts
        )
        expected = self._there.sum(axis=1) - 1 - spent  # of that sum, for a common variance of 1
        fitted = expected > _TOLERANCE
        return np.where(fitted, company / np.maximum(company - 1, 1) / np.where(fitted, expected, 1), 0.0)


def _pseudo_inverse(gram: Array) -> tuple[Array, int]:
    """Return the pseudo-inverse of a symmetric positive semi-definite matrix, and its rank."""
    eigenvalues, vectors = np.linalg.eigh(gram)
    kept = eigenvalues > _TOLERANCE * max(float(eigenvalues.max(initial=0.0)), 1.0)
    return np.asarray((vectors[:, kept] / eigenvalues[kept]) @ vectors[:, kept].T), int(np.sum(kept))


def fit_blocks(values: Array, present: Mask) -> BlockFit:
    """Fit `values` (B, K, S) where they are `present` (K, S); cells of one seed add nothing to it.

    As long as the cell with the largest variance of its own scatters more than the others together (F test of the sum
    of squares that leaves with it, at 0.005 over the number of cells), it is left out of the pooled variance.
    """
    repeated = present & (present.sum(axis=1, keepdims=True) > 1)
    cells = int(np.sum(repeated.any(axis=1)))
    fewest = max(_LEAST_LIKE, cells - cells // 2)
    columns, each_cell = len(values), values.shape[:2]
    found = BlockFit(
        pooled=np.zeros(columns),
        df=np.zeros(columns),
        own=np.zeros(each_cell),
        own_df=np.zeros(each_cell),
        like=np.zeros(each_cell, dtype=bool),
    )
    pending = [(np.arange(columns), repeated)]
    while pending:
        rows, kept = pending.pop()
        design = BlockDesign(kept)
        residuals = design.residuals(values[rows])
        own, squares = design.own(residuals), np.sum(residuals**2, axis=(1, 2))
        leaves = np.full(len(rows), -1)
        if int(np.sum(kept.any(axis=1))) > fewest:
            leaves = _noisy(values[rows], design, own, squares)
        pending += [(rows[leaves == cell], _less(kept, cell)) for cell in np.unique(leaves[leaves >= 0])]
        stays = leaves < 0
        settled = rows[stays]
        found.pooled[settled] = squares[stays] / max(design.df, 1)
        found.df[settled] = design.df
        found.own[settled] = own[stays]
        found.own_df[settled] = design.own_df
        found.like[settled] = kept.any(axis=1)
    return found


def _noisy(values: Array, design: BlockDesign, own: Array, squares: Array) -> Indices:
    """Return the cell of each column (B,) that scatters far more than the others, -1 where none does."""
    from scipy.special import fdtrc

    cells = int(np.sum(design.present.any(axis=1)))
    widest = np.argmax(own, axis=1)
    found = np.full(len(values), -1)
    for cell in np.unique(widest):
        rows = np.nonzero(widest == cell)[0]
        without = BlockDesign(_less(design.present, cell))
        df = design.df - without.df
        if df < 1 or without.df < 1:
            continue
        of_others = np.sum(without.residuals(values[rows]) ** 2, axis=(1, 2))
        no_spread = NO_SPREAD * np.max(np.abs(values[rows]), axis=(1, 2), where=without.present, initial=0.0)
        others_vary = np.sqrt(of_others / without.df) > no_spread  # beside constants no spread is "far more"
        ratio = (squares[rows] - of_others) / df / np.where(others_vary, of_others / without.df, np.inf)
        found[rows[fdtrc(df, without.df, np.maximum(ratio, 0)) * cells <= _NOISY]] = cell
    return found


def _less(present: Mask, cell: int) -> Mask:
    others = np.arange(len(present)) != cell
    return np.asarray(present & others[:, None])


@dataclass(frozen=True)
class Trust:
    """How far a variance of a cell's own is believed that is above the pooled one: the weight of their mixture.

    It is `least` up to `start` times the pooled variance, and rises from there to 1 at `full` times.
    """

    least: float
    start: float
    full: float

    def weight(self, own: Array, pooled: Array) -> Array:
        """Return the weight of `own` beside `pooled`."""
        rise = (own - self.start * pooled) / ((self.full - self.start) * np.where(pooled > 0, pooled, 1.0))
        return np.asarray(self.least + (1 - self.least) * np.clip(rise, 0, 1))


@dataclass(frozen=True)
class Weights:
    """Whose own variance is believed how far, and how many degrees of freedom a comparison may have."""

    first: Trust
    second: Trust
    df_per_seed: float = _UNCAPPED  # at most this times (seeds - 1)


# Against a baseline, whose variance is in every comparison, and for all pairs; with 3 or 4 seeds, and from 5 on.
_CELL = Trust(0.5, 1.5, 6.0)
_ANY_FEW, _ANY = Trust(0.9, 1.5, 3.5), Trust(0.6, 1.5, 5.0)
BASELINE_FEW, BASELINE = Weights(Trust(1.0, 1.5, 3.5), _CELL, 2.5), Weights(Trust(0.6, 1.5, 3.5), _CELL)
PAIRS_FEW, PAIRS = Weights(_ANY_FEW, _ANY_FEW, 2.5), Weights(_ANY, _ANY)
ENOUGH_SEEDS = 5


def difference_variance(fit: BlockFit, first: Indices, second: Indices, weights: Weights) -> tuple[Array, Array]:
    """Return the variance of one seed's difference between two cells of like spread and its df, both (B, P).

    Each of the two variances is the pooled one, or, where the cell's own is larger, a mixture of both. So cells of
    equal spread share their degrees of freedom, and a cell that scatters more is not tested by the others' spread. The
    degrees of freedom are those of Satterthwaite 1946 (Biometrics Bulletin 2, 110-114), at most those of the pooled
    variance. Shrinking towards a pooled variance is that of Smyth 2004 (doi 10.2202/1544-6115.1027), here from above
    only, with weights chosen by simulation (benchmarks/simulate_statistics.py).

    Args:
        fit: of B columns.
        first: (P,), index of the cell that all comparisons share, or of any cell.
        second: (P,), index of the other cell.
        weights: for `first` and `second`.
    """
    one, one_spread = _from_above(fit, first, weights.first)
    other, other_spread = _from_above(fit, second, weights.second)
    variance = one + other
    pooled_df = fit.df[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(variance > 0, variance**2 / (one_spread + other_spread), pooled_df)
    cap = weights.df_per_seed * np.minimum(fit.own_df[:, first], fit.own_df[:, second])
    return variance, np.maximum(np.minimum(np.minimum(df, pooled_df), cap), 1.0)


def _from_above(fit: BlockFit, cell: Indices, trust: Trust) -> tuple[Array, Array]:
    """Return a cell's variance and the sum of squared parts over their degrees of freedom, both (B, P)."""
    pooled, own, own_df = fit.pooled[:, None], fit.own[:, cell], np.maximum(fit.own_df[:, cell], 1)
    df = np.maximum(fit.df, 1)[:, None]
    weight = trust.weight(own, pooled)
    mixed = weight * own + (1 - weight) * pooled
    spread = (weight * own) ** 2 / own_df + ((1 - weight) * pooled) ** 2 / df
    larger = own > pooled
    shared = np.broadcast_to(pooled, own.shape)
    return np.where(larger, mixed, shared), np.where(larger, spread, shared**2 / df)


def pair_variance(
    values: Array, fit: BlockFit, first: Indices, second: Indices, blocked: Mask, few: Weights, enough: Weights
) -> tuple[Array, Array]:
    """Return the variance of one seed's difference between two cells and its degrees of freedom, both (B, P).

    That of the block model for two cells of like spread; else that of the pair's own differences.

    Args:
        values: (B, K, S), NaN where there is none, in all columns alike.
        fit: of these values.
        first: (P,), index of the cell that all comparisons share, or of any cell.
        second: (P,), index of the other cell.
        blocked: (P,), whether the block model may be used at all.
        few: weights of pairs with fewer than five common seeds.
        enough: weights of the others.
    """
    differences = values[:, second] - values[:, first]  # (B, P, S)
    there = ~np.isnan(differences)
    seeds = np.sum(there, axis=2)
    own_df = np.maximum(seeds - 1, 1).astype(float)
    mean = np.sum(differences, axis=2, where=there, keepdims=True) / np.maximum(seeds, 1)[..., None]
    own = np.sum((differences - mean) ** 2, axis=2, where=there) / own_df
    model, model_df = (
        np.where(seeds < ENOUGH_SEEDS, of_few, of_enough)
        for of_few, of_enough in zip(
            difference_variance(fit, first, second, few), difference_variance(fit, first, second, enough), strict=True
        )
    )
    shares = blocked & fit.like[:, first] & fit.like[:, second]
    return np.where(shares, model, own), np.where(shares, model_df, own_df)
