"""Who still works on a run: what its worker's files, its process and the scheduler say together."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Literal

from experiments.worker import presence_file
from tracking.heartbeat import Lease, LeaseWatch, process_is_alive
from tracking.queue import Claim
from tracking.run_directory import RunDirectory, StudyDirectory

Held = Literal["working", "returning", "lost"]
JobState = Literal["pending", "running", "ending", "ended"]

_POLLS = 10  # looks without a change before a heartbeat counts as silent
_QUIET_S = 5.0  # the same where the scheduler knows that the job is over


class Leases:
    """Judges claims. A worker that is wrongly given up does no harm: nobody reads what it writes.

    Args:
        study: the study's folder.
        lease_s: s without a heartbeat after which a worker elsewhere is given up.
        stall_timeout_s: s without progress after which a worker on this machine is killed.
        patience_s: s that a run waits for its own requeued job.
        job_state: what the scheduler says of a job; None: it does not answer.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        study: StudyDirectory,
        *,
        lease_s: float,
        stall_timeout_s: float,
        patience_s: float,
        job_state: Callable[[str], JobState | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._lease_s = lease_s
        self._stall_timeout_s = stall_timeout_s
        self._patience_s = patience_s
        self._job_state = job_state
        self._clock = clock
        self._watch = LeaseWatch(clock)
        self._away_since: dict[tuple[str, int], float] = {}

    def judge(self, run: RunDirectory, claim: Claim) -> Held:
        """Return whether the claim's worker is at work, will come back with its job, or is lost."""
        lease = self._watch.observe(run, claim.entry.attempt)
        owner = claim.owner
        alive = process_is_alive(owner) if owner else None
        if owner and alive:
            if lease.progress_unchanged_s > self._stall_timeout_s:
                _kill(owner)  # its death is seen at the next look
            return "working"
        held: Held
        if owner and owner.get("job"):
            held = self._judge_job(owner["job"], claim, lease)
        else:
            held = "lost" if alive is False or _is_silent(lease, self._lease_s) else "working"
        if held == "returning":
            return self._awaited(run, claim)
        self._away_since.pop((run.id, claim.entry.attempt), None)
        return held

    def _judge_job(self, job: str, claim: Claim, lease: Lease) -> Held:
        presence = presence_file(self._study, claim.worker)
        is_present = presence.exists()  # asked before the other: it is renamed
        if presence.with_suffix(".requeued").exists():
            return "lost" if self._job_state(job) == "ended" else "returning"
        if not is_present:
            return "lost"
        if not _is_silent(lease, _QUIET_S):
            return "working"
        match self._job_state(job):
            case "ended":
                return "lost"
            case None:
                return "lost" if _is_silent(lease, self._lease_s) else "working"
            case _:  # killed and queued again by SLURM, or back and not yet at work
                return "returning" if _is_silent(lease, self._lease_s) else "working"

    def _awaited(self, run: RunDirectory, claim: Claim) -> Held:
        since = self._away_since.setdefault((run.id, claim.entry.attempt), self._clock())
        return "returning" if self._clock() - since < self._patience_s else "lost"


def _is_silent(lease: Lease, seconds: float) -> bool:
    return lease.alive_unchanged_s > seconds and lease.polls_unchanged >= _POLLS


def _kill(owner: dict[str, Any]) -> None:
    """Kill a worker on this machine; an inline worker is this process and is left alone."""
    if owner["pid"] != os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner["pid"], signal.SIGKILL)
