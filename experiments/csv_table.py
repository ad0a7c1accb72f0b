"""Studies as CSV at full precision: one row per cell and reference, or one per run."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.ablation import Ablation
from experiments.entries import TableRow
from experiments.estimates import estimate
from experiments.run_result import STATES
from experiments.table import cell_values

_PARTS = ("mean", "half_width", "n")
_COMPARED = ("difference", "low", "high", "effect", "p", "sign_flip_p", "common_seeds")
_FACTS = ("state", "verdict", "best_epoch", "epochs", "parameters", "seconds", "gpu_hours", "lpips", "failure")


def cells_csv(tables: Sequence[Ablation]) -> str:
    """Return one row per cell and reference.

    They hold counts of runs, mean, half-width of the 95% interval and n of every metric, and of the compared ones the
    difference to the baseline (with interval, effect size, corrected p, p of the sign-flip test) and whether the cell
    is marked best.
    """
    axes = _united(list(table.results.space) for table in tables)
    keys = _united(_keys(table) for table in tables)
    compared = _united([column.key for column in table.compared] for table in tables)
    ranked = _united(
        [column.key for column in table.columns if column.is_tested and column.direction] for table in tables
    )
    head = ["study", "kind", "name", "trial", *axes, "baseline", *STATES, "verdicts"]
    head += [f"{key} {part}" for key in keys for part in _PARTS]
    head += [f"{key} {part}" for key in compared for part in _COMPARED]
    head += [f"{key} best" for key in ranked]
    rows = [
        [table.results.name, *_place(table, row, axes), *_numbers(table, row, keys), *_tests(row, compared, ranked)]
        for table in tables
        for row in table.rows
    ]
    return _csv([head, *rows])


def runs_csv(tables: Sequence[Ablation]) -> str:
    """Return one row per run, finished or not."""
    axes = _united(list(table.results.space) for table in tables)
    keys = _united(_run_keys(table) for table in tables)
    lines: list[list[Any]] = [["study", "trial", "cell", *axes, "seed", "run", *_FACTS, *keys]]
    for table in tables:
        for cell in table.results.cells:
            place = [table.results.name, cell.trial, cell.cell, *[cell.params.get(axis) for axis in axes]]
            for run in cell.runs:
                known = [getattr(run, fact) for fact in _FACTS]
                lines.append([*place, run.seed, run.run, *known, *[run.metrics.get(key) for key in keys]])
    return _csv(lines)


def _place(table: Ablation, row: TableRow, axes: Sequence[str]) -> list[Any]:
    """Return what a row is: kind, name, trial, swept values, whether it is the baseline, runs by state, verdicts."""
    cell = row.cell
    if cell is None:
        return ["reference", row.name, *[None] * (len(axes) + len(STATES) + 3)]
    states = [run.state for run in cell.runs]
    verdicts = " ".join(f"{name}:{count}" for name, count in cell.verdicts.items())
    values = [cell.params.get(axis) for axis in axes]
    is_baseline = cell is table.baseline or (table.baseline is None and cell.is_baseline)
    return ["cell", row.name, cell.trial, *values, is_baseline, *map(states.count, STATES), verdicts]


def _numbers(table: Ablation, row: TableRow, keys: Sequence[str]) -> list[Any]:
    values: list[Any] = []
    for key in keys:
        if row.cell is None:
            shown = row.entries.get(key)
            values += [None] * 3 if shown is None or shown.mean is None else [shown.mean, None, shown.n]
        else:
            found = estimate(cell_values(row.cell, key, table.results, table.references))
            values += [None] * 3 if found is None else [found.mean, found.half_width, found.n]
    return values


def _tests(row: TableRow, compared: Sequence[str], ranked: Sequence[str]) -> list[Any]:
    values: list[Any] = []
    for key in compared:
        found = row.entries[key].comparison if key in row.entries else None
        values += (
            [None] * len(_COMPARED)
            if found is None
            else [found.difference, found.low, found.high, found.effect, found.p, found.sign_flip_p, found.n]
        )
    return values + [None if row.cell is None or key not in row.entries else row.entries[key].best for key in ranked]


def _keys(table: Ablation) -> list[str]:
    """Return every key that has a number: the columns shown, then all others that a run measured."""
    return list(dict.fromkeys([*(column.key for column in table.columns), *_run_keys(table)]))


def _run_keys(table: Ablation) -> list[str]:
    return list(dict.fromkeys(key for run in table.results.runs for key in run.metrics))


def _united(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(key for keys in lists for key in keys))


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
