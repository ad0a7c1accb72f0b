"""A fair comparison of runs of different lengths: validation metrics at the largest epoch that all have come to."""

from collections.abc import Mapping, Sequence

from experiments.baselines import cell_names
from experiments.columns import Column, column_of
from experiments.comparability import comparable
from experiments.entries import EqualEpochs, TableRow
from experiments.estimates import estimate
from experiments.history import read_history
from experiments.results import CellResult, StudyResults
from experiments.run_result import RunResult
from experiments.table import entry, seeds_of
from tracking.run_directory import StudyDirectory

_KEYS = ("val/elbo", "val/ssim", "val/lpips", "val/mse", "val/kl")
_ENDED = ("done", "pruned")

Epochs = Mapping[int, Mapping[str, float]]


def equal_epochs(study: StudyDirectory, results: StudyResults) -> EqualEpochs | None:
    """Return the comparison where ended runs differ in length, through early stopping or pruning; else None.

    Their journals are read again for it. None too where there is no epoch at which all of them were evaluated.
    """
    ended = {run.run: run for run in results.runs if run.state in _ENDED and run.epochs}
    if len({run.epochs for run in ended.values()}) < 2 or not results.one_data_set:
        return None
    curves = {name: _curve(study, run) for name, run in ended.items()}
    common = set.intersection(*(set(curve) for curve in curves.values()))
    if not common:
        return None
    epoch = max(common)
    at_epoch = {name: curve[epoch] for name, curve in curves.items()}
    columns = _columns(results, at_epoch)
    names = cell_names(results)
    rows = tuple(_row(cell, names[cell.trial], columns, at_epoch) for cell in results.cells)
    return EqualEpochs(epoch, columns, rows, tuple(_notes(results, list(ended.values()), epoch)))


def _curve(study: StudyDirectory, run: RunResult) -> dict[int, dict[str, float]]:
    """Return epoch -> what validation measured at it."""
    epochs: Epochs = read_history(study.run(run.run)).epochs
    measured = {epoch: {key: values[key] for key in _KEYS if key in values} for epoch, values in epochs.items()}
    return {epoch: values for epoch, values in measured.items() if values}


def _columns(results: StudyResults, at_epoch: Mapping[str, Mapping[str, float]]) -> tuple[Column, ...]:
    keys = [key for key in _KEYS if any(key in values for values in at_epoch.values())]
    return tuple(column_of(key) for key in keys if key != "val/elbo" or comparable(results))


def _row(
    cell: CellResult, name: str, columns: Sequence[Column], at_epoch: Mapping[str, Mapping[str, float]]
) -> TableRow:
    runs = [at_epoch[run.run] for run in cell.runs if run.run in at_epoch]
    entries = {
        column.key: entry(estimate([values[column.key] for values in runs if column.key in values]), column)
        for column in columns
    }
    return TableRow(name, cell, entries, "–", seeds_of(len(runs), len(cell.runs)))


def _notes(results: StudyResults, ended: Sequence[RunResult], epoch: int) -> list[str]:
    lengths = [run.epochs for run in ended]
    left_out = len(results.runs) - len(ended)
    what = (
        f"At equal epochs: runs differ in length ({min(lengths)} to {max(lengths)} finished epochs). These are "
        f"validation metrics of the weights at epoch {epoch}, the largest at which all {len(ended)} finished and "
        "pruned runs were evaluated; means over seeds, without any selection of a checkpoint."
    )
    if not left_out:
        return [what]
    return [what, f"{left_out} of {len(results.runs)} runs are not in it: failed, or not ended yet."]
