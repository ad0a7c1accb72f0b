"""One study's ablation table as data: what every form of the report shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.answers import answers
from experiments.baselines import chosen_baseline
from experiments.caption import caption
from experiments.columns import Column, columns
from experiments.contrasts import contrasts
from experiments.entries import Entry, EqualEpochs, Matrix, TableRow
from experiments.equal_epochs import equal_epochs
from experiments.matrices import matrices
from experiments.methods import costs, methods
from experiments.references import References, references
from experiments.results import CellResult, StudyResults, collect
from experiments.table import cell_rows, reference_rows
from tracking.run_directory import StudyDirectory

__all__ = ["Ablation", "Entry", "EqualEpochs", "Matrix", "TableRow", "ablation", "tabulate"]


@dataclass(frozen=True)
class Ablation:
    """One study's table.

    Attributes:
        study: the folder it was read from.
        results: what the study has measured.
        references: the reference rows as measured.
        columns: of numbers, from left to right.
        rows: one per cell in the order of the ledger, then one per reference.
        baseline: the cell the others are compared with; None: no comparisons.
        answers: sentences made from the numbers; the first is the answer. Empty before the first finished run.
        caption: what a reader must know to read the table.
        methods: intervals, tests, corrections and what limits them.
        costs: what the runs took; differs between equal studies, as columns with `is_cost` do.
        matrices: of a study of two axes, one per metric that matters; else empty.
        equal_epochs: where ended runs differ in length; else None.
    """

    study: StudyDirectory
    results: StudyResults
    references: References
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    baseline: CellResult | None
    answers: tuple[str, ...]
    caption: tuple[str, ...]
    methods: tuple[str, ...]
    costs: tuple[str, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    equal_epochs: EqualEpochs | None = None

    @property
    def cells(self) -> list[TableRow]:
        """Return the rows of cells."""
        return [row for row in self.rows if row.cell is not None]

    @property
    def reference_rows(self) -> list[TableRow]:
        """Return the rows of references."""
        return [row for row in self.rows if row.cell is None]

    @cached_property
    def compared(self) -> list[Column]:
        """Return the columns in which cells are compared with the baseline."""
        return [column for column in self.columns if any(row.entries[column.key].comparison for row in self.rows)]


def ablation(study: StudyDirectory, *, metrics: Sequence[str] | None = None, baseline: str | None = None) -> Ablation:
    """Read a study, finished or not, and compare its cells; measures the reference rows where that was not done.

    Args:
        study: the study's folder.
        metrics: keys of the columns; default: the test metrics that matter.
        baseline: name of the cell to compare with; default: the sweep's own.

    Raises:
        UserError: sweep.yaml cannot be read; no such metric or cell.
    """
    results = collect(study)
    columns(results, metrics)  # a misspelt name is refused before anything is measured
    chosen_baseline(results, baseline)
    return tabulate(study, results, references(study, results), metrics=metrics, baseline=baseline)


def tabulate(
    study: StudyDirectory,
    results: StudyResults,
    found: References,
    *,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Ablation:
    """Return the table of what was read; see `ablation`."""
    shown = columns(results, metrics)
    compared_with = chosen_baseline(results, baseline)
    tests = contrasts(results, shown, compared_with)
    rows = cell_rows(results, found, shown, tests, compared_with)
    return Ablation(
        study=study,
        results=results,
        references=found,
        columns=shown,
        rows=(*rows, *reference_rows(found, shown)),
        baseline=compared_with,
        answers=tuple(answers(results, shown, tests, compared_with)),
        caption=tuple(caption(results, found, shown)),
        methods=tuple(methods(results, shown, tests, compared_with)),
        costs=tuple(costs(results)),
        matrices=matrices(results, shown, rows),
        equal_epochs=equal_epochs(study, results),
    )
