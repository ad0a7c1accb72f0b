"""The tests of a table: every cell against the baseline, and which cell may be called best, column by column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.baselines import cell_names
from experiments.columns import MUTUAL_INFORMATION, Column, Direction, run_value
from experiments.comparability import is_comparable, is_saturated
from experiments.results import CellResult, StudyResults

if TYPE_CHECKING:
    from experiments.comparison import Comparison, Family

MOST_CELLS = 200  # of a study that is tested: what a sampler has searched is no ablation


@dataclass(frozen=True)
class Contrasts:
    """What the tests say.

    Attributes:
        names: number of trial -> name of its cell, by which the families know it.
        families: key of a column -> all its comparisons with the baseline.
        best: key of a column -> names of the cells that are marked best: those that none is shown to beat, neither
            among all pairs nor against the baseline, where they are at most half of all (more of them say nothing).
    """

    names: Mapping[int, str]
    families: "Mapping[str, Family]" = field(default_factory=dict)
    best: Mapping[str, set[str]] = field(default_factory=dict)

    def comparison(self, cell: CellResult, key: str) -> "Comparison | None":
        """Return a cell's comparison with the baseline; None where there is none."""
        family = self.families.get(key)
        return family.by_cell.get(self.names[cell.trial]) if family else None

    def is_best(self, cell: CellResult, key: str) -> bool:
        """Return whether the cell may be marked best in a column."""
        return self.names[cell.trial] in self.best.get(key, ())


def contrasts(results: StudyResults, columns: Sequence[Column], baseline: CellResult | None) -> Contrasts:
    """Compare the cells of a study in every column in which they may be compared."""
    names = cell_names(results)
    tested = [column for column in columns if column.is_tested and is_comparable(results, column.key)]
    if len(results.measured) < 2 or len(results.cells) > MOST_CELLS:
        return Contrasts(names)
    from experiments.comparison import best_cells, compare_cells

    families, best = {}, {}
    for column in tested:
        values = _by_seed(results, names, column.key)
        if baseline is not None and len(values) > 1 and names[baseline.trial] in values:
            families[column.key] = compare_cells(values, names[baseline.trial])
        if column.direction is not None and len(values) > 1:
            found = best_cells(values, column.direction == "higher")
            if baseline is not None and column.key in families:
                found -= _beaten(families[column.key], names[baseline.trial], column.direction)
            best[column.key] = found if 2 * len(found) <= len(values) else set()
    return Contrasts(names, families, best)


def _beaten(family: "Family", baseline: str, direction: Direction) -> set[str]:
    """Return the cells that a comparison with the baseline shows to be worse, the baseline itself among them.

    The marks rest on all pairs, which need larger differences than comparisons with one cell do.
    """
    sign = 1 if direction == "higher" else -1
    holding = {name: sign * comparison.difference for name, comparison in family.by_cell.items() if comparison.holds}
    worse = {name for name, gain in holding.items() if gain < 0}
    return worse | ({baseline} if any(gain > 0 for gain in holding.values()) else set())


def _by_seed(results: StudyResults, names: Mapping[int, str], key: str) -> dict[str, dict[int, float]]:
    """Return name of a cell -> seed -> value; without the cells of which nothing can be compared."""
    found = {}
    for cell in results.measured:
        if key == MUTUAL_INFORMATION and is_saturated(results, cell):
            continue  # a difference of what can be measured, not of what there is
        values = {run.seed: value for run in cell.done if (value := run_value(run, key)) is not None}
        if values:
            found[names[cell.trial]] = values
    return found
