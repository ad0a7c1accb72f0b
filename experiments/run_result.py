"""What one run has measured so far, read from its folder alone; imports nothing heavy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.history import RunHistory, read_history, read_info, run_state
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
