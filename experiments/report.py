"""The ablation table of a study, written from its folder alone: for the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.answers import answers, comparable
from experiments.caption import caption
from experiments.references import References, references
from experiments.results import STATES, StudyResults, collect
from experiments.table import ELBO, RECONSTRUCTION, Column, Row, cell_rows, columns, reference_rows
from tracking.run_directory import StudyDirectory

if TYPE_CHECKING:
    from rich.console import RenderableType

_LAST_COLUMNS = ("verdict", "n")


def build(study: StudyDirectory) -> "Report":
    """Read a study, finished or not, and measure its reference rows where that was not done before.

    Raises:
        UserError: the study's sweep.yaml cannot be read.
    """
    results = collect(study)
    return Report(results, references(study, results))


@dataclass(frozen=True)
class Report:
    """A study's table; every form of it shows the same rows."""

    results: StudyResults
    references: References

    def to_markdown(self) -> str:
        """Return the table, the answer and the caption as Markdown."""
        shown = self._columns
        head = ["cell", *[self._title(column) for column in shown], *_LAST_COLUMNS]
        rules = ["---", *["---:"] * len(shown), "---", "---:"]
        lines = [_line(head), _line(rules)]
        for row in [*self._cells, *self._references]:
            numbers = [_with_interval(*row.number(column)) for column in shown]
            lines.append(_line([_escaped(_name(row)), *numbers, row.verdict, row.seeds]))
        paragraphs = [
            f"# {self.results.name}",
            self.results.question,
            "\n".join(lines),
            *answers(self.results),
        ]
        notes = [f"- {_escaped(note)}" for note in caption(self.results, self.references)]
        return "\n\n".join([*paragraphs, "\n".join(notes)]) + "\n"

    def to_console(self) -> "RenderableType":
        """Return the table for a terminal, in two halves where it is too narrow (under about 100 columns)."""
        from rich.console import Group
        from rich.text import Text

        from experiments.console_table import ConsoleTable

        titles = [self._title(column) for column in self._columns]
        groups = [
            [(_name(row), [row.number(column) for column in self._columns], row.verdict, row.seeds) for row in rows]
            for rows in (self._cells, self._references)
        ]
        notes = [Text(note, style="dim") for note in caption(self.results, self.references)]
        sentences = [Text(sentence) for sentence in answers(self.results)]
        return Group(ConsoleTable(self.results.question, titles, groups), *sentences, *notes)

    def to_csv(self) -> str:
        """Return one row per cell and reference: counts of runs; mean, half-width and n of every metric."""
        rows = [*self._cells, *self._references]
        keys = list(dict.fromkeys(key for row in rows for key in row.estimates))
        axes = list(self.results.space)
        head = ["kind", "name", "trial", *axes, "baseline", *STATES, "verdicts"]
        head += [f"{key} {part}" for key in keys for part in ("mean", "half_width", "n")]
        return _csv([head, *(_csv_row(row, axes, keys) for row in rows)])

    def runs_csv(self) -> str:
        """Return one row per run, finished or not, with full precision."""
        keys = list(dict.fromkeys(key for run in self.results.runs for key in run.metrics))
        axes = list(self.results.space)
        facts = ("state", "verdict", "best_epoch", "epochs", "parameters", "seconds", "lpips", "failure")
        lines: list[list[Any]] = [["trial", "cell", *axes, "seed", "run", *facts, *keys]]
        for cell in self.results.cells:
            place = [cell.trial, cell.cell, *[cell.params.get(axis) for axis in axes]]
            for run in cell.runs:
                known = [getattr(run, fact) for fact in facts]
                lines.append([*place, run.seed, run.run, *known, *[run.metrics.get(key) for key in keys]])
        return _csv(lines)

    @property
    def _columns(self) -> list[Column]:
        return columns(self.results)

    @property
    def _cells(self) -> list[Row]:
        return cell_rows(self.results, self.references)

    @property
    def _references(self) -> list[Row]:
        return reference_rows(self.references)

    def _title(self, column: Column) -> str:
        if column.key in (ELBO, RECONSTRUCTION) and not comparable(self.results):
            return f"{column.title[:-2]} (not comparable)"
        return column.title


def _name(row: Row) -> str:
    if row.cell is None:
        return row.name
    marks = {"baseline": row.cell.is_baseline, "no longer in the sweep": row.cell.vanished}
    words = ", ".join(mark for mark, holds in marks.items() if holds)
    return f"{row.name} ({words})" if words else row.name


def _with_interval(mean: str, half_width: str | None) -> str:
    return mean if half_width is None else f"{mean} ± {half_width}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _csv_row(row: Row, axes: Sequence[str], keys: Sequence[str]) -> list[Any]:
    cell = row.cell
    values: list[Any] = ["reference" if cell is None else "cell", row.name]
    if cell is None:
        values += [None] * (len(axes) + len(STATES) + 3)
    else:
        counts = [sum(run.state == state for run in cell.runs) for state in STATES]
        values += [cell.trial, *[cell.params.get(axis) for axis in axes], cell.is_baseline, *counts]
        values.append(" ".join(f"{name}:{count}" for name, count in cell.verdicts.items()))
    for key in keys:
        found = row.estimates.get(key)
        values += [None] * 3 if found is None else [found.mean, found.half_width, found.n]
    return values


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
