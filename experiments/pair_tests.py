"""t statistics of pairs of cells on their common seeds; what both kinds of table marks are made from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.block_model import NO_SPREAD, BlockFit, Weights, fit_blocks, pair_variance

Array = NDArray[np.float64]
Indices = NDArray[np.int_]

ALPHA = 0.05
LEAST_SEEDS = 3  # of a comparison in the block model; with two, a cell's own variance has one degree of freedom
_LEAST_CELLS = 3  # with two cells the block model is the paired t test
_MOST_FLIPPED = 20  # seeds: 2**19 patterns of signs, in 4 MB


@dataclass(frozen=True)
class Column:
    """One metric: `values` (K cells, S seeds), NaN where a cell has no finite value."""

    cells: tuple[str, ...]
    values: Array

    @classmethod
    def of(cls, values: Mapping[str, Mapping[int, float]]) -> "Column":
        """Arrange cell -> seed -> value; values that are not finite count as missing."""
        seeds = sorted({seed for own in values.values() for seed in own})
        matrix = np.array([[own.get(seed, np.nan) for seed in seeds] for own in values.values()], dtype=float)
        return cls(tuple(values), np.where(np.isfinite(matrix), matrix, np.nan).reshape(len(values), len(seeds)))

    @property
    def present(self) -> NDArray[np.bool_]:
        """(K, S): where there is a value."""
        return ~np.isnan(self.values)

    def differences(self, first: int, second: int) -> Array:
        """Return the second cell less the first on each of their common seeds."""
        both = self.present[first] & self.present[second]
        return np.asarray(self.values[second, both] - self.values[first, both])

    def fit(self) -> BlockFit:
        """Return the block model of this column alone."""
        return fit_blocks(self.values[None], self.present)

    @property
    def no_spread(self) -> Array:
        """(K,): the standard deviation under which a cell's values count as equal."""
        return np.asarray(NO_SPREAD * np.max(np.abs(self.values), axis=1, where=self.present, initial=0.0))


@dataclass(frozen=True)
class PairTests:
    """P pairs: the first cell is subtracted from the second.

    Attributes:
        difference: (P,), mean over the common seeds; NaN where there are none.
        seeds: (P,), common seeds.
        error: (P,), standard error of the difference; NaN where it cannot be tested.
        df: (P,), degrees of freedom of the error.
        blocked: (P,), whether the pair belongs to the block model, whose cells share their seeds and, where both are of
            like spread, their variance; else it is the paired t test, where no pair belongs to it. Pairs of two common
            seeds are tested only then: beside the block model they would add false positives and find nothing.
        alike: (P,), whether both cells are of like spread.
    """

    difference: Array
    seeds: Indices
    error: Array
    df: Array
    blocked: NDArray[np.bool_]
    alike: NDArray[np.bool_]

    @property
    def tested(self) -> NDArray[np.bool_]:
        """(P,): where there is an error to test with."""
        return ~np.isnan(self.error)

    @property
    def t(self) -> Array:
        """(P,), NaN where not tested."""
        return self.difference / self.error


def pair_tests(
    column: Column, fit: BlockFit, first: Indices, second: Indices, few: Weights, enough: Weights
) -> PairTests:
    """Test the pairs (first, second) (P,) of a column; `few` weighs variances of pairs with fewer than five seeds."""
    differences = column.values[second] - column.values[first]  # (P, S)
    seeds = np.sum(~np.isnan(differences), axis=1)
    mean = np.nansum(differences, axis=1) / np.where(seeds > 0, seeds, np.nan)
    cells = int(np.sum(column.present.sum(axis=1) > 1))
    blocked = (seeds >= LEAST_SEEDS) & (cells >= _LEAST_CELLS)
    testable = blocked if np.any(blocked) else seeds >= 2
    [variance], [df] = pair_variance(column.values[None], fit, first, second, blocked, few, enough)
    error = np.sqrt(variance / np.maximum(seeds, 1))
    spread = np.sqrt(variance) > np.maximum(column.no_spread[first], column.no_spread[second])
    return PairTests(
        difference=mean,
        seeds=seeds,
        error=np.where(testable & spread, error, np.nan),
        df=df,
        blocked=blocked,
        alike=fit.like[0, first] & fit.like[0, second],
    )


def sign_flip(differences: Array) -> float | None:
    """Return the exact two-sided p of a sum of paired differences under all flips of their signs.

    Without an effect a difference is as likely to have the one sign as the other (Fisher 1935). None where the smallest
    possible p, 2 / 2**n, is above 0.05, and for more than 20 differences.
    """
    if 2 / 2 ** len(differences) > ALPHA or len(differences) > _MOST_FLIPPED:
        return None
    sums = differences[:1]  # a pattern and its opposite count alike: the first sign stays
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    slack = 1e-12 * float(np.sum(np.abs(differences)))
    return float(np.mean(np.abs(sums) >= abs(float(np.sum(differences))) - slack))
