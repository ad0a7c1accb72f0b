"""The reconciler behind `vae-sweep run`: whatever it decides follows from the files, so it can be killed at any moment.

It plans trials, queues runs, judges leases, and forwards what the journals say to the ledger, Optuna and MLflow.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.attempts import next_attempt
from experiments.datasets import Datasets
from experiments.failures import FULL_OR_READ_ONLY, OperationError
from experiments.history import HistoryTail, read_info
from experiments.inbox import Request, refuse_malformed, requests
from experiments.launchers import Launcher
from experiments.leases import Leases
from experiments.ledger import Ledger, TrialEnd, TrialRecord
from experiments.optuna_view import OptunaView
from experiments.run_watch import RunWatch
from experiments.study import plan_run
from experiments.sweep import Sweep
from tracking.mlflow_sink import MlflowSink
from tracking.queue import Claim, claims, finish, queued
from tracking.run_directory import StudyDirectory
from vae_core.config import run_id
from vae_core.errors import UserError

_FORWARD_EVERY_S = 2.0
_MAX_FAILED_LOOKS = 10  # in a row
_STATUSES = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


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
        self.mlflow_problem: str | None = None
        self.not_over: str | None = None  # what is not known to have ended, once this was stopped
        self._datasets = datasets
        self._ledger = ledger
        self._view = view
        self._sink = sink
        self.launcher = launcher
        self._show = show
        settings = sweep.file.launcher
        self._leases = Leases(
            study,
            lease_s=settings.lease_s,
            stall_timeout_s=settings.stall_timeout_s,
            patience_s=settings.slurm.requeue_patience_s,
            job_state=launcher.job_state,
        )
        self._stopping = False
        self.stopped_by_request = False  # by `vae-sweep stop`
        self.ends_jobs = not launcher.outlives_coordinator
        self._grid_asked = False
        self._waiting: set[str] = set()
        self._stops: set[Path] = set()  # the requests to stop that were read
        self._remarks: dict[str, str] = {}
        self._failed_looks = 0
        self._problems: dict[str, str] = {}
        for trial in ledger.trials:
            self._watch_trial(trial)
        self._mark_retried()

    def request_stop(self) -> None:
        """Leave after the next look; workers that cannot go on alone write checkpoints. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> bool:
        """Reconcile until the sweep is finished; return False where it was stopped before that.

        A request to stop is removed last, and only if it was met: whoever asked sees by it whether it was.

        Raises:
            OperationError: the study's files could not be read or written in several looks in a row.
        """
        self._look_patiently()
        pace = self.launcher.pace()
        while not self._finished() and not self._stopping:
            next(pace)
            self._look_patiently()
        stopped = not self._finished()
        if self.ends_jobs or not stopped:
            self.launcher.request_stop()
            have_left = self.launcher.wait(timeout_s=60.0 if stopped else 10.0)
            if stopped and not have_left:
                self.not_over = self.launcher.words() or "workers have not left"
        self._observe()
        self._tell()
        self._forward(final=True, stopped=stopped and self.ends_jobs)
        self._show(self)
        for request in self._stops if self.not_over is None else ():
            request.unlink(missing_ok=True)
        return not stopped

    @property
    def trials(self) -> list[TrialRecord]:
        """Return the study's trials."""
        return self._ledger.trials

    @property
    def warning(self) -> str | None:
        """Return the trouble that there is, in one line."""
        return "; ".join([*self._remarks.values(), *filter(None, [self.mlflow_problem])]) or None

    def words(self) -> str | None:
        """Return what there is to say of the jobs, in one line."""
        return self.launcher.words()

    def _look_patiently(self) -> None:
        """Look once; a shared file system fails for a moment now and then, and the next look may succeed."""
        self._remarks.pop("look", None)
        try:
            self._look()
        except OSError as error:
            if error.errno in FULL_OR_READ_ONLY:
                raise
            self._failed_looks += 1
            if self._failed_looks >= _MAX_FAILED_LOOKS:
                raise OperationError(
                    f"{self._failed_looks} looks at the study in a row failed, the last one with: {error}; every "
                    "finished epoch is kept: the same command goes on"
                ) from error
            self._remarks["look"] = f"a look at the study failed and will be repeated: {error}"
            self._show(self)
        else:
            self._failed_looks = 0

    def _look(self) -> None:
        self._read_inbox()
        if self._stopping:
            return
        self._plan()
        self._observe()
        self._care()
        self._tell()
        self._forward(final=False, stopped=False)
        if not self._finished():
            self.launcher.ensure(sum(not watch.ended for watch in self.runs.values()))
        self._show(self)

    def _finished(self) -> bool:
        told = all(trial.state is not None for trial in self._ledger.trials)
        return self._all_asked() and told and all(watch.ended for watch in self.runs.values())

    def _plan(self) -> None:
        """Ask for trials: every cell of a grid at once, of a sampler one ahead of each worker."""
        for trial in self._ledger.trials:  # an earlier look may have failed between the record and the plan
            self._watch_trial(trial)
        if self.sweep.file.sampler == "tpe":
            while not self._all_asked() and self._open_runs() < 2 * self.launcher.workers:
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
            self._remarks["proposal"] = str(error)
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
            claim = watch.claim
            held = self._leases.judge(watch.directory, claim) if claim else None
            watch.running = held == "working"
            if claim and claim.owner and (job := claim.owner.get("job")):
                (self.launcher.lost if held == "lost" else self.launcher.at_work)(job)
            if watch.ended:
                if claim and held == "lost":
                    finish(self.study, claim)
            elif held == "lost" or (claim is None and identifier not in self._waiting):
                next_attempt(self.study, watch, self.sweep.file.launcher.max_retries)

    def _read_inbox(self) -> None:
        """Apply what people have asked for; a request is removed once it is in the ledger or in a run's folder."""
        if self.study.stop_file.exists():  # somebody stopped the study before this process held its lock
            self._stopping = self.ends_jobs = self.stopped_by_request = True
        for remark in refuse_malformed(self.study):
            self._remarks[remark] = remark
        for path, request in requests(self.study):
            if request.what == "stop":
                self._stops.add(path)
                self._stopping = self.ends_jobs = self.stopped_by_request = True
            else:
                self._apply(request)
                path.unlink()

    def _apply(self, request: Request) -> None:
        for identifier in request.runs:
            watch = self.runs.get(identifier)
            if watch is None:
                continue
            watch.changed = watch.tail.poll() or watch.changed  # what is asked for is about the run as it is now
            if request.what == "prune" and not watch.ended:
                watch.directory.prune_file.touch()
            elif request.what == "retry" and watch.state in ("failed", "pruned"):
                watch.directory.prune_file.unlink(missing_ok=True)
                self._ledger.retry(identifier, max(watch.directory.attempts()))
                self._mark_retried()

    def _mark_retried(self) -> None:
        """Make the ledger's retries count for its runs and its trials."""
        for identifier, attempt in self._ledger.retried.items():
            watch = self.runs.get(identifier)
            if watch and watch.retried_after != attempt:
                watch.retried_after, watch.changed, watch.forwarded = attempt, True, False

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
                self._ledger.tell(trial.number, *_unfinished_end(trial, watches))
        self._view.sync()

    def _forward(self, *, final: bool, stopped: bool) -> None:
        """Pass on to MLflow what is new; trouble there becomes a warning and is tried again."""
        now = time.monotonic()
        for watch in self.runs.values():
            due = final or watch.ended or now - watch.forwarded_at > _FORWARD_EVERY_S
            if watch.forwarded or not due or not (watch.changed or final):
                continue
            status = _STATUSES.get(watch.state, "KILLED" if stopped else None)
            report = self._sink.forward(watch.directory, watch.info, final_status=status)
            self._problems.pop(watch.directory.id, None)
            if report.problem is not None:
                self._problems[watch.directory.id] = report.problem
            self.mlflow_problem = next(iter(self._problems.values()), None)
            watch.forwarded_at = now
            watch.changed = report.problem is not None and not report.complete
            watch.forwarded = watch.ended and report.complete


def _unfinished_end(trial: TrialRecord, watches: list[RunWatch]) -> tuple[TrialEnd, float | None]:
    """Return state and value of a trial not all of whose runs came to their end; Optuna values a pruned one by its
    newest report.
    """
    if any(watch.state == "failed" for watch in watches):
        return "FAIL", None
    return "PRUNED", trial.reports[max(trial.reports)] if trial.reports else None
