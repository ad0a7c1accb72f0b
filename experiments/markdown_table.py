"""A study's table as Markdown: the answer, the table, matrices, differences to the baseline, and the notes."""

import re
from collections.abc import Iterable, Sequence

from experiments.ablation import Ablation
from experiments.columns import Column
from experiments.comparability import is_comparable
from experiments.entries import Entry, EqualEpochs, Matrix, TableRow
from experiments.results import StudyResults
from experiments.wording import difference_text, effect_text, p_text

_LAST_COLUMNS = ("verdict", "n")
_SIGNS = re.compile(
    r"[|`]"
    r"|\\(?=[!-/:-@\[-`{-~])"  # before a sign it would take that sign's meaning
    r"|\*(?!\s|$)|(?<!\s)(?<!^)\*"  # not where it stands alone, as between factors
    r"|(?<![^\W_])_|_(?![^\W_])"  # not inside a word
    r"|~(?=~)|(?<=~)~"
    r"|<(?=[A-Za-z/!?])"
    r"|&(?=#?\w+;)"
    r"|\[(?=[^\]]*\][(\[:])"  # of a link
    r"|!(?=\[)"
)
_START = re.compile(r"^(?:#{1,6}(?=\s|$)|[-+>](?=\s|$)|=+$|-+$)")


def to_markdown(table: Ablation, *, with_costs: bool = True) -> str:
    """Return the table as Markdown.

    Args:
        table: the study's.
        with_costs: whether to show what differs between equal studies: times and GPU-hours.
    """
    shown = [column for column in table.columns if with_costs or not column.is_cost]
    parts = [
        f"# {escaped(table.results.name)}",
        escaped(table.results.question),
        _main(table, shown),
        *map(escaped, table.answers),
        *(_matrix(matrix) for matrix in table.matrices),
        _differences(table),
        *_at_equal_epochs(table.equal_epochs),
    ]
    notes = [*table.caption, *table.methods, *(table.costs if with_costs else ())]
    parts.append("\n".join(f"- {escaped(note)}" for note in notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def head(column: Column, results: StudyResults) -> str:
    """Return a column's head; without an arrow, and with a warning, where cells may not be ranked by it."""
    if column.direction is not None and not is_comparable(results, column.key) and results.one_data_set:
        return f"{column.title} (not comparable)"
    return column.head


def named(row: TableRow) -> str:
    """Return the row's name with its marks, `loss.beta=1.0 (baseline, 1 failed)`."""
    return f"{row.name} ({', '.join(row.notes)})" if row.notes else row.name


def holds(entry: Entry) -> bool:
    """Return whether the entry differs from the baseline's, which an asterisk says."""
    return entry.comparison is not None and entry.comparison.holds


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, also in a table's cell; only what would look different is escaped."""
    return _START.sub(r"\\\g<0>", _SIGNS.sub(r"\\\g<0>", text.replace("\n", " ")))


def _main(table: Ablation, shown: Sequence[Column]) -> str:
    heads = ["cell", *[head(column, table.results) for column in shown], *_LAST_COLUMNS]
    lines = [_line(heads), _line(["---", *["---:"] * len(shown), "---", "---:"])]
    for row in table.rows:
        numbers = [_number(row.entries[column.key]) for column in shown]
        lines.append(_line([escaped(named(row)), *numbers, row.verdict, row.seeds]))
    return "\n".join(lines)


def _number(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.best else entry.text
    return f"{text} *" if holds(entry) else text


def _matrix(matrix: Matrix) -> str:
    heads = [f"{matrix.column.head}: {matrix.row_axis} \\ {matrix.column_axis}", *matrix.column_values]
    lines = [_line(escaped(text) for text in heads), _line(["---", *["---:"] * len(matrix.column_values)])]
    for value, entries in zip(matrix.row_values, matrix.entries, strict=True):
        lines.append(_line([escaped(value), *("" if entry is None else _number(entry) for entry in entries)]))
    return "\n".join(lines)


def _differences(table: Ablation) -> str:
    """Return the table of differences to the baseline; empty where nothing is compared."""
    if not table.compared or table.baseline is None:
        return ""
    heads = ["difference to the baseline", *[column.head for column in table.compared]]
    lines = [_line(heads), _line(["---", *["---:"] * len(table.compared)])]
    for row in table.cells:
        if row.cell is not table.baseline:
            texts = [_difference(row.entries[column.key], column) for column in table.compared]
            lines.append(_line([escaped(row.name), *texts]))
    return "\n".join(lines)


def _difference(entry: Entry, column: Column) -> str:
    comparison = entry.comparison
    if comparison is None:
        return "–"
    text = difference_text(comparison, column)
    words = [f"**{text}**" if comparison.holds else text, effect_text(comparison.effect), p_text(comparison.p)]
    return ", ".join(word for word in words if word)


def _at_equal_epochs(found: EqualEpochs | None) -> list[str]:
    if found is None:
        return []
    lines = [_line([f"at epoch {found.epoch}", *[column.head for column in found.columns], "n"])]
    lines.append(_line(["---", *["---:"] * (len(found.columns) + 1)]))
    for row in found.rows:
        numbers = [row.entries[column.key].text for column in found.columns]
        lines.append(_line([escaped(row.name), *numbers, row.seeds]))
    return [" ".join(found.notes), "\n".join(lines)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
