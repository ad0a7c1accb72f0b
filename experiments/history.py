"""What the attempts of a run add up to, read from its journals; the coordinator, the report and `status` share it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.study_files import read_facts
from tracking.heartbeat import process_is_alive
from tracking.journal import JournalTail, Line
from tracking.queue import claims
from tracking.run_directory import RunDirectory, StudyDirectory, read_chain


@dataclass
class RunHistory:
    """One run as far as it is written down.

    Attributes:
        attempt: number of the newest attempt; None before the first.
        epochs: finished epoch (from 1) -> its metrics.
        seconds: finished epoch -> s it took.
        result: fields of the `result` line: test metrics, verdict, best epoch.
        end: fields of the `end` line: status, failure, reason.
        interrupted: whether the newest attempt stopped because it was asked to.
        place: where the newest attempt runs: host, job, gpus, wait_s.
        start_step: optimizer steps that the newest attempt found done.
        after: how the attempt before the newest one ended, interrupted or lost; None: there is none.
        lost: why the newest attempt could not go on, where the machine said so.
        last_ms: time of the newest line, ms since 1970.
    """

    attempt: int | None = None
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    result_attempt: int | None = None
    end: dict[str, Any] | None = None
    interrupted: bool = False
    place: dict[str, Any] = field(default_factory=dict)
    start_step: int = 0
    after: str | None = None
    lost: str | None = None
    first_ms: int | None = None
    last_ms: int | None = None

    def apply(self, attempt: int, line: Line) -> None:
        """Take in the next line of the run's chain."""
        self.first_ms = self.first_ms or line.time_ms
        self.last_ms = line.time_ms
        match line.kind:
            case "attempt":
                self.attempt, self.interrupted, self.end, self.lost = attempt, False, None, None
                self.tags = line.fields["tags"]
                self.start_step = line.fields["start_step"]
                self.after = line.fields.get("after")
                self.place = {name: line.fields.get(name) for name in ("host", "job", "gpus", "wait_s")}
            case "epoch":
                self.epochs[line.fields["epoch"]] = line.fields["metrics"]
                self.seconds[line.fields["epoch"]] = line.fields["seconds"]
            case "interrupted":
                self.interrupted = True
            case "lost":
                self.lost = line.fields["reason"]
            case "result":
                self.result, self.result_attempt = line.fields, attempt
            case "end":
                self.end = line.fields

    @property
    def status(self) -> str | None:
        """Return `done`, `failed` or `pruned` for a run that has ended, else None."""
        return str(self.end["status"]) if self.end else None

    def metric_at_best(self, name: str) -> float:
        """Return a val metric of the selected checkpoint; only for a run that has a result."""
        if self.result is None:
            raise ValueError("the run has no result yet")
        return self.epochs[self.result["best_epoch"]][name]


def run_state(history: RunHistory, is_held: bool) -> Literal["waiting", "running", "done", "failed", "pruned"]:
    """Return where a run is, as people see it; `is_held`: a worker that may be alive has claimed it."""
    if history.status == "done":
        return "done"
    if history.status == "failed":
        return "failed"
    if history.status == "pruned":
        return "pruned"
    return "running" if is_held and not history.interrupted else "waiting"


def held_runs(study: StudyDirectory) -> set[str]:
    """Return the ids of the runs that a worker has claimed which is not known to be dead."""
    return {
        claim.entry.run for claim in claims(study) if claim.owner is None or process_is_alive(claim.owner) is not False
    }


def read_history(run: RunDirectory) -> RunHistory:
    """Return the run's history as it is now."""
    history = RunHistory()
    for link in read_chain(run):
        history.apply(link.attempt, link.line)
    return history


def read_info(run: RunDirectory) -> dict[str, Any]:
    """Return what `run.json` says: trial, seed, cell, swept values, data fingerprint, number of epochs.

    Raises:
        UserError: it cannot be read.
    """
    return read_facts(run.info_file)


class HistoryTail:
    """Keeps a run's history up to date while it is being written."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._attempt: int | None = None
        self._tail: JournalTail | None = None
        self.history = RunHistory()

    def poll(self) -> bool:
        """Read what is new; return whether anything was."""
        attempts = self._run.attempts()
        if attempts and attempts[-1] != self._attempt:
            return self._follow(attempts[-1])
        if self._tail is None or self._attempt is None:
            return False
        lines = self._tail.poll()
        for line in lines:
            self.history.apply(self._attempt, line)
        return bool(lines)

    def _follow(self, attempt: int) -> bool:
        """Switch to a newer attempt once it has its first line."""
        tail = JournalTail(self._run.attempt(attempt).journal_file)
        lines = tail.poll()
        if not lines:
            return False
        history = RunHistory()
        for link in read_chain(self._run):
            if link.attempt < attempt or link.line.n <= lines[-1].n:
                history.apply(link.attempt, link.line)
        self._attempt, self._tail, self.history = attempt, tail, history  # all at once: a file may not be readable now
        return True
