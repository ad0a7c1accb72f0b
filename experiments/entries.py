"""What a table is made of: entries, rows, and matrices of two axes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.columns import Column
from experiments.results import CellResult

if TYPE_CHECKING:
    from experiments.comparison import Comparison


@dataclass(frozen=True)
class Entry:
    """What a table says at one place.

    Attributes:
        mean: over seeds, in the column's unit; None where there is no number.
        half_width: of the 95% Student t interval over seeds; None for a single value.
        n: number of values.
        text: "0.483 ± 0.012"; an en dash where there is no number.
        comparison: with the baseline; None where there is none.
        best: whether no other cell of its column is shown to beat it, where that singles out few (contrasts.py).
    """

    mean: float | None
    half_width: float | None
    n: int
    text: str
    comparison: "Comparison | None" = None
    best: bool = False


NOTHING = Entry(None, None, 0, "–")


@dataclass(frozen=True)
class TableRow:
    """A cell, or a reference row, which has no cell.

    Attributes:
        name: the cell's name or the reference's.
        cell: None for a reference.
        entries: key of a column -> entry; every column has one.
        verdict: "none 5/5", or "partial 1, none 4" where seeds disagree; an en dash for a reference.
        seeds: finished runs, "5", or "3/5" where some are missing; an en dash for a reference.
        notes: "baseline", "no longer in the sweep", "1 failed", "2 pruned".
    """

    name: str
    cell: CellResult | None
    entries: Mapping[str, Entry]
    verdict: str
    seeds: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """One metric of a study of two axes: `entries[row][column]`, None where there is no such cell."""

    column: Column
    row_axis: str
    column_axis: str
    row_values: tuple[str, ...]
    column_values: tuple[str, ...]
    entries: tuple[tuple[Entry | None, ...], ...]


@dataclass(frozen=True)
class EqualEpochs:
    """Validation metrics at the largest epoch that all runs have come to, where some are shorter than others.

    Attributes:
        epoch: at which everything is measured, with the weights of that epoch.
        columns: `val/...`.
        rows: one per cell, of its finished and pruned runs; without verdicts.
        notes: what is compared, and what is left out.
    """

    epoch: int
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
