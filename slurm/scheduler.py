"""What the scheduler says of the jobs of one name: squeue, else sacct, else nothing, which proves nothing."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from slurm.commands import UnansweredError, ask

UNKNOWN_FOR_S = 120.0  # age of a job of which squeue, cached or slow, may not know yet

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
_HELD_STATES = {"REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_HELD_REASONS = re.compile("held|JobHold", re.IGNORECASE)  # JobHeldAdmin, "launch failed requeued held", ...


@dataclass(frozen=True)
class JobState:
    """One job, or one element of an array.

    Attributes:
        job: `123` or `123_4`.
        reason: why a pending job waits, in SLURM's word.
        wait_s: s it waited (or has waited so far) for its node; None: unknown.
        held: whether it will not run before somebody releases it.
    """

    job: str
    state: State
    node: str | None = None
    reason: str | None = None
    wait_s: float | None = None
    held: bool = False


@dataclass
class Scheduler:
    """Asks for all jobs of one name at most every `interval_s`.

    squeue knows which jobs live, but of new ones perhaps not at once. sacct, asked where squeue does not answer, may
    lag behind: a job that it does not count as living is over only where squeue has never answered.

    Attributes:
        name: the jobs' name.
        interval_s: s between two questions; schedulers are shared, and slow when asked often.
        problem: why the last question was not answered.
        heard_at: when it was last heard which jobs live, by `clock`; -inf: never.
    """

    name: str
    interval_s: float
    clock: Callable[[], float] = time.monotonic
    problem: str | None = None
    heard_at: float = float("-inf")
    _jobs: dict[str, JobState] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)
    _new: dict[str, float] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _answered: bool = False
    _squeue_answers: bool = False
    _says_all: bool = False

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
        if job in jobs and (job in self._shown or job in self._new):
            return jobs[job]
        return JobState(job, "ended") if self._says_all else None

    def shows(self, job: str) -> bool:
        """Return whether the last answer counts the job as living; otherwise it is only believed to live."""
        return self.problem is None and job in self._shown

    def submitted(self, jobs: Iterable[str]) -> None:
        """Count jobs as pending until squeue knows of them, which it does within minutes or not at all."""
        self._new |= dict.fromkeys(jobs, self.clock())
        self._jobs |= {job: JobState(job, "pending") for job in self._new if job not in self._jobs}

    def cancelled(self, jobs: Iterable[str]) -> None:
        """Count jobs no longer as pending if squeue does not know of them."""
        for job in jobs:
            self._new.pop(job, None)

    def _ask(self) -> None:
        problems = []
        for question in (_squeue, _sacct):
            try:
                answer = question(self.name)
            except (UnansweredError, ValueError) as error:  # or an answer of another form than SLURM's
                problems.append(str(error))
                continue
            self._hear(answer, from_squeue=question is _squeue)
            break
        else:
            self.problem = "; ".join(problems)
        self._asked_at = self.clock()  # afterwards: a question may take longer than the interval

    def _hear(self, answer: dict[str, JobState], *, from_squeue: bool) -> None:
        now = self.clock()
        self._answered, self.problem = True, None
        self._squeue_answers |= from_squeue
        self._says_all = from_squeue or not self._squeue_answers
        if self._says_all:
            self.heard_at = now
            still_new = {job: since for job, since in self._new.items() if now - since < UNKNOWN_FOR_S}
            self._new = {job: since for job, since in still_new.items() if job not in answer}
        living = {job: state for job, state in answer.items() if state.state != "ended"}
        self._shown = set(living)
        believed = self._new if self._says_all else self._jobs
        self._jobs = {job: self._jobs[job] for job in believed} | living


def _squeue(name: str) -> dict[str, JobState]:
    """Return the living jobs and those that ended a moment ago, so that a short one is seen at all."""
    options = ["--noheader", "--array", "--states", "all", "--name", name]
    found = {}
    for line in ask("squeue", *options, "--format", _SQUEUE_FIELDS).splitlines():
        job, state, node, reason, submitted, started = line.split("|")
        kind = _STATES.get(state, "ended")
        waits = kind == "pending"
        wait_s = _seconds(submitted, None if waits else started)
        held = waits and (state in _HELD_STATES or _HELD_REASONS.search(reason) is not None)
        found[job] = JobState(job, kind, node or None, reason if waits else None, wait_s, held)
    return found


def _sacct(name: str) -> dict[str, JobState]:
    options = ["--noheader", "--allocations", "--parsable2", "--starttime", _RECENT]
    found = {}
    for line in ask("sacct", *options, "--name", name, "--format", _SACCT_FIELDS).splitlines():
        jobs, state, node, submitted, started = line.split("|")
        kind = _STATES.get(state.partition(" ")[0], "ended")  # "CANCELLED by 1000"
        for job in _elements(jobs):
            node = node if node != "None assigned" else ""
            wait_s = _seconds(submitted, started)
            found[job] = JobState(job, kind, node or None, None, wait_s, state in _HELD_STATES)
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
