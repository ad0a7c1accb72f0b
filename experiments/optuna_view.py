"""The Optuna study of a sweep: proposes trials, and shows in the dashboard what the ledger records.

The only module that writes with optuna; dashboard.py shows what it wrote. The storage is a view: whatever in it
disagrees with the ledger is made anew.
"""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from experiments.ledger import TrialRecord
from experiments.sweep import Sweep, plain_value
from experiments.sweep_file import Axis, Range
from vae_core.config import field_paths

_LOG_FROM_RATIO = 50  # a list of numbers that spans more than this is shown on a logarithmic axis


class _Flock:
    """A lock that the kernel releases when its holder dies, so that a kill -9 never leaves it behind."""

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + ".flock")
        self._descriptor = -1

    def acquire(self) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def open_storage(journal: Path) -> BaseStorage:
    """Open (or create) the journal file that holds the studies of a root; a torn last line is cut off first."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = _Flock(journal)
    lock.acquire()
    try:
        _cut_torn_line(journal)
    finally:
        lock.release()
    with _quietly():
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]


def _cut_torn_line(journal: Path) -> None:
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Optuna's INFO lines and its notices of experimental features off the user's terminal."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def delete_study(storage: BaseStorage, name: str) -> None:
    """Remove a study from the storage, if it is there."""
    with _quietly():
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)


class OptunaView:
    """The study of one sweep in a storage.

    Args:
        storage: an open storage; this process is its only writer for this study.
        sweep: names the study, its direction and its axes.
        trials: the ledger's trials, kept up to date by the caller.
    """

    def __init__(self, storage: BaseStorage, sweep: Sweep, trials: list[TrialRecord]) -> None:
        self._storage = storage
        self._sweep = sweep
        self._trials = trials
        self._proposed = {path: _distribution(path, axis) for path, axis in sweep.axes.items()}
        shown = _grid_axis if sweep.file.sampler == "grid" else _range_shown
        self._distributions = {path: shown(path, trials, axis) for path, axis in sweep.axes.items()}
        self._study = self._open()
        if not self._agrees():
            self._study = self._anew()
        self.sync()

    def propose(self) -> dict[str, Any]:
        """Ask the sampler for the next trial's values; the caller records them in the ledger at once."""
        number = len(self._trials)
        with _quietly():
            self._study.sampler = optuna.samplers.TPESampler(seed=self._sweep.file.sampler_seed * 1_000_003 + number)
            params = self._study.ask(self._proposed).params
        return {path: self._original(path, value) for path, value in params.items()}

    def sync(self) -> None:
        """Add, report and tell whatever the ledger holds and the study does not."""
        with _quietly():
            found = self._study.get_trials(deepcopy=False)
            if len(found) > len(self._trials):
                self._study = self._anew()  # what was proposed could not be recorded in the ledger
                found = []
            if any(trial.state.is_finished() and not record.state for record, trial in zip(self._trials, found)):  # noqa: B905 - the study may be behind
                self._study = self._anew()  # a trial is open again, which Optuna has no word for
                found = []
            for record in self._trials[len(found) :]:
                self._study.add_trial(self._frozen(record))
            for record, trial in zip(self._trials, found, strict=False):
                self._update(record, trial)

    def _update(self, record: TrialRecord, trial: FrozenTrial) -> None:
        if trial.state.is_finished():
            return
        writable = Trial(self._study, trial._trial_id)  # ask/tell by number offers no public way
        for step in sorted(record.reports.keys() - trial.intermediate_values.keys()):
            writable.report(record.reports[step], step)
        if record.state is not None:
            value = record.value if record.state == "COMPLETE" else None  # of a pruned one Optuna finds it itself
            self._study.tell(record.number, value, TrialState[record.state], skip_if_finished=True)

    def _open(self) -> optuna.Study:
        with _quietly():
            study = optuna.create_study(
                storage=self._storage,
                study_name=self._sweep.name,
                direction=self._sweep.file.objective.direction,
                load_if_exists=True,
            )
            if study.user_attrs.get("question") != self._sweep.question:
                from optuna_dashboard import save_note  # a quarter of a second, needed once per study

                save_note(study, self._sweep.question)
                study.set_metric_names([self._sweep.file.objective.metric])
                study.set_user_attr("question", self._sweep.question)
        return study

    def _anew(self) -> optuna.Study:
        with _quietly():
            optuna.delete_study(study_name=self._sweep.name, storage=self._storage)
        return self._open()

    def _agrees(self) -> bool:
        """Return whether every trial of the study is the ledger's trial of that number."""
        found = self._study.get_trials(deepcopy=False)
        if len(found) > len(self._trials):
            return False  # killed between a proposal and its record: nothing was planned for it
        return all(self._shows(record, trial) for record, trial in zip(self._trials, found, strict=False))

    def _shows(self, record: TrialRecord, trial: FrozenTrial) -> bool:
        same_end = not trial.state.is_finished() or (
            record.state is not None and trial.state.name == record.state and trial.value == record.value
        )
        same_reports = trial.intermediate_values.items() <= record.reports.items()
        wanted = self._frozen(record)
        return (
            trial.params == wanted.params and trial.distributions == wanted.distributions and same_end and same_reports
        )

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        trial = create_trial(
            state=TrialState[record.state] if record.state else TrialState.RUNNING,
            params={path: plain_value(value) for path, value in record.params.items()},
            distributions={path: self._distributions[path] for path in record.params},
            value=record.value,
            intermediate_values=record.reports,
            user_attrs={"cell": record.cell, "seeds": [seed for _, seed in record.runs]},
        )
        trial.datetime_start = datetime.fromtimestamp(record.asked_ms / 1000)
        trial.datetime_complete = datetime.fromtimestamp(record.told_ms / 1000) if record.told_ms else None
        return trial

    def _original(self, path: str, value: Any) -> Any:
        """Return the sweep file's value for one that Optuna holds as plain text."""
        axis = self._sweep.file.space[path]
        if isinstance(axis, Range):
            return value
        return next(choice for choice in axis if plain_value(choice) == value)


def _distribution(path: str, axis: Axis) -> BaseDistribution:
    """Return numbers as numeric axes, which the dashboard can draw, and everything else as choices."""
    is_integer = dict(field_paths())[path].annotation in (int, int | None)
    if isinstance(axis, Range):
        if is_integer:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)
    return CategoricalDistribution([plain_value(value) for value in axis])


def _range_shown(path: str, trials: list[TrialRecord], axis: Axis) -> BaseDistribution:
    """Return a sampler's axis, wide enough for trials proposed before the sweep file was edited."""
    values = [trial.params[path] for trial in trials]
    if isinstance(axis, Range):
        low, high = min([axis.low, *values]), max([axis.high, *values])
        return _distribution(path, Range(low=low, high=high, log=axis.log))
    return _distribution(path, list(dict.fromkeys([*map(plain_value, axis), *map(plain_value, values)])))


def _grid_axis(path: str, trials: list[TrialRecord], axis: Axis) -> BaseDistribution:
    """Return the axis of a grid: numeric where all values, also those of cells since removed, are numbers."""
    values = [trial.params[path] for trial in trials] + (axis if isinstance(axis, list) else [])
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(list(dict.fromkeys(plain_value(value) for value in values)))
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low > _LOG_FROM_RATIO
    if dict(field_paths())[path].annotation in (int, int | None):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)
