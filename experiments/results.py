"""What a study has measured so far, read from its folder alone; imports nothing heavy."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.history import RunHistory, held_runs, read_history, read_info, run_state
from experiments.ledger import TrialRecord, read_trials
from experiments.study_files import read_facts, read_sweep
from tracking.replay import gpu_hours
from tracking.run_directory import RunDirectory, StudyDirectory

State = Literal["done", "failed", "pruned", "running", "waiting"]
STATES: tuple[State, ...] = ("done", "failed", "pruned", "running", "waiting")


@dataclass(frozen=True)
class RunResult:
    """One run; what only a finished run has is empty or None before.

    Attributes:
        run: the run id.
        metrics: `test/...` of the selected weights.
        selected: `val/...` and `latent/...` of the epoch whose weights were selected.
        verdict: name of the collapse verdict: full, ignored, partial or none.
        best_epoch: epoch (from 1) of the selected weights.
        epochs: finished epochs.
        parameters: number of weights of the model.
        seconds: s spent in finished epochs.
        gpu_hours: of all attempts; 0 where no GPU was promised.
        planned_epochs: as configured; None before the run was planned.
        bound: what `test/elbo` is, in a family whose ELBO is not a lower bound of ln p(x).
        lpips: measured, off, or missing with the reason; None before the first attempt.
        failure: kind and reason, of a failed run.
        data_fingerprint: of the data set the run was planned for; None before it was planned.
        artifacts: name -> path relative to the attempt's folder.
        attempt: number of the attempt that wrote the result.
    """

    run: str
    seed: int
    state: State
    metrics: Mapping[str, float] = field(default_factory=dict)
    selected: Mapping[str, float] = field(default_factory=dict)
    verdict: str | None = None
    best_epoch: int | None = None
    epochs: int = 0
    parameters: int | None = None
    seconds: float = 0.0
    gpu_hours: float = 0.0
    planned_epochs: int | None = None
    lpips: str | None = None
    bound: str = "a bound"
    failure: str | None = None
    data_fingerprint: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    attempt: int | None = None


@dataclass(frozen=True)
class CellResult:
    """One trial: its swept values and all its runs, finished or not, in the order of their seeds.

    A vanished one has a value that has since been taken off its axis; its runs are kept.
    """

    trial: int
    cell: str
    params: Mapping[str, Any]
    runs: tuple[RunResult, ...]
    is_baseline: bool
    vanished: bool = False

    @property
    def done(self) -> list[RunResult]:
        """Return the runs that have a result."""
        return [run for run in self.runs if run.state == "done"]

    def values(self, key: str) -> list[float]:
        """Return a test metric of every finished run that measured it."""
        return [run.metrics[key] for run in self.done if key in run.metrics]

    @property
    def verdicts(self) -> Counter[str]:
        """Return how many finished runs got which verdict."""
        return Counter(run.verdict for run in self.done if run.verdict)


@dataclass(frozen=True)
class StudyResults:
    """A study as its folder has it.

    Attributes:
        name: the study's name.
        question: what the sweep asks.
        config: the base config as a nested mapping, unchecked.
        space: dotted path -> list of values, or a mapping with low and high; of named cells too.
        objective: metric (`val/...`) and direction.
        sampler: grid or tpe.
        data: what `data.json` says of the base config's data set; empty where it is missing.
        cells: every trial so far, in the order of the ledger.
        planned: number of cells the sweep will have.
        named: whether its cells have names of their own.
    """

    name: str
    question: str
    config: Mapping[str, Any]
    space: Mapping[str, Any]
    objective: Mapping[str, str]
    sampler: str
    data: Mapping[str, Any]
    cells: tuple[CellResult, ...]
    planned: int
    named: bool = False

    @property
    def runs(self) -> list[RunResult]:
        """Return the runs of all cells."""
        return [run for cell in self.cells for run in cell.runs]

    @property
    def measured(self) -> list[CellResult]:
        """Return the cells that have at least one finished run."""
        return [cell for cell in self.cells if cell.done]

    @property
    def numeric_axis(self) -> str | None:
        """Return the dotted path of the only axis where it has numbers, else None."""
        if len(self.space) != 1 or self.named:
            return None
        axis = next(iter(self.space))
        values = [cell.params[axis] for cell in self.cells if axis in cell.params]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        return axis if numbers and len(numbers) == len(self.cells) else None

    def is_swept(self, prefix: str) -> bool:
        """Return whether a field whose dotted path starts with `prefix` is swept."""
        return any(path.startswith(prefix) for path in self.space)

    @property
    def one_data_set(self) -> bool:
        """Return whether all runs planned so far see the same images in the same splits."""
        return len({run.data_fingerprint for run in self.runs if run.data_fingerprint}) <= 1

    @property
    def bounds(self) -> set[str]:
        """Return what the finished runs' families say of their ELBOs; one entry: they mean the same."""
        return {run.bound for run in self.runs if run.state == "done"}

    def counts(self) -> dict[State, int]:
        """Return how many runs are in which state."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}


def collect(study: StudyDirectory) -> StudyResults:
    """Read a study's ledger and the journals of all its runs.

    Raises:
        UserError: a file of the study cannot be read.
    """
    # the raw file: checking the sweep would import torch, which a table of finished numbers does not need
    sweep = read_sweep(study.sweep_file)
    sweep = {"cells": {}, "axes": sweep["space"], **sweep}  # a study from before there were named cells
    data_file = study.path / "data.json"
    held = held_runs(study)
    baseline = sweep.get("baseline") or {}
    grid = _grid(sweep)
    cells = tuple(_cell(study, trial, held, baseline, grid) for trial in read_trials(study))
    return StudyResults(
        name=study.path.name,
        question=sweep["question"],
        config=sweep["config"],
        space=sweep["axes"],
        objective=sweep["objective"],
        sampler=sweep["sampler"],
        data=read_facts(data_file) if data_file.is_file() else {},
        cells=cells,
        planned=_planned(sweep, cells, grid),
        named=bool(sweep["cells"]),
    )


def _grid(sweep: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the swept values of every cell of a grid as the sweep is now; None for a sampler."""
    if sweep["sampler"] != "grid":
        return None
    space = sweep["space"]
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return [cell | point for cell in list(sweep["cells"].values()) or [{}] for point in points]


def _planned(sweep: Mapping[str, Any], cells: tuple[CellResult, ...], grid: list[dict[str, Any]] | None) -> int:
    """Return the number of cells the sweep will have; cells of values since taken off an axis count too."""
    if grid is None:
        return max(int(sweep["trials"]), len(cells))
    asked = [dict(cell.params) for cell in cells]
    return len(asked) + sum(point not in asked for point in grid)


def _cell(
    study: StudyDirectory,
    trial: TrialRecord,
    held: set[str],
    baseline: Mapping[str, Any],
    grid: list[dict[str, Any]] | None,
) -> CellResult:
    is_baseline = bool(baseline) and all(trial.params.get(path) == value for path, value in baseline.items())
    runs = tuple(read_run(study, run, seed, run in held) for run, seed in trial.runs)
    vanished = grid is not None and trial.params not in grid
    return CellResult(trial.number, trial.cell, trial.params, runs, is_baseline, vanished)


def read_run(study: StudyDirectory, run: str, seed: int, is_held: bool) -> RunResult:
    """Return what a run has measured so far; `is_held`: a worker that may be alive has claimed it."""
    directory = study.run(run)
    history = read_history(directory)
    info = read_info(directory) if directory.info_file.is_file() else {}
    state = run_state(history, is_held)
    result = history.result if state == "done" and history.result else {}
    return RunResult(
        run=run,
        seed=seed,
        state=state,
        metrics=result.get("metrics", {}),
        selected=_selected(history, result),
        verdict=result["verdict"]["name"] if result else None,
        best_epoch=result.get("best_epoch"),
        epochs=max(history.epochs, default=0),
        parameters=result.get("parameters"),
        seconds=math.fsum(history.seconds.values()),
        gpu_hours=_gpu_hours(directory, history),
        planned_epochs=info.get("epochs"),
        lpips=history.tags.get("lpips"),
        bound=history.tags.get("elbo", "a bound"),
        failure=f"{history.end['failure']}: {history.end['reason']}" if state == "failed" and history.end else None,
        data_fingerprint=info.get("data_fingerprint"),
        artifacts=result.get("artifacts", {}),
        attempt=history.result_attempt if result else None,
    )


def _selected(history: RunHistory, result: Mapping[str, Any]) -> dict[str, float]:
    """Return what validation said of the selected weights."""
    measured = history.epochs.get(result["best_epoch"], {}) if result else {}
    return {key: value for key, value in measured.items() if key.startswith(("val/", "latent/"))}


def _gpu_hours(run: RunDirectory, history: RunHistory) -> float:
    """Return the GPU-hours of all attempts; only where there are several are their journals read again."""
    if history.attempt:
        return gpu_hours(run)
    return (history.place.get("gpus") or 0.0) * ((history.last_ms or 0) - (history.first_ms or 0)) / 3_600_000
