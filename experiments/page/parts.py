"""What the page is made of, apart from its look: figures, small tables, legends; and the cells that figures show."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from experiments.ablation import Ablation, TableRow
from experiments.naming import short_label
from experiments.page.svg import CATEGORICAL, MUTED, SEQUENTIAL, categorical, css_colour, sequential
from experiments.results import CellResult, StudyResults
from experiments.table import plain

MOST_SERIES = 12
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_CSS_DASHES = {"solid": "none", "dashed": "6 3", "dotted": "1.5 2.5", "dashdot": "7 2.5 1.5 2.5"}
_REFERENCE_DASHES = (
    (5.0, 2.0),
    (1.5, 1.5),
    (6.0, 1.5, 1.5, 1.5),
    (3.0, 3.0),
    (9.0, 2.0),
    (1.0, 3.0),
    (6.0, 5.0),
)  # points
_MARKERS = {  # of matplotlib, and the same as SVG paths in a box of 10 by 10
    "o": "M1 5a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "s": "M1 1h8v8h-8z",
    "^": "M5 1l4 8h-8z",
    "D": "M5 0l5 5l-5 5l-5-5z",
    "v": "M5 9l4-8h-8z",
    "P": "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z",
    "X": "M3 1l2 2l2-2l2 2l-2 2l2 2l-2 2l-2-2l-2 2l-2-2l2-2l-2-2z",
}


@dataclass(frozen=True)
class Panel:
    """One chart: inline SVG under a title."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Numbers:
    """A small table; the text alternative of charts."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class LegendItem:
    """A line's or a mark's look and what it stands for; `path`: of the mark in a box of 10 by 10, empty for a line."""

    label: str
    colour: str
    dash: str
    path: str = ""


@dataclass(frozen=True)
class FigureGroup:
    """Charts that belong together.

    Attributes:
        key: its anchor within the study, also the beginning of its charts' ids.
        title: its heading.
        lead: how to read it.
        panels: charts, side by side where there is room.
        legend: shared by the charts; empty where each cell is named in them.
        numbers: the same as numbers, on demand.
        is_wide: whether its only chart takes the whole width.
    """

    key: str
    title: str
    lead: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendItem, ...] = ()
    numbers: Numbers | None = None
    is_wide: bool = False

    @property
    def is_narrow(self) -> bool:
        """Return whether half the width of a laptop is enough for it."""
        return len(self.panels) == 1 and not self.is_wide


@dataclass(frozen=True)
class LeftOut:
    """A figure that does not apply to a study, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class Series:
    """A cell as charts show it: one colour, dash and marker wherever it appears."""

    cell: CellResult
    row: TableRow
    label: str
    colour: str
    dash: str
    marker: str

    @property
    def legend(self) -> LegendItem:
        """Return its line in a legend."""
        return LegendItem(self.label, css_colour(self.colour), _CSS_DASHES[self.dash])

    @property
    def marked_legend(self) -> LegendItem:
        """Return its mark in a legend."""
        return LegendItem(self.label, css_colour(self.colour), "none", _MARKERS[self.marker])


def all_series(ablation: Ablation) -> list[Series]:
    """Return every cell that has a finished run: colours in order of a numeric axis, else told apart."""
    rows = [row for row in ablation.rows if row.cell is not None and row.cell.done]
    axis = ablation.results.numeric_axis
    if axis is not None:
        rows.sort(key=lambda row: float(row.cell.params[axis]) if row.cell else 0.0)
    return _series(ablation.results, rows)


def shown_series(ablation: Ablation, most: int = MOST_SERIES) -> list[Series]:
    """Return at most `most` of them, evenly spaced, the baseline among them; their colours span the whole scale."""
    found = all_series(ablation)
    if len(found) <= most:
        return found
    places = {round(place) for place in np.linspace(0, len(found) - 1, most)}
    base = next((place for place, series in enumerate(found) if series.cell is ablation.baseline), None)
    if base is not None and base not in places:
        places.remove(min(places - {0, len(found) - 1}, key=lambda place: abs(place - base)))
        places.add(base)
    return _series(ablation.results, [found[place].row for place in sorted(places)])


def left_out_words(ablation: Ablation, shown: Sequence[Series]) -> str:
    """Return a sentence on the cells that a figure does not show; empty where it shows all."""
    rest = len(ablation.results.measured) - len(shown)
    return f" {len(shown)} of {len(shown) + rest} cells, evenly spaced." if rest else ""


def reference_looks(rows: Sequence[TableRow]) -> list[tuple[TableRow, tuple[float, ...], LegendItem]]:
    """Return each reference row with the dashes that it is drawn with, and its line in a legend."""
    return [
        (row, dashes, LegendItem(row.name, css_colour(MUTED), " ".join(f"{2 * length:g}" for length in dashes)))
        for row, dashes in zip(rows, itertools.cycle(_REFERENCE_DASHES), strict=False)
    ]


def finite(metrics: Mapping[str, float], key: str) -> float | None:
    """Return a metric where it was measured and is a finite number."""
    value = metrics.get(key)
    return None if value is None or not np.isfinite(value) else float(value)


def _series(results: StudyResults, rows: Sequence[TableRow]) -> list[Series]:
    cells = [row.cell for row in rows if row.cell is not None]
    looks = _looks_of_two_axes(results, cells) or [_look(results, place, len(cells)) for place in range(len(cells))]
    return [
        Series(cell, row, short_label(results, cell), *look) for cell, row, look in zip(cells, rows, looks, strict=True)
    ]


def _look(results: StudyResults, place: int, count: int) -> tuple[str, str, str]:
    """Return colour, dash and marker of a cell that is one of `count`."""
    marker = list(_MARKERS)[(place + place // CATEGORICAL) % len(_MARKERS)]  # shifted where the colours repeat
    if results.numeric_axis is not None:
        return sequential(place / max(1, count - 1)), "solid", marker
    return categorical(place), _DASHES[place // CATEGORICAL % len(_DASHES)], marker


def _looks_of_two_axes(results: StudyResults, cells: Sequence[CellResult]) -> list[tuple[str, str, str]] | None:
    """Return looks: colour for the first axis, dash and marker for the second; None where there are too many."""
    if len(results.space) != 2 or results.named or not cells:
        return None
    first, second = ([cell.params.get(path) for cell in cells] for path in results.space)
    is_ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in first)
    colours, dashes = (list(dict.fromkeys(map(plain, values))) for values in (first, second))
    if len(colours) > (SEQUENTIAL if is_ordered else CATEGORICAL) or len(dashes) > len(_DASHES):
        return None
    looks = []
    for one, other in zip(map(plain, first), map(plain, second), strict=True):
        place, kind = colours.index(one), dashes.index(other)
        colour = sequential(place / max(1, len(colours) - 1)) if is_ordered else categorical(place)
        looks.append((colour, _DASHES[kind], list(_MARKERS)[kind]))
    return looks
