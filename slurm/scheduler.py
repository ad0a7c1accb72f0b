"""What the scheduler says of the jobs of one name: squeue, else sacct, else nothing, which proves nothing."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from slurm.commands import UnansweredError, ask

State = Literal["pending", "running", "ending", "ended"]

_SQUEUE_FIELDS = "%i|%T|%N|%r|%V|%S"  # id, state, node, reason, submission, start (or the expected one)
_SACCT_FIELDS = "JobID,State,NodeList,Submit,Start"
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_HOLD": "pending",
    "REQUEUE_FED": "pending",
    "SPECIAL_EXIT": "pending",
    "RESV_DEL_HOLD": "pending",
    "CONFIGURING": "running",
    "POWER_UP_NODE": "running",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "ending",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "COMPLETING": "ending",
    "EXPEDITING": "ending",
}  # every other state is final
_ARRAY = re.compile(r"(?P<array>\d+)_\[(?P<tasks>[0-9,:\-]+)(?:%\d+)?\]")
_RECENT = "now-30days"


@dataclass(frozen=True)
class JobState:
    """One job, or one element of an array.

    Attributes:
        job: `123` or `123_4`.
        reason: why a pending job waits, in SLURM's word.
        wait_s: s it waited (or has waited so far) for its node; None: unknown.
    """

    job: str
    state: State
    node: str | None = None
    reason: str | None = None
    wait_s: float | None = None


@dataclass
class Scheduler:
    """Asks for all jobs of one name at most every `interval_s`.

    Attributes:
        name: the jobs' name.
        interval_s: s between two questions; schedulers are shared, and slow when asked often.
        problem: why the last question was not answered.
    """

    name: str
    interval_s: float
    clock: Callable[[], float] = time.monotonic
    problem: str | None = None
    _jobs: dict[str, JobState] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _answered: bool = False

    def jobs(self, *, fresh: bool = False) -> dict[str, JobState] | None:
        """Return job id -> state of the jobs that have not ended; None where the scheduler has never answered.

        Where it stops answering, the last answer stands and `problem` says why.
        """
        if fresh or self.clock() - self._asked_at >= self.interval_s:
            self._ask()
        return self._jobs if self._answered else None

    def state(self, job: str) -> JobState | None:
        """Return the state of a job as last heard, `ended` where it is not among the living; None: unknown."""
        jobs = self.jobs()
        if jobs is None or self.problem is not None:
            return None
        return jobs.get(job, JobState(job, "ended"))

    def submitted(self, jobs: list[str]) -> None:
        """Count jobs that were submitted after the last question as pending."""
        self._jobs |= {job: JobState(job, "pending") for job in jobs}

    def _ask(self) -> None:
        problems = []
        for question in (_squeue, _sacct):
            try:
                self._jobs = question(self.name)
            except (UnansweredError, ValueError) as error:  # or an answer of another form than SLURM's
                problems.append(str(error))
                continue
            self._answered, self.problem = True, None
            break
        else:
            self.problem = "; ".join(problems)
        self._asked_at = self.clock()  # afterwards: a question may take longer than the interval


def _squeue(name: str) -> dict[str, JobState]:
    lines = ask("squeue", "--noheader", "--array", "--name", name, "--format", _SQUEUE_FIELDS).splitlines()
    found = {}
    for line in lines:
        job, state, node, reason, submitted, started = line.split("|")
        kind = _STATES.get(state, "ended")
        if kind != "ended":
            wait_s = _seconds(submitted, None if kind == "pending" else started)
            found[job] = JobState(job, kind, node or None, reason if kind == "pending" else None, wait_s)
    return found


def _sacct(name: str) -> dict[str, JobState]:
    options = ["--noheader", "--allocations", "--parsable2", "--starttime", _RECENT]
    found = {}
    for line in ask("sacct", *options, "--name", name, "--format", _SACCT_FIELDS).splitlines():
        jobs, state, node, submitted, started = line.split("|")
        kind = _STATES.get(state.partition(" ")[0], "ended")  # "CANCELLED by 1000"
        for job in _elements(jobs) if kind != "ended" else []:
            node = node if node != "None assigned" else ""
            found[job] = JobState(job, kind, node or None, None, _seconds(submitted, started))
    return found


def _elements(job: str) -> list[str]:
    """Return the ids that sacct writes as one: `12_[0-2,5%4]` stands for four, `12_[0-6:2]` too."""
    match = _ARRAY.fullmatch(job)
    if match is None:
        return [job]
    tasks: list[int] = []
    for part in match["tasks"].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        tasks += range(int(first), int(last or first) + 1, int(step or 1))
    return [f"{match['array']}_{task}" for task in tasks]


def _seconds(submitted: str, started: str | None) -> float | None:
    """Return the s between two of the scheduler's times; without a start, until now by this machine's clock."""
    try:
        begin = datetime.fromisoformat(submitted)
        end = datetime.fromisoformat(started) if started else datetime.now()
    except ValueError:  # N/A, Unknown
        return None
    return max(0.0, (end - begin).total_seconds())
