"""A table of words that is drawn on a terminal and written as Markdown alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

BETTER, WORSE = "green", "red"


@dataclass(frozen=True)
class Word:
    """A cell's text and, on a terminal, its colour."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Grid:
    """Rows of words under a head; the first columns hold names, the others numbers.

    Attributes:
        title: what stands above.
        head: titles of the columns.
        rows: as many words each as the head has.
        note: a sentence below.
        names: number of columns that hold names, and are aligned to the left.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Word, ...], ...]
    note: str = ""
    names: int = 1

    def to_console(self) -> "Group":
        """Return title, table and note as rich draws them; long words are folded, never cut."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
        for position, name in enumerate(self.head):
            is_name = position < self.names  # which may be long; a number is never broken where there is room
            table.add_column(Text(name), justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
        for row in self.rows:
            table.add_row(*(Text(word.text, style=word.style) for word in row))
        note = [Text(f"{self.note}\n", style="dim")] if self.note else []
        return Group(Text(self.title, style="bold"), table, *note)

    def to_markdown(self) -> str:
        """Return title, table and note as Markdown."""
        rules = ["---" if position < self.names else "---:" for position in range(len(self.head))]
        lines = [self.head, rules, *([word.text for word in row] for row in self.rows)]
        table = "\n".join(f"| {' | '.join(_escaped(text) for text in line)} |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.note) if part) + "\n"


def words(*texts: str) -> tuple[Word, ...]:
    """Return a row of words without colours."""
    return tuple(Word(text) for text in texts)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
