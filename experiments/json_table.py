"""Studies as JSON for programs: a documented schema (docs/report.md) with a version, numbers at full precision."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.ablation import Ablation
from experiments.columns import Column, run_value
from experiments.entries import Entry, Matrix, TableRow
from experiments.intervals import improvement_interval, iqm_interval
from experiments.results import CellResult
from experiments.run_result import RunResult

SCHEMA, VERSION = "vae-sweep-report", 1  # the version changes when a key changes its meaning or goes


def to_json(tables: Sequence[Ablation]) -> str:
    """Return the studies as JSON; what is not finite, or not known, is null."""
    tree = {"schema": SCHEMA, "version": VERSION, "studies": [_study(table) for table in tables]}
    return json.dumps(_finite(tree), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _study(table: Ablation) -> dict[str, Any]:
    results, equal = table.results, table.equal_epochs
    return {
        "name": results.name,
        "question": results.question,
        "objective": dict(results.objective),
        "sampler": results.sampler,
        "axes": dict(results.space),
        "seeds": sorted({run.seed for run in results.runs}),
        "planned_cells": results.planned,
        "runs_by_state": results.counts(),
        "baseline": next((row.name for row in table.cells if row.cell is table.baseline), None),
        "answers": table.answers,
        "caption": table.caption,
        "methods": table.methods,
        "costs": table.costs,
        "columns": [_column(column) for column in table.columns],
        "rows": [_row(row) | {"many_seeds": _many_seeds(table, row)} for row in table.rows],
        "matrices": [_matrix(matrix) for matrix in table.matrices],
        "equal_epochs": equal
        and {
            "epoch": equal.epoch,
            "columns": [_column(column) for column in equal.columns],
            "rows": [_row(row) for row in equal.rows],
            "notes": equal.notes,
        },
        "runs": [_run(cell, run) for cell in results.cells for run in cell.runs],
    }


def _column(column: Column) -> dict[str, Any]:
    return {"key": column.key, "title": column.title, "unit": column.unit, "direction": column.direction}


def _row(row: TableRow) -> dict[str, Any]:
    cell = row.cell
    return {
        "kind": "reference" if cell is None else "cell",
        "name": row.name,
        "trial": cell and cell.trial,
        "params": cell and dict(cell.params),
        "notes": row.notes,
        "verdicts": cell and dict(cell.verdicts),
        "finished_runs": cell and len(cell.done),
        "planned_runs": cell and len(cell.runs),
        "entries": {key: _entry(entry) for key, entry in row.entries.items()},
    }


def _many_seeds(table: Ablation, row: TableRow) -> dict[str, Any]:
    """Return what ten seeds and more allow to say: robust means, and how often a run beats one of the baseline's."""
    found: dict[str, Any] = {}
    for column in table.columns if row.cell is not None else ():
        own = _values(row.cell, column)
        iqm = iqm_interval(own)
        if iqm is None:
            continue
        compared = row.entries[column.key].comparison and table.baseline and column.direction
        other = _values(table.baseline, column) if compared else []
        better = improvement_interval(own, other, column.direction == "higher")
        found[column.key] = {"iqm": asdict(iqm), "probability_of_improvement": better and asdict(better)}
    return found


def _values(cell: CellResult | None, column: Column) -> list[float]:
    if cell is None or not column.is_tested:
        return []
    return [value for run in cell.done if (value := run_value(run, column.key)) is not None and math.isfinite(value)]


def _entry(entry: Entry) -> dict[str, Any]:
    found = entry.comparison
    comparison = found and {**asdict(found), "holds": found.holds}
    return {
        "mean": entry.mean,
        "half_width": entry.half_width,
        "n": entry.n,
        "text": entry.text,
        "best": entry.best,
        "comparison": comparison,
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    return {
        "column": _column(matrix.column),
        "row_axis": matrix.row_axis,
        "column_axis": matrix.column_axis,
        "row_values": matrix.row_values,
        "column_values": matrix.column_values,
        "entries": [[entry and _entry(entry) for entry in entries] for entries in matrix.entries],
    }


def _run(cell: CellResult, run: RunResult) -> dict[str, Any]:
    return {"trial": cell.trial, "cell": cell.cell, **asdict(run)}


def _finite(value: Any) -> Any:
    """Return the tree with null for every number that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
