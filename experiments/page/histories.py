"""What figures show beyond the table: each epoch's metrics and the KL of each dimension, from the journals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.history import read_history
from experiments.page.parts import Series
from experiments.run_result import RunResult
from tracking.run_directory import StudyDirectory


@dataclass(frozen=True)
class RunHistoryView:
    """One run's learning curve: epoch (from 1) -> metrics; and its test KL in nats by dimension, if measured."""

    run: RunResult
    epochs: Mapping[int, Mapping[str, float]]
    kl_per_dim: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """A cell and the histories of its runs, finished or not."""

    series: Series
    runs: tuple[RunHistoryView, ...]


def read_curves(study: StudyDirectory, shown: Sequence[Series]) -> list[Curves]:
    """Read the journals of the cells that are shown."""
    return [Curves(series, tuple(_view(study, run) for run in series.cell.runs)) for series in shown]


def _view(study: StudyDirectory, run: RunResult) -> RunHistoryView:
    history = read_history(study.run(run.run))
    vectors = (history.result or {}).get("vectors", {})
    return RunHistoryView(run, history.epochs, tuple(vectors.get("kl_per_dim", ())))
