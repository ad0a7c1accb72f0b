"""What stands below a table beside its caption: how cells were compared, and what the runs took."""

import math
from collections.abc import Sequence

from experiments.columns import Column, run_value
from experiments.comparability import is_comparable
from experiments.contrasts import MOST_CELLS, Contrasts
from experiments.results import CellResult, StudyResults
from experiments.wording import spent


def methods(
    results: StudyResults, columns: Sequence[Column], tests: Contrasts, baseline: CellResult | None
) -> list[str]:
    """Return how cells were compared, with which corrections, and what limits that."""
    if len(results.measured) < 2:
        return []
    if len(results.cells) > MOST_CELLS:
        return [f"No tests: {len(results.cells)} cells are a search, not an ablation (more than {MOST_CELLS})."]
    lines = [_no_baseline(results, columns, baseline)] if not tests.families else []
    if tests.families and baseline is not None:
        lines.append(
            f"Differences are to the baseline, {tests.names[baseline.trial]}, over common seeds; those with * hold at "
            "0.05, corrected for all cells of their column; d is the difference in standard deviations of one run over "
            "seeds (with Hedges' correction)."
        )
        lacking = [column.title for column in _compared(results, columns) if not _has(baseline, column)]
        if lacking:
            lines.append(f"Not compared: {', '.join(lacking)}, of which the baseline has no number.")
    titles = {column.key: column.title for column in columns}
    said: dict[str, list[str]] = {}
    for key, family in tests.families.items():
        is_explained = any(note.startswith(family.method) for note in family.notes)  # not tested, and why
        for sentence in family.notes if is_explained else (family.method, *family.notes):
            said.setdefault(sentence, []).append(titles[key])
    for sentence, shown in said.items():
        of_all = len(shown) == len(tests.families)
        is_name = any(sentence.startswith(name) for name in tests.names.values())
        capital = sentence if is_name else f"{sentence[0].upper()}{sentence[1:]}"
        words = capital if of_all else f"{', '.join(shown)}: {sentence}"
        lines.append(words if words.endswith(".") else f"{words}.")
    if any(tests.best.values()):
        lines.append(
            "Bold: cells that no other cell of the column is shown to beat (0.05, among all pairs and against the "
            f"baseline), where they are at most half of the cells{_unmarked(results)}."
        )
    return lines


def _unmarked(results: StudyResults) -> str:
    """Return that some cells have too few seeds to be marked, where they do beside cells of more."""
    from experiments.pair_tests import LEAST_SEEDS

    seeds = [len(cell.done) for cell in results.measured]
    return "; cells of one or two seeds are not marked" if min(seeds) < LEAST_SEEDS <= max(seeds) else ""


def costs(results: StudyResults) -> list[str]:
    """Return what all runs took together, unfinished ones included."""
    runs = [run for run in {run.run: run for run in results.runs}.values() if run.seconds]
    seconds = math.fsum(run.seconds for run in runs)
    if not seconds:
        return []
    lost = math.fsum(run.seconds for run in runs if run.state in ("failed", "pruned"))
    part = f", {spent(lost)} of it in failed and pruned ones" if lost else ""
    gpu = math.fsum(run.gpu_hours for run in runs)
    on_gpus = f"; {gpu:.3g} GPU-hours, lost attempts included" if gpu else ""
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    return [f"Cost: {spent(seconds)} of training in {count}{part}{on_gpus}. Time is that of finished epochs."]


def _compared(results: StudyResults, columns: Sequence[Column]) -> list[Column]:
    """Return the columns in which there is something to compare."""
    ranked = (column for column in columns if column.is_tested and is_comparable(results, column.key))
    return [column for column in ranked if any(_has(cell, column) for cell in results.measured)]


def _has(cell: CellResult, column: Column) -> bool:
    return any(run_value(run, column.key) is not None for run in cell.done)


def _no_baseline(results: StudyResults, columns: Sequence[Column], baseline: CellResult | None) -> str:
    """Return why nothing is compared with a baseline, and what helps."""
    marked = [cell.cell for cell in results.cells if cell.is_baseline]
    if baseline is not None:
        if not baseline.done:
            return f"No comparisons yet: the baseline, {baseline.cell}, has no finished run."
        compared = _compared(results, columns)
        if not any(column.is_tested for column in columns):
            return "No comparisons with the baseline: costs and references are not tested."
        if not compared:
            return "No comparisons with the baseline: no column's numbers are comparable between cells."
        known = [column.title for column in compared if _has(baseline, column)]
        if known:
            return f"No comparisons with the baseline: no other cell has a number for {', '.join(known)}."
        titles = ", ".join(column.title for column in compared)
        return f"No comparisons: the baseline, {baseline.cell}, has no number for {titles}."
    if len(marked) > 1:
        return f"No comparisons: the sweep's baseline is {len(marked)} cells; choose one with --baseline CELL."
    return "No comparisons: this sweep has no baseline; name one with --baseline CELL, or `baseline:` in the sweep."
