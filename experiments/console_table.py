"""A table of means with intervals that fits a terminal: the interval stands below its mean."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


class ConsoleNumber(NamedTuple):
    """A number's lines, the mean above its half-width, and whether it is the best of its column."""

    lines: tuple[str, ...]
    is_best: bool = False


ConsoleRow = tuple[str, list[ConsoleNumber], str, str]  # name, numbers, verdict, n

_UNBOUNDED = 10_000  # columns of a terminal


class ConsoleTable:
    """Draws itself whole where the terminal is wide enough, else as tables of half the columns, or of fewer.

    Args:
        title: what stands above.
        columns: titles of the columns of numbers.
        groups: rows; a line is drawn between groups.
    """

    def __init__(self, title: str, columns: Sequence[str], groups: Sequence[Sequence[ConsoleRow]]) -> None:
        self._title = title
        self._columns = columns
        self._groups = groups

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=_UNBOUNDED)  # rich cuts what it measures at the width it is given
        for parts in range(1, len(self._columns) + 1):
            tables = self._tables(parts)
            widths = [Measurement.get(console, unbounded, table).minimum for table in tables]
            if max(widths) <= options.max_width or parts == len(self._columns):
                yield from tables
                return

    def _tables(self, parts: int) -> list[Table]:
        """Return the table cut into `parts` of about as many columns each."""
        size = -(-len(self._columns) // parts)
        starts = range(0, len(self._columns), size)
        return [
            self._table(None if start else self._title, range(start, min(start + size, len(self._columns))))
            for start in starts
        ]

    def _table(self, title: str | None, shown: Sequence[int]) -> Table:
        table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, collapse_padding=True)
        rows = [row for group in self._groups for row in group]
        table.add_column("cell", min_width=_longest_word(row[0] for row in rows))
        widths = {}
        for column in shown:
            head = _narrow(self._columns[column]).splitlines()
            lines = [*head, *(line for row in rows for line in row[1][column].lines)]
            widths[column] = max(map(len, lines))
            table.add_column(_aligned(head, widths[column]), no_wrap=True, min_width=widths[column])
        table.add_column("verdict", min_width=_longest_word(["verdict", *(row[2] for row in rows)]))
        table.add_column("n", justify="right", no_wrap=True, min_width=max([1, *(len(row[3]) for row in rows)]))
        for group in self._groups:
            for row in group:
                numbers = [_drawn(row[1][column], widths[column]) for column in shown]
                table.add_row(Text(row[0]), *numbers, Text(row[2]), Text(row[3]))
            table.add_section()
        return table


def _drawn(number: ConsoleNumber, width: int) -> Text:
    return _aligned(number.lines, width, "bold" if number.is_best else "")


def _aligned(lines: Iterable[str], width: int, style: str = "") -> Text:
    """Return lines set to the right by hand: rich would cut off a space that stands for an asterisk."""
    return Text("\n".join(line.rjust(width) for line in lines), style=style)


def _longest_word(texts: Iterable[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _narrow(title: str) -> str:
    """Break a column's title so that it is hardly wider than its numbers."""
    for words, broken in (("reconstruction", "recon."), (" (not ", "\n(not\n"), ("(AU) ", "(AU)\n")):
        title = title.replace(words, broken)
    return title
