"""What a study has measured so far, read from its folder alone; imports nothing heavy."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.exact_values import exactly
from experiments.history import held_runs
from experiments.ledger import TrialRecord, read_trials
from experiments.run_readers import RunKey, read_runs
from experiments.run_result import STATES, RunResult, State
from experiments.study_files import read_facts, read_sweep
from tracking.run_directory import StudyDirectory


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
    trials = read_trials(study)
    runs = iter(read_runs(study, [RunKey(run, seed, run in held) for trial in trials for run, seed in trial.runs]))
    cells = tuple(_cell(trial, tuple(itertools.islice(runs, len(trial.runs))), baseline, grid) for trial in trials)
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
    trial: TrialRecord, runs: tuple[RunResult, ...], baseline: Mapping[str, Any], grid: list[dict[str, Any]] | None
) -> CellResult:
    is_baseline = bool(baseline) and all(
        exactly(trial.params.get(path)) == exactly(value) for path, value in baseline.items()
    )
    vanished = grid is not None and trial.params not in grid
    return CellResult(trial.number, trial.cell, trial.params, runs, is_baseline, vanished)
