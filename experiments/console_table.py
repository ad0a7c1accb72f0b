"""A table of means with intervals that fits a terminal: the interval stands below its mean."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

ConsoleRow = tuple[str, list[tuple[str, str | None]], str, str]  # name, (mean, half-width) each, verdict, n

_UNBOUNDED = 10_000  # columns of a terminal


class ConsoleTable:
    """Draws itself whole where the terminal is wide enough, else as two tables of half the columns.

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
        whole = self._table(self._title, range(len(self._columns)))
        unbounded = options.update(max_width=_UNBOUNDED)  # rich cuts what it measures at the width it is given
        if Measurement.get(console, unbounded, whole).minimum <= options.max_width:
            yield whole
            return
        half = (len(self._columns) + 1) // 2
        yield self._table(self._title, range(half))
        yield self._table(None, range(half, len(self._columns)))

    def _table(self, title: str | None, shown: Sequence[int]) -> Table:
        table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, collapse_padding=True)
        rows = [row for group in self._groups for row in group]
        table.add_column("cell", min_width=_longest_word(row[0] for row in rows))
        for column in shown:
            title = _narrow(self._columns[column])
            width = max(
                len(line) for line in [*title.splitlines(), *(part for row in rows for part in _stacked(row, column))]
            )
            table.add_column(Text(title), justify="right", no_wrap=True, min_width=width)
        table.add_column("verdict", min_width=_longest_word(["verdict", *(row[2] for row in rows)]))
        table.add_column("n", justify="right", no_wrap=True, min_width=max([1, *(len(row[3]) for row in rows)]))
        for group in self._groups:
            for row in group:
                numbers = ["\n".join(_stacked(row, column)) for column in shown]
                table.add_row(*(Text(text) for text in (row[0], *numbers, row[2], row[3])))
            table.add_section()
        return table


def _stacked(row: ConsoleRow, column: int) -> list[str]:
    """Return the lines of one number: the mean and, where it has one, its half-width."""
    mean, half_width = row[1][column]
    return [mean] if half_width is None else [mean, f"±{half_width}"]


def _longest_word(texts: Iterable[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _narrow(title: str) -> str:
    """Break a column's title so that it is hardly wider than its numbers."""
    for words, broken in (("reconstruction", "recon."), (" (not ", "\n(not\n"), ("(AU) ", "(AU)\n")):
        title = title.replace(words, broken)
    return title
