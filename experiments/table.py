"""The rows of an ablation table: one per cell and per reference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.columns import ACTIVE_UNITS, MINUTES, PCA_MSE, Column, run_value
from experiments.contrasts import Contrasts
from experiments.entries import NOTHING, Entry, TableRow
from experiments.estimates import Estimate, digits, estimate
from experiments.references import ReferenceRow, References
from experiments.results import CellResult, StudyResults
from experiments.wording import spent

if TYPE_CHECKING:
    from experiments.comparison import Comparison

_DASH = "–"


def cell_rows(
    results: StudyResults,
    references: References,
    columns: Sequence[Column],
    found: Contrasts,
    baseline: CellResult | None,
) -> list[TableRow]:
    """Return one row per cell, in the order in which they were asked for."""
    rows = []
    for cell in results.cells:
        entries = {}
        for column in columns:
            measured = estimate(cell_values(cell, column.key, results, references))
            comparison, best = found.comparison(cell, column.key), found.is_best(cell, column.key)
            entries[column.key] = entry(measured, column, comparison, best=best)
        name, seeds = found.names[cell.trial], seeds_of(len(cell.done), len(cell.runs))
        rows.append(TableRow(name, cell, entries, _verdict(cell), seeds, _notes(cell, baseline)))
    return rows


def reference_rows(references: References, columns: Sequence[Column]) -> list[TableRow]:
    """Return one row per reference."""
    return [_reference_row(row, columns) for row in references.rows]


def cell_values(cell: CellResult, key: str, results: StudyResults, references: References) -> list[float]:
    """Return a metric of every finished run that has it."""
    if key == PCA_MSE:
        return _pca_mse(cell, results, references)
    return [value for run in cell.done if (value := run_value(run, key)) is not None]


def counts_components(results: StudyResults, cell: CellResult) -> bool:
    """Return whether PCA with as many components as the cell has active units has a code of the same size.

    Not beside units of ae and vq, whose codes have an arbitrary scale, nor beside those of a spatial bottleneck, which
    have a number per position.
    """
    model = results.config.get("model", {})
    family, bottleneck = (cell.params.get(f"model.{name}", model.get(name)) for name in ("family", "bottleneck"))
    return family not in ("ae", "vq") and bottleneck != "spatial"


def seeds_of(done: int, planned: int) -> str:
    """Return the number of runs that count, of how many where some are missing."""
    return str(done) if done == planned else f"{done}/{planned}"


def plain(value: Any) -> str:
    """Return a swept value for reading: 100.0 as 100."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def number(measured: Estimate, column: Column) -> tuple[str, str | None]:
    """Return mean and half-width as text."""
    if column.key == PCA_MSE:  # no estimate over seeds, but a reference for as many units as they use
        return digits(Estimate(measured.mean, None, 1), column.decimals, column.most)
    if column.key == MINUTES:
        return spent(60 * measured.mean), None
    if column.is_cost:
        return f"{measured.mean:.3g}", None
    if column.decimals == column.most == 0:  # a count: without an interval where it is the same for every seed
        return f"{measured.mean:,.0f}", f"{measured.half_width:,.0f}" if measured.half_width else None
    whole = column.key == ACTIVE_UNITS and float(measured.mean).is_integer() and not measured.half_width
    return digits(measured, 0 if whole else column.decimals, column.most)


def entry(
    measured: Estimate | None, column: Column, comparison: "Comparison | None" = None, *, best: bool = False
) -> Entry:
    """Return what a table says of an estimate; an en dash where there is none."""
    if measured is None:
        return NOTHING
    mean, half_width = number(measured, column)
    text = mean if half_width is None else f"{mean} ± {half_width}"
    return Entry(measured.mean, measured.half_width, measured.n, text, comparison, best)


def _pca_mse(cell: CellResult, results: StudyResults, references: References) -> list[float]:
    """Return for each run PCA's MSE with as many components as the run has active units, on the same data.

    None for families and bottlenecks whose active units are no number of components.
    """
    if not counts_components(results, cell):
        return []
    return [
        mse
        for run in cell.done
        if run.data_fingerprint in (None, results.data.get("fingerprint"))
        and ACTIVE_UNITS in run.metrics
        and (mse := references.mse_of_pca(run.metrics[ACTIVE_UNITS])) is not None
    ]


def _reference_row(row: ReferenceRow, columns: Sequence[Column]) -> TableRow:
    entries = {}
    for column in columns:
        value = row.metrics.get(column.key)
        entries[column.key] = entry(None if value is None else Estimate(value, None, 1), column)
    return TableRow(row.name, None, entries, _DASH, _DASH)


def _verdict(cell: CellResult) -> str:
    """Return `none 2/2` where all finished runs agree, else `partial 1, none 1`."""
    counts = cell.verdicts.most_common()
    if not counts:
        return _DASH
    if len(counts) == 1:
        return f"{counts[0][0]} {counts[0][1]}/{len(cell.done)}"
    return ", ".join(f"{name} {count}" for name, count in counts)


def _notes(cell: CellResult, baseline: CellResult | None) -> tuple[str, ...]:
    is_baseline = cell.is_baseline if baseline is None else cell is baseline
    marks: Mapping[str, bool] = {"baseline": is_baseline, "no longer in the sweep": cell.vanished}
    states = Counter(run.state for run in cell.runs)
    counts = [f"{states[state]} {state}" for state in ("failed", "pruned") if states[state]]
    return (*(mark for mark, holds in marks.items() if holds), *counts)
