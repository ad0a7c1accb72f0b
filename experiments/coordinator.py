"""The reconciler behind `vae-sweep run`: whatever it decides follows from the files, so it can be killed at any moment.

It plans trials, queues runs, judges leases, and forwards what the journals say to the ledger, Optuna and MLflow.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.datasets import Datasets
from experiments.history import HistoryTail, RunHistory, read_info
from experiments.launchers import Launcher
from experiments.ledger import Ledger, TrialRecord
from experiments.optuna_view import OptunaView
from experiments.study import plan_run
from experiments.sweep import Sweep
from tracking.checkpoints import newest_checkpoint
from tracking.heartbeat import LeaseWatch, process_identity, process_is_alive
from tracking.journal import JournalWriter, read_journal
from tracking.mlflow_sink import MlflowSink
from tracking.queue import Claim, QueueEntry, claims, enqueue, finish, queued, withdraw
from tracking.run_directory import RunDirectory, StudyDirectory
from vae_core.config import run_id
from vae_core.errors import UserError

State = Literal["waiting", "running", "done", "failed"]
_FORWARD_EVERY_S = 2.0
_LEASE_POLLS = 10


@dataclass
class RunWatch:
    """One planned run: where it is, what it has written, and what of that has been passed on."""

    directory: RunDirectory
    info: dict[str, Any]
    order: int
    tail: HistoryTail
    running: bool = False
    claim: Claim | None = None
    changed: bool = True
    forwarded: bool = False  # everything, the end included, is in MLflow
    forwarded_at: float = field(default=float("-inf"))

    @property
    def history(self) -> RunHistory:
        """Return what the run's journals say."""
        return self.tail.history

    @property
    def state(self) -> State:
        """Return the run's state as people see it."""
        status = self.history.status
        if status == "done":
            return "done"
        if status == "failed" and not self.retries_memory:
            return "failed"
        return "running" if self.running else "waiting"

    @property
    def retries_memory(self) -> bool:
        """Return whether the run ended out of memory at its full pixel budget, which is tried once with half."""
        end = self.history.end
        return bool(end and end["failure"] == "oom" and end["pixel_budget_scale"] == 1.0)

    @property
    def ended(self) -> bool:
        """Return whether no further attempt will be made."""
        return self.state in ("done", "failed")


class Coordinator:
    """Drives one study until every trial has been told.

    Args:
        study: the study's folder, opened and locked by the caller.
        sweep: the sweep.
        datasets: the prepared data sets, for run ids.
        ledger: the study's trials.
        view: the Optuna study.
        sink: the MLflow experiment.
        launcher: where workers run.
        show: called with every look, for the live table.
    """

    def __init__(
        self,
        study: StudyDirectory,
        sweep: Sweep,
        datasets: Datasets,
        ledger: Ledger,
        view: OptunaView,
        sink: MlflowSink,
        launcher: Launcher,
        show: Callable[["Coordinator"], None],
    ) -> None:
        self.study = study
        self.sweep = sweep
        self.runs: dict[str, RunWatch] = {}
        self.warning: str | None = None
        self._datasets = datasets
        self._ledger = ledger
        self._view = view
        self._sink = sink
        self._launcher = launcher
        self._show = show
        self._leases = LeaseWatch()
        self._stopping = False
        self._grid_asked = False
        self._waiting: set[str] = set()
        self._problems: dict[str, str] = {}
        for trial in ledger.trials:
            self._watch_trial(trial)

    def request_stop(self) -> None:
        """Stop after the next look; workers write checkpoints. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> bool:
        """Reconcile until the sweep is finished; return False where it was stopped before that."""
        self._look()
        pace = self._launcher.pace()
        while not self._finished() and not self._stopping:
            next(pace)
            self._look()
        stopped = not self._finished()
        self._launcher.request_stop()
        self._launcher.wait(timeout_s=60.0 if stopped else 10.0)
        self._observe()
        self._tell()
        self._forward(final=True, stopped=stopped)
        self._show(self)
        return not stopped

    @property
    def trials(self) -> list[TrialRecord]:
        """Return the study's trials."""
        return self._ledger.trials

    def _look(self) -> None:
        self._plan()
        self._observe()
        self._care()
        self._tell()
        self._forward(final=False, stopped=False)
        if not self._finished():
            self._launcher.ensure(sum(not watch.ended for watch in self.runs.values()))
        self._show(self)

    def _finished(self) -> bool:
        told = all(trial.state is not None for trial in self._ledger.trials)
        return self._all_asked() and told and all(watch.ended for watch in self.runs.values())

    def _plan(self) -> None:
        """Ask for trials: every cell of a grid at once, of a sampler one ahead of each worker."""
        if self.sweep.file.sampler == "tpe":
            while not self._all_asked() and self._open_runs() < 2 * self._launcher.workers:
                self._ask_proposed(self._view.propose())
        elif not self._grid_asked:
            asked = [trial.params for trial in self._ledger.trials]
            for params in self.sweep.grid():
                if params not in asked:
                    self._ask(params)
            self._grid_asked = True

    def _all_asked(self) -> bool:
        return self._grid_asked or len(self._ledger.trials) >= (self.sweep.file.trials or float("inf"))

    def _open_runs(self) -> int:
        return sum(not watch.ended for watch in self.runs.values())

    def _ask_proposed(self, params: Mapping[str, Any]) -> None:
        """Ask for what the sampler proposes; values that the config refuses together are a failed trial."""
        try:
            self._ask(params)
        except UserError as error:
            self.warning = str(error)
            trial = self._ledger.ask(params, self.sweep.cell_name(params), [])
            self._ledger.tell(trial.number, "FAIL", None)
            self._view.sync()

    def _ask(self, params: Mapping[str, Any]) -> None:
        configs = [(seed, self.sweep.config(params, seed)) for seed in self.sweep.seeds]
        runs = [(run_id(config, self._datasets.of(config).fingerprint), seed) for seed, config in configs]
        trial = self._ledger.ask(params, self.sweep.cell_name(params), runs)
        self._view.sync()
        self._watch_trial(trial)

    def _watch_trial(self, trial: TrialRecord) -> None:
        """Follow the trial's runs; a run that an earlier trial has made is shared, not repeated."""
        for identifier, seed in trial.runs:
            if identifier in self.runs:
                continue
            config = self.sweep.config(trial.params, seed)
            directory = plan_run(self.study, trial, config, identifier, self._datasets.of(config))
            self.runs[identifier] = RunWatch(directory, read_info(directory), len(self.runs), HistoryTail(directory))

    def _observe(self) -> None:
        """Read what the workers wrote since the last look.

        Entries move from queue/ to claimed/ to an ended journal: looking in this order cannot miss one on its way.
        """
        self._waiting = {entry.run for entry in queued(self.study)}
        held: dict[str, Claim] = {}
        for claim in sorted(claims(self.study), key=lambda claim: claim.entry.attempt):
            held[claim.entry.run] = claim
        for identifier, watch in self.runs.items():
            watch.claim = held.get(identifier)
            if not watch.ended and watch.tail.poll():
                watch.changed = True

    def _care(self) -> None:
        """Give every run that is neither ended, queued nor held by a living worker its next attempt."""
        for identifier, watch in self.runs.items():
            watch.running = False
            claim = watch.claim
            if watch.ended:
                if claim and not self._holds(watch, claim):
                    finish(self.study, claim)
            elif claim and self._holds(watch, claim):
                watch.running = True
            elif identifier not in self._waiting:
                self._next_attempt(watch)
            elif claim:
                withdraw(self.study, claim)  # killed between queueing the next attempt and this

    def _holds(self, watch: RunWatch, claim: Claim) -> bool:
        """Return whether the claim's worker is alive and at work on it."""
        lease = self._leases.observe(watch.directory, claim.entry.attempt)
        settings = self.sweep.file.launcher
        alive = process_is_alive(**claim.owner) if claim.owner else None
        if alive and lease.progress_unchanged_s > settings.stall_timeout_s and not watch.ended:
            _kill(claim)
            return True  # its death is seen at the next look
        if alive is None:
            silent = lease.alive_unchanged_s > settings.lease_s and lease.polls_unchanged >= _LEASE_POLLS
            return not silent
        return alive

    def _next_attempt(self, watch: RunWatch) -> None:
        watch.changed = watch.tail.poll() or watch.changed
        if watch.ended:  # the worker came to the end, and left, after the last look at its journal
            return
        attempts = watch.directory.attempts()
        held = watch.claim.entry.attempt if watch.claim else -1
        number = max([*attempts, held, -1]) + 1
        if self._lost_in_a_row(watch, attempts) > self.sweep.file.launcher.max_retries:
            self._give_up(watch, number)
        else:
            scale = 0.5 if watch.retries_memory else _scale(watch)
            enqueue(self.study, QueueEntry(watch.directory.id, number, watch.order, scale))
        if watch.claim:
            withdraw(self.study, watch.claim)

    def _lost_in_a_row(self, watch: RunWatch, attempts: list[int]) -> int:
        """Return how many of the newest attempts ended without a checkpoint."""
        lost = 0
        for number in reversed(attempts):
            kinds = {line.kind for line in read_journal(watch.directory.attempt(number).journal_file)}
            if kinds & {"checkpoint", "interrupted"}:
                break
            lost += 1
        return lost

    def _give_up(self, watch: RunWatch, number: int) -> None:
        """Record, as an attempt of its own, that the machine and not the run is to blame."""
        found = newest_checkpoint(watch.directory, number)
        identity = process_identity()
        retries = self.sweep.file.launcher.max_retries
        with JournalWriter(watch.directory.attempt(number).journal_file) as journal:
            journal.append(
                "attempt",
                attempt=number,
                worker="coordinator",
                host=identity["host"],
                pid=identity["pid"],
                device=None,
                continues={"attempt": found.attempt, "n": found.covers} if found else None,
                start_step=found.step if found else 0,
                tags=watch.history.tags,
            )
            reason = (
                f"{retries + 1} attempts in a row were lost without a new checkpoint; "
                f"the workers' logs are in {self.study.workers}"
            )
            journal.append("end", status="failed", failure="infrastructure", reason=reason, traceback=None)

    def _tell(self) -> None:
        """Report the first seed's curve and tell the trials whose runs have all ended."""
        metric = self.sweep.file.objective.metric
        for trial in self._ledger.trials:
            if trial.state is not None:
                continue
            watches = [self.runs[identifier] for identifier, _ in trial.runs]
            if not watches:  # killed between the record of an impossible proposal and its end
                self._ledger.tell(trial.number, "FAIL", None)
                continue
            for epoch, metrics in watches[0].history.epochs.items():
                if metric in metrics:
                    self._ledger.report(trial.number, epoch, metrics[metric])
            if all(watch.state == "done" for watch in watches):
                values = [watch.history.metric_at_best(metric) for watch in watches]
                self._ledger.tell(trial.number, "COMPLETE", sum(values) / len(values))
            elif all(watch.ended for watch in watches):
                self._ledger.tell(trial.number, "FAIL", None)
        self._view.sync()

    def _forward(self, *, final: bool, stopped: bool) -> None:
        """Pass on to MLflow what is new; trouble there becomes a warning and is tried again."""
        now = time.monotonic()
        for watch in self.runs.values():
            due = final or watch.ended or now - watch.forwarded_at > _FORWARD_EVERY_S
            if watch.forwarded or not due or not (watch.changed or final):
                continue
            status = {"done": "FINISHED", "failed": "FAILED"}.get(watch.state, "KILLED" if stopped else None)
            report = self._sink.forward(watch.directory, watch.info, final_status=status)
            self._problems.pop(watch.directory.id, None)
            if report.problem is not None:
                self._problems[watch.directory.id] = report.problem
            self.warning = next(iter(self._problems.values()), None)
            watch.forwarded_at = now
            watch.changed = report.problem is not None and not report.complete
            watch.forwarded = watch.ended and report.complete


def _scale(watch: RunWatch) -> float:
    """Return the share of the pixel budget that the run has come down to."""
    return watch.claim.entry.pixel_budget_scale if watch.claim else 1.0


def _kill(claim: Claim) -> None:
    """Kill the worker that holds the claim, on this machine; an inline worker is this process and is left alone."""
    if claim.owner and claim.owner["pid"] != os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(claim.owner["pid"], signal.SIGKILL)
