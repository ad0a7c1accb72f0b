"""Cells of one column of an ablation table compared with a baseline, and which of them may be marked best.

The model is randomised blocks, value = cell + seed + residual: every cell sees the same seeds, so what a seed adds
cancels in differences on common seeds. A pooled residual variance with Dunnett's test has the power that five seeds
need (2.5 standard deviations, 7 cells: 0.87 against 0.39 of paired t tests with Holm's correction), but a cell that
scatters more than the others, and above all a baseline that does, is then found different far too often: with ten times
the variance of the others, the false-positive rate of a 12-cell table is 0.27 instead of 0.05. Testing for unequal
variances first (Levene) and falling back to one Welch test per pair does not mend it: with three to five seeds the
first test sees too little. And one wild cell makes the pooled variance so large that it hides what the others show.
So two things are done. A cell that scatters far more than the others together leaves the pool, one after the other, and
is compared by its own differences (then comparisons share less, and are taken as uncorrelated). Of the rest, each of
the two variances in a difference is at least the pooled one, and is moved towards the cell's own where that is larger.
Degrees of freedom are Satterthwaite's, p values and simultaneous intervals Dunnett's.
benchmarks/simulate_statistics.py compares these procedures; BENCHMARKS.md has the figures. Two cells, or two seeds,
leave nothing to share: there it is the paired t test, Bonferroni-corrected.

Cells that lack seeds are compared on the seeds they share with the baseline; variances come from the least-squares fit
of all that is there. Missing seeds lower the correlation between comparisons; the lowest one is used for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, lgamma, log

import numpy as np

from experiments.block_model import BASELINE, BASELINE_FEW, PAIRS, PAIRS_FEW, BlockFit
from experiments.many_comparisons import dunnett_critical, dunnett_p, tukey_p
from experiments.pair_tests import ALPHA, LEAST_SEEDS, Array, Column, Indices, PairTests, pair_tests, sign_flip


@dataclass(frozen=True)
class Comparison:
    """A cell against the baseline on one metric, over their common seeds.

    Attributes:
        difference: mean of the cell less mean of the baseline, in the metric's unit.
        low: lower end of the 95% interval of the difference, simultaneous over the family: it excludes 0 exactly where
            `holds`. None where the difference is not tested.
        high: its upper end.
        effect: difference over the residual standard deviation of one run, times the small-sample correction of Hedges
            1981 (J. Educ. Stat. 6, 107-128). That of the cells of like spread; where one of the two scatters far more,
            the root of half the variance of their differences. None without spread, or with fewer than two degrees of
            freedom.
        p: corrected for all comparisons of the family; None with fewer than two common seeds (three, where other
            cells have as many) or without spread.
        sign_flip_p: exact p of the paired differences under all flips of their signs, for this pair alone (not
            corrected for the family). None where it could never be 0.05 or less (under 6 seeds), and beyond 20 seeds.
        n: common seeds.
    """

    difference: float
    low: float | None
    high: float | None
    effect: float | None
    p: float | None
    sign_flip_p: float | None
    n: int

    @property
    def holds(self) -> bool:
        """Whether the difference is significant at 0.05, corrected for all comparisons of the family."""
        return self.p is not None and self.p <= ALPHA


@dataclass(frozen=True)
class Family:
    """All comparisons of one column with the baseline.

    Attributes:
        by_cell: every cell but the baseline that shares a seed with it.
        method: one phrase for the caption.
        notes: what a reader has to know beside it: missing seeds, cells of unequal spread, tests that cannot be made.
    """

    by_cell: Mapping[str, Comparison]
    method: str
    notes: tuple[str, ...]


def compare_cells(values: Mapping[str, Mapping[int, float]], baseline: str) -> Family:
    """Compare every cell with the baseline.

    Args:
        values: cell -> seed -> value; a value that is not finite counts as missing, and a note says so.
        baseline: one of the cells.

    Raises:
        ValueError: the baseline is none of the cells.
    """
    from experiments.comparison_notes import left_out, method, notes

    column = Column.of(values)
    others = [cell for cell in values if cell != baseline]
    second = np.array([column.cells.index(cell) for cell in others], dtype=int)
    first = np.full_like(second, column.cells.index(baseline))
    fit = column.fit()
    tests = pair_tests(column, fit, first, second, BASELINE_FEW, BASELINE)
    p, reach = _against_one(column, fit, tests, first, second)
    effects = _effects(fit, tests, np.maximum(column.no_spread[first], column.no_spread[second]))
    by_cell = {
        cell: _comparison(tests, k, p[k], reach[k], effects[k], column.differences(first[k], second[k]))
        for k, cell in enumerate(others)
        if tests.seeds[k]
    }
    return Family(by_cell, method(tests), (*left_out(values), *notes(column, baseline, by_cell, fit)))


def best_cells(values: Mapping[str, Mapping[int, float]], higher_is_better: bool) -> set[str]:
    """Return the cells that may be marked best: those that no other cell beats, if any cell is beaten at all.

    A subset selection as in Hsu 1984 (Annals of Statistics 12, 1136-1144), but at Tukey's level for all pairs (standard
    errors and degrees of freedom of each pair: Games & Howell 1976) instead of Dunnett's: then not only is the truly
    best cell among the marked ones with probability 0.95, also a column whose cells are all equal has no mark with
    probability 0.95. Empty where no difference holds. A cell of one or two seeds beside cells of more is never marked,
    since it cannot be told from any; where its mean is the best of all, nothing is: a mark would point away from it.
    """
    column = Column.of(values)
    first, second = np.triu_indices(len(column.cells), 1)
    if not len(first):
        return set()
    tests = pair_tests(column, column.fit(), first, second, PAIRS_FEW, PAIRS)
    beaten = _beaten(tests, first, second, len(column.cells), higher_is_better)
    seeds = column.present.sum(axis=1)
    enough = seeds >= min(LEAST_SEEDS, int(seeds.max()))
    totals = np.nansum(column.values, axis=1) * (1 if higher_is_better else -1)
    means = np.divide(totals, seeds, out=np.full(len(seeds), -np.inf), where=seeds > 0)
    if not enough[int(np.argmax(means))]:
        return set()
    return {cell for k, cell in enumerate(column.cells) if beaten and k not in beaten and enough[k]}


def _beaten(tests: PairTests, first: Indices, second: Indices, cells: int, higher_is_better: bool) -> set[int]:
    """Return the cells of which some pair of all pairs shows that they are worse."""
    second_is_better = (tests.difference > 0) == higher_is_better
    loser = np.where(second_is_better, first, second)
    t = np.where(tests.tested, tests.t, 0.0)
    order = np.lexsort((_bonferroni(t, tests.df, 1), loser))
    _, start = np.unique(loser[order], return_index=True)
    clearest = order[start]  # a cell's clearest defeat: the only one of which the costly p is needed
    t, df = t[clearest], tests.df[clearest]
    p = np.where(tests.blocked[clearest], tukey_p(t, cells, df), _bonferroni(t, df, len(first)))
    return set(loser[clearest][p <= ALPHA].tolist())


def _against_one(
    column: Column, fit: BlockFit, tests: PairTests, first: Indices, second: Indices
) -> tuple[Array, Array]:
    """Return corrected p values and half-widths of the intervals, both (P,), NaN where not tested."""
    from scipy.special import stdtrit

    family = max(int(np.sum(tests.seeds >= 2)), 1)  # also what has too few seeds to be tested: it was chosen alike
    correlation = _correlation(column, fit, tests, first, second)
    t = np.where(tests.tested, tests.t, 0.0)
    p = np.where(tests.blocked, dunnett_p(t, family, tests.df, correlation), _bonferroni(t, tests.df, family))
    critical = np.where(
        tests.blocked,
        dunnett_critical(family, tests.df, correlation),
        stdtrit(tests.df, 1 - ALPHA / (2 * family)),
    )
    return np.where(tests.tested, p, np.nan), np.asarray(critical * tests.error)


def _bonferroni(t: Array, df: Array, family: int) -> Array:
    from scipy.special import stdtr

    return np.asarray(np.minimum(2 * stdtr(df, -np.abs(t)) * family, 1.0))


def _correlation(column: Column, fit: BlockFit, tests: PairTests, first: Indices, second: Indices) -> float:
    """Return the lowest correlation between two of the block model's differences.

    For equal variances it is half the share of seeds that the two differences have in common; the larger it is, the
    fewer independent chances of a false positive there are, so the lowest is the safe one. The difference of a cell
    that scatters far more is mostly its own: 0.
    """
    if np.any(tests.blocked & ~fit.like[0, second]):
        return 0.0
    both = column.present[first] & column.present[second]  # (P, S)
    chosen = both[tests.blocked].astype(float)
    if not len(chosen):
        return 0.5
    seeds = chosen.sum(axis=1)
    shared = chosen @ chosen.T / np.sqrt(np.outer(seeds, seeds))
    return float(np.floor(50 * np.min(shared) + 1e-9) / 100)


def _effects(fit: BlockFit, tests: PairTests, no_spread: Array) -> list[float | None]:
    """Return the standardised difference of each pair, for which a tested pair's variance may be its own."""
    of_pair = tests.blocked & ~tests.alike
    sd = np.sqrt(np.where(of_pair, tests.error**2 * tests.seeds / 2, fit.pooled[0]))
    df = np.where(of_pair, tests.df, fit.df[0])
    found = zip(tests.difference.tolist(), sd.tolist(), df.tolist(), (sd > no_spread).tolist(), strict=True)
    return [difference / spread * _hedges(n) if n > 1 and varies else None for difference, spread, n, varies in found]


def _comparison(
    tests: PairTests, k: int, p: float, reach: float, effect: float | None, differences: Array
) -> Comparison:
    difference = float(tests.difference[k])
    tested = bool(tests.tested[k])
    return Comparison(
        difference=difference,
        low=difference - float(reach) if tested else None,
        high=difference + float(reach) if tested else None,
        effect=effect,
        p=float(p) if tested else None,
        sign_flip_p=sign_flip(differences) if tested else None,
        n=int(tests.seeds[k]),
    )


def _hedges(df: float) -> float:
    """Return Hedges' factor, which makes a standardised difference with `df` > 1 degrees of freedom unbiased."""
    return exp(lgamma(df / 2) - lgamma((df - 1) / 2) - log(df / 2) / 2)
