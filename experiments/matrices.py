"""A study of two axes as matrices: one metric each, the first axis down, the second across."""

from collections.abc import Sequence
from typing import Any

from experiments.columns import ACTIVE_UNITS, KL, LPIPS, SSIM, Column
from experiments.comparability import is_comparable
from experiments.contrasts import MOST_CELLS
from experiments.entries import Entry, Matrix, TableRow
from experiments.exact_values import exactly
from experiments.results import StudyResults
from experiments.table import plain


def matrices(results: StudyResults, columns: Sequence[Column], rows: Sequence[TableRow]) -> tuple[Matrix, ...]:
    """Return the matrices of the metrics that matter and by which cells may be ranked; see `has_two_axes`."""
    if not has_two_axes(results):
        return ()
    down, across = (_values(results, axis) for axis in results.space)
    return tuple(_matrix(results, column, rows, down, across) for column in _chosen(results, columns))


def has_two_axes(results: StudyResults) -> bool:
    """Return whether the study is a grid of two axes, of two or more values each, and no search of many cells."""
    if len(results.space) != 2 or results.named or results.sampler != "grid" or len(results.cells) > MOST_CELLS:
        return False
    return all(len(_values(results, axis)) > 1 for axis in results.space)


def _chosen(results: StudyResults, columns: Sequence[Column]) -> list[Column]:
    """Return the sweep's objective and what else matters; of columns that a person chose, all.

    A matrix invites to rank its cells, so columns that may not be ranked are none.
    """
    ranked = [column for column in columns if column.is_tested and is_comparable(results, column.key)]
    objective = results.objective["metric"].replace("val/", "test/")
    wanted = (objective, SSIM, LPIPS, KL, ACTIVE_UNITS)
    found = [column for key in dict.fromkeys(wanted) for column in ranked if column.key == key]
    return found or ranked


def _matrix(
    results: StudyResults, column: Column, rows: Sequence[TableRow], down: list[Any], across: list[Any]
) -> Matrix:
    row_axis, column_axis = results.space
    at_row, at_column = ([exactly(value) for value in values] for values in (down, across))
    found: dict[tuple[int, int], Entry] = {}
    for row in rows:
        if row.cell is not None:
            place = (
                at_row.index(exactly(row.cell.params[row_axis])),
                at_column.index(exactly(row.cell.params[column_axis])),
            )
            found[place] = row.entries[column.key]
    entries = tuple(tuple(found.get((i, j)) for j in range(len(across))) for i in range(len(down)))
    return Matrix(column, row_axis, column_axis, _texts(down), _texts(across), entries)


def _values(results: StudyResults, axis: str) -> list[Any]:
    """Return the values of an axis, numbers ascending, others in the order of the sweep."""
    values: list[Any] = []
    for value in (*results.space[axis], *(cell.params[axis] for cell in results.cells)):
        if exactly(value) not in map(exactly, values):
            values.append(value)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numeric else values


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(plain(value) for value in values)
