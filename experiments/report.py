"""The report on one or more studies, written from their folders alone, in every form it has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.ablation import Ablation, ablation
from experiments.columns import Column
from experiments.comparability import is_comparable
from experiments.contrasts import MOST_CELLS
from experiments.csv_table import cells_csv, runs_csv
from experiments.entries import Entry, TableRow
from experiments.json_table import to_json
from experiments.latex_table import to_latex
from experiments.markdown_table import head, holds, named, to_markdown
from tracking.run_directory import StudyDirectory

if TYPE_CHECKING:
    from rich.console import RenderableType

    from experiments.console_table import ConsoleNumber, ConsoleRow

_MOST_SHOWN = 50  # rows of a search on a terminal


def build(
    studies: StudyDirectory | Iterable[StudyDirectory],
    *,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
) -> "Report":
    """Read one or more studies, finished or not; measures their reference rows where that was not done before.

    Raises:
        UserError: a study's sweep.yaml cannot be read; no such metric or baseline.
    """
    several = [studies] if isinstance(studies, StudyDirectory) else studies
    return Report(tuple(ablation(study, metrics=metrics, baseline=baseline) for study in several))


@dataclass(frozen=True)
class Report:
    """One table per study; every form shows the same rows."""

    tables: tuple[Ablation, ...]

    def to_markdown(self, *, with_costs: bool = True) -> str:
        """Return tables, answers and notes as Markdown, without costs the same for equal studies."""
        return "\n".join(to_markdown(table, with_costs=with_costs) for table in self.tables)

    def to_latex(self) -> str:
        """Return the tables for a LaTeX document."""
        return to_latex(self.tables)

    def to_html(self) -> str:
        """Return one self-contained page."""
        from experiments.page import render_page

        return render_page(self.tables)

    def to_csv(self) -> str:
        """Return one row per cell and reference at full precision."""
        return cells_csv(self.tables)

    def runs_csv(self) -> str:
        """Return one row per run, finished or not, at full precision."""
        return runs_csv(self.tables)

    def to_json(self) -> str:
        """Return everything at full precision, see docs/report.md."""
        return to_json(self.tables)

    def to_console(self) -> "RenderableType":
        """Return the tables for a terminal; where it is too narrow, each in parts below one another."""
        from rich.console import Group

        return Group(*(part for table in self.tables for part in _console_parts(table)))


def _console_parts(table: Ablation) -> "list[RenderableType]":
    from rich.text import Text

    from experiments.console_table import ConsoleTable

    cells, remark = _shown_cells(table)
    titles = [head(column, table.results) for column in table.columns]
    starred = {key for row in cells for key, entry in row.entries.items() if holds(entry)}
    groups = [[_console_row(row, table.columns, starred) for row in rows] for rows in (cells, table.reference_rows)]
    notes = [remark, _only_elsewhere(table), *table.caption, *table.methods, *table.costs]
    return [
        ConsoleTable(table.results.question, titles, groups),
        *(Text(sentence) for sentence in table.answers),
        *(Text(note, style="dim") for note in notes if note),
    ]


def _only_elsewhere(table: Ablation) -> str:
    """Return which parts of the report a terminal is too narrow for."""
    parts = {
        "differences to the baseline with intervals, effect sizes and p": bool(table.compared),
        "two axes as matrices": bool(table.matrices),
        "the comparison at equal epochs": table.equal_epochs is not None,
    }
    missing = [part for part, is_there in parts.items() if is_there]
    return f"Only in the other forms (--open, --format md, -o DIR): {'; '.join(missing)}." if missing else ""


def _shown_cells(table: Ablation) -> tuple[list[TableRow], str]:
    """Return the cells that a terminal shows: all of an ablation, the best of a search, and what is left out."""
    cells = table.cells
    if len(cells) <= MOST_CELLS:
        return cells, ""
    ranking = (column for column in table.columns if column.direction and is_comparable(table.results, column.key))
    column = next(ranking, None)
    if column is None:
        shown = cells[:_MOST_SHOWN]
        return shown, f"The first {len(shown)} cells, of {len(cells)}: no column ranks them; --format csv has them all."
    sign = -1 if column.direction == "higher" else 1
    measured = [(sign * entry.mean, row) for row in cells if (entry := row.entries[column.key]).mean is not None]
    ranked = [row for _, row in sorted(measured, key=lambda pair: pair[0])][:_MOST_SHOWN]
    return ranked, f"The {len(ranked)} cells best in {column.title}, of {len(cells)}; --format csv has them all."


def _console_row(row: TableRow, columns: Sequence[Column], starred: set[str]) -> "ConsoleRow":
    numbers = [_console_number(row.entries[column.key], column.key in starred) for column in columns]
    return named(row), numbers, row.verdict, row.seeds


def _console_number(entry: Entry, among_stars: bool) -> "ConsoleNumber":
    """Return the lines of a number; beside others with an asterisk, one without keeps the asterisk's place free."""
    from experiments.console_table import ConsoleNumber

    mean, sign, half_width = entry.text.partition(" ± ")
    lines: tuple[str, ...] = (mean, f"±{half_width}") if sign else (mean,)
    if among_stars:
        ends = ("*" if holds(entry) else " ", " ")
        lines = tuple(f"{line}{end}" for line, end in zip(lines, ends, strict=False))
    return ConsoleNumber(lines, entry.best)
