"""What a table says about how its cells were compared."""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from experiments.block_model import BlockDesign, BlockFit
from experiments.pair_tests import ALPHA, LEAST_SEEDS, Column, PairTests

if TYPE_CHECKING:
    from experiments.comparison import Comparison

_BLOCKS = "randomised blocks (cell + seed), Dunnett against the baseline, each variance at least the pooled one"
_OWN = "paired t on common seeds, corrected as Dunnett's test does it for comparisons that share nothing"
_PAIRED = "paired t on common seeds"


def method(tests: PairTests) -> str:
    """Return the caption's phrase for what was done."""
    if not np.any(tests.tested):
        return "not tested"
    if np.any(tests.tested & tests.blocked):
        return _BLOCKS if np.any(tests.tested & tests.blocked & tests.alike) else _OWN
    return _PAIRED if np.sum(tests.seeds >= 2) == 1 else f"{_PAIRED}, Bonferroni"


def notes(
    column: Column,
    baseline: str,
    by_cell: Mapping[str, "Comparison"],
    fit: BlockFit,
) -> tuple[str, ...]:
    """Return what a reader has to know beside the method."""
    return (
        *_missing(column, baseline, by_cell),
        *_untested(by_cell),
        *_noisy(column, fit),
        *_spread(column, fit),
        *_hidden(column, baseline, by_cell),
        *_flips(by_cell),
    )


def left_out(values: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Return a note for every cell with values that are not finite, which count as missing."""
    counts = {cell: sum(not isfinite(value) for value in own.values()) for cell, own in values.items()}
    return [f"{count} value(s) of {cell} are not finite and left out" for cell, count in counts.items() if count]


def _missing(column: Column, baseline: str, by_cell: Mapping[str, "Comparison"]) -> list[str]:
    seeds = dict(zip(column.cells, column.present.sum(axis=1).tolist(), strict=True))
    found = []
    for cell in column.cells:
        if cell == baseline:
            continue
        if cell not in by_cell:
            found.append(f"{cell} shares no seed with {baseline}: not compared")
        elif by_cell[cell].p is not None and by_cell[cell].n < max(seeds[cell], seeds[baseline]):
            found.append(f"{cell} is compared on the {by_cell[cell].n} seeds that it shares with {baseline}")
    return found


def _untested(by_cell: Mapping[str, "Comparison"]) -> list[str]:
    least = 3 if any(found.n >= 3 and found.p is not None for found in by_cell.values()) else 2
    few = [cell for cell, found in by_cell.items() if found.n < least]
    constant = [cell for cell, found in by_cell.items() if found.n >= least and found.p is None]
    found = []
    if few:
        found.append(
            f"not tested with {'one common seed' if least == 2 else 'one or two common seeds'}: {', '.join(few)}"
        )
    if constant:
        found.append(f"not tested, the same on every seed: {', '.join(constant)}")
    return found


def _noisy(column: Column, fit: BlockFit) -> list[str]:
    """Name the cells whose own spread was too large for the pooled one."""
    apart = (column.present.sum(axis=1) > 1) & ~fit.like[0]
    if not np.any(apart):
        return []
    names = [cell for cell, is_apart in zip(column.cells, apart.tolist(), strict=True) if is_apart]
    scatter = f"{names[0]} scatters" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} scatter"
    return [f"{scatter} over seeds far more than the other cells: compared by differences of their own (paired)"]


def _spread(column: Column, fit: BlockFit) -> list[str]:
    """Say where Levene's test (median-centred, Brown & Forsythe 1974) finds unequal spread among the others."""
    design = BlockDesign(column.present & fit.like[0, :, None])
    [residuals] = design.residuals(column.values[None])
    rows = zip(residuals, design.present, strict=True)
    groups = [group for row, there in rows if len(group := row[there]) > 2]
    if len(groups) < 3 or np.sqrt(fit.pooled[0]) <= np.max(column.no_spread, where=fit.like[0], initial=0.0):
        return []
    from scipy.stats import levene

    p = float(levene(*groups, center="median").pvalue)
    return [f"the spread over seeds differs between cells (Levene p = {p:.2g})"] if p <= ALPHA else []


def _hidden(column: Column, baseline: str, by_cell: Mapping[str, "Comparison"]) -> list[str]:
    """Name differences that the pooled spread hides: paired t tests with Bonferroni's correction would show them."""
    from scipy.special import stdtr

    tested = [cell for cell, found in by_cell.items() if found.p is not None]
    family = sum(found.n >= 2 for found in by_cell.values())
    found = []
    for cell in tested:
        first, second = column.cells.index(baseline), column.cells.index(cell)
        differences = column.differences(first, second)
        n, spread = len(differences), float(np.std(differences, ddof=1))
        if by_cell[cell].holds or n < LEAST_SEEDS or spread <= max(column.no_spread[[first, second]]):
            continue
        t = abs(float(np.mean(differences))) / spread * n**0.5
        p = min(1.0, 2 * float(stdtr(n - 1, -t)) * family)
        if p <= ALPHA:
            found.append(f"{cell} (p = {p:.2g})")
    if not found:
        return []
    hides = "the pooled spread hides differences that paired t tests alone would show, with Bonferroni's"
    both = "whoever counts these too errs in up to one of ten columns, not of twenty"
    return [f"{hides} correction: {', '.join(found)}; {both}"]


def _flips(by_cell: Mapping[str, "Comparison"]) -> list[str]:
    most = max((found.n for found in by_cell.values() if found.p is not None), default=0)
    if most < 2 or 2 / 2**most <= ALPHA:
        return []
    return [f"exact sign-flip tests cannot be significant with {most} seeds (smallest p {2 / 2**most:.4g})"]
