"""Workers in SLURM jobs: submits as many as there is work for, and knows from the scheduler which are alive."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from experiments.launchers import LauncherError
from experiments.leases import JobState
from experiments.slurm_logs import submitted_jobs
from experiments.slurm_names import job_name
from experiments.slurm_pauses import FruitlessJobs, Pause
from experiments.sweep_file import LauncherConfig
from slurm.errors import SlurmError
from slurm.host import JobHost
from slurm.scheduler import UNKNOWN_FOR_S, Scheduler
from slurm.scheduler import JobState as SlurmJob
from slurm.settings import SlurmSettings
from slurm.submission import RefusedError, Submission, cancel
from tracking.run_directory import StudyDirectory

_LONGEST_PACE_S = 1.0
_MAX_REFUSALS = 6  # over about two minutes
_NEVER = float("-inf")
_HELD_BY_USER = "JobHeldUser"


def worker_submission(
    study: StudyDirectory, launcher: LauncherConfig, threads: int, data: list[Path], code: Path | None
) -> Submission:
    """Return what is submitted for workers of a study.

    Args:
        study: its folder.
        launcher: the sweep's launcher section.
        threads: CPU threads of a worker.
        data: folders of prepared data sets, for `stage_data`.
        code: the snapshot that the jobs run; None: the installed packages.
    """
    settings = launcher.slurm
    command = ["{python}", "-m", "experiments.worker", str(study.path), "--name", "{name}", "--job", "{job}"]
    command += ["--gpus", str(1 / settings.workers_per_gpu if settings.gpus else 0)]
    command += ["--wait-s", "{wait_s}", "--seconds-left", "{seconds_left}"]
    command += ["--idle-timeout-s", str(launcher.idle_timeout_s), "--stall-timeout-s", str(launcher.stall_timeout_s)]
    if settings.runs_per_job is not None:
        command += ["--max-runs", str(settings.runs_per_job)]
    host = JobHost(
        command=tuple(command),
        presence=str(study.workers),
        slots=settings.slots,
        workers_per_gpu=settings.workers_per_gpu,
        signal_delay_s=settings.signal_delay_s,
    )
    return Submission(job_name(study), study.slurm, host, settings, code, threads, data)


class SlurmLauncher:
    """Job arrays of workers; they go on, and come back when preempted, while no coordinator is there.

    Args:
        study: the study's folder.
        submission: what a job is.
    """

    outlives_coordinator = True

    def __init__(self, study: StudyDirectory, submission: Submission) -> None:
        self._study = study
        self._submission = submission
        self._settings: SlurmSettings = submission.settings
        self._scheduler = Scheduler(submission.name, self._settings.poll_s)
        self._scheduler.submitted(submitted_jobs(study, newer_than_s=UNKNOWN_FOR_S))
        self._submitted: set[str] = set()
        self._lost: set[str] = set()
        self._worked: set[str] = set()
        self._fruitless = FruitlessJobs(study, submission.name)
        self._refusals = Pause()
        self._refused_at = _NEVER
        self._live_at_refusal: set[str] = set()
        self._most: int | None = None  # jobs at once, after a refusal
        self._uncancelled: str | None = None
        self.workers = self._settings.slots * self._settings.array_parallelism

    def ensure(self, wanted: int) -> None:
        """Submit jobs until there are enough for `wanted` open runs.

        Beside living jobs, whose arrays have throttles of their own, only as many as may run at once.

        Raises:
            LauncherError: SLURM refuses again and again, or job after job ended before it could work.
        """
        live = self._live()
        heard_at = self._scheduler.heard_at
        if self._refusals.times:
            self._submitted |= live - self._live_at_refusal  # sbatch had queued them all the same
        self._notice_ends(live)
        new = self.needed(wanted) - len(live)
        if live:
            new = min(new, self._settings.array_parallelism - len(live))
        if new <= 0:
            self._accepted([])
        elif self._may_submit(live, heard_at):
            most = 1 if self._fruitless.pause.times else self._most
            self._submit(new if most is None else min(new, most), live)

    def _may_submit(self, live: set[str], heard_at: float) -> bool:
        """Return whether no pause lasts, and it is known what became of the jobs that were submitted before."""
        if not (self._refusals.is_over and self._fruitless.pause.is_over):
            return False
        if self._fruitless.pause.times and self._submitted & live - self._worked:
            return False  # the one that is tried
        return heard_at > self._refused_at or heard_at == _NEVER

    def _submit(self, jobs: int, live: set[str]) -> None:
        try:
            self._accepted(self._submission.submit(jobs))
        except RefusedError as error:
            self._take_note(error.accepted)
            self._refused(error, live | set(error.accepted), jobs)

    def _accepted(self, jobs: list[str]) -> None:
        self._refusals.reset()
        self._refused_at = _NEVER
        self._most = None
        self._take_note(jobs)

    def _take_note(self, jobs: list[str]) -> None:
        self._submitted |= set(jobs)
        self._scheduler.submitted(jobs)

    def _refused(self, error: SlurmError, live: set[str], asked: int) -> None:
        """Wait before the next attempt, ever longer, and ask for less; jobs that are there go on meanwhile."""
        answers = self._scheduler.problem is None and self._scheduler.heard_at > _NEVER
        if self._refusals.times >= _MAX_REFUSALS and answers and not live:
            raise LauncherError(f"{error}; {self._refusals.times + 1} times in a row") from error
        self._refusals.begin(str(error))
        self._refused_at = self._scheduler.clock()
        self._live_at_refusal = live
        self._most = max(1, asked // 2)  # a limit on jobs may lie below array_parallelism

    def needed(self, wanted: int) -> int:
        """Return how many jobs `wanted` open runs are worth."""
        settings = self._settings
        if settings.runs_per_job is not None:
            return math.ceil(wanted / (settings.slots * settings.runs_per_job))
        return min(math.ceil(wanted / settings.slots), settings.array_parallelism)

    def pace(self) -> Iterator[None]:
        """Sleep between two looks; a shared file system is asked more rarely than a local one."""
        while True:
            time.sleep(min(_LONGEST_PACE_S, self._settings.poll_s))
            yield

    def job_state(self, job: str) -> JobState | None:
        """Return what the scheduler says of a job; None: it does not answer."""
        state = self._scheduler.state(job)
        return state.state if state else None

    def at_work(self, job: str) -> None:
        """Take note that a worker of this job has a run."""
        self._has_worked(job)
        self._lost.discard(job)

    def lost(self, job: str) -> None:
        """Take note that a worker of this job is lost: where the scheduler is silent, the job counts as ended."""
        self._has_worked(job)
        self._lost.add(job)

    def _has_worked(self, job: str) -> None:
        if job not in self._worked:  # that one goes on working says nothing of new ones
            self._worked.add(job)
            self._fruitless.reset()

    def words(self) -> str | None:
        """Return how many jobs run where, how many wait and why, or why that is not known, and what is wrong."""
        if self._scheduler.problem is not None:
            words = f"the scheduler does not answer ({self._scheduler.problem}); the journals decide"
        else:
            words = self._job_words()
        refusal = self._refusals.words("whether SLURM has the jobs all the same is being asked")
        fruitless = self._fruitless.pause.words("one job at a time is tried")
        return "; ".join(part for part in (words, fruitless, refusal, self._uncancelled) if part) or None

    def _job_words(self) -> str:
        jobs = (self._scheduler.jobs() or {}).values()
        running = Counter(job.node or "?" for job in jobs if job.state == "running")
        held = [job for job in jobs if job.held]
        pending = [job for job in jobs if job.state == "pending" and not job.held]
        words = []
        if running:
            nodes = ", ".join(f"{count} on {node}" for node, count in sorted(running.items()))
            words.append(f"{running.total()} running ({nodes})")
        if pending:
            reasons = ", ".join(sorted({job.reason for job in pending if job.reason})) or "submitted"
            longest_s = max((job.wait_s or 0.0) for job in pending)
            words.append(f"{len(pending)} waiting ({reasons}), the longest for {longest_s:.0f} s")
        if held:
            reasons = ", ".join(sorted({job.reason for job in held if job.reason})) or "no reason given"
            words.append(f"{len(held)} held ({reasons}): scontrol release {' '.join(job.job for job in held)}")
        return "jobs: " + "; ".join(words) if words else ""

    def request_stop(self) -> None:
        """Have workers write checkpoints and leave, and cancel the jobs that have not begun."""
        self._study.stop_file.touch()
        self._cancel(self._waiting(self._jobs(fresh=True)))

    def wait(self, timeout_s: float) -> bool:
        """Wait until every job has ended; cancel what is left after `timeout_s`; return whether they all had."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            jobs = self._jobs(fresh=True)
            if self._scheduler.problem is not None:
                return False
            if not jobs:
                return True
            if len(waiting := self._waiting(jobs)) == len(jobs):  # requeued by a worker that was just told to stop
                self._cancel(waiting)
            time.sleep(min(_LONGEST_PACE_S, self._settings.poll_s))
        self._cancel(list(self._jobs(fresh=True)))
        return False

    def _cancel(self, jobs: list[str]) -> None:
        """Cancel jobs; where that does not work, `words` says how to do it by hand."""
        try:
            cancel(jobs)
        except SlurmError as error:
            self._uncancelled = f"{error}; to end the jobs by hand: scancel --name {self._submission.name}"
        else:
            self._scheduler.cancelled(jobs)

    def _jobs(self, *, fresh: bool = False) -> dict[str, SlurmJob]:
        """Return the jobs that have not ended; one that the scheduler does not show has if it or its worker is over."""
        jobs = self._scheduler.jobs(fresh=fresh) or {}
        return {job: state for job, state in jobs.items() if self._scheduler.shows(job) or not self._is_over(job)}

    def _waiting(self, jobs: dict[str, SlurmJob]) -> list[str]:
        """Return which jobs may be cancelled without a loss; a new one may have begun unheard."""
        waiting = [job for job, state in jobs.items() if state.state == "pending"]
        return [job for job in waiting if self._scheduler.shows(job) or self._outcome(job) is None]

    def _live(self) -> set[str]:
        """Return the ids of the jobs that run or will run; one that its user holds will, when the user wants it.

        Where the scheduler is silent, a job lives until it has said that it left, or its worker was given up.
        """
        if self._scheduler.jobs() is None:
            return {job for job in submitted_jobs(self._study) if not self._is_over(job)}
        jobs = self._jobs()
        return {job for job, state in jobs.items() if not state.held or state.reason == _HELD_BY_USER}

    def _is_over(self, job: str) -> bool:
        return job in self._lost or self._outcome(job) in ("left", "crashed")

    def _outcome(self, job: str) -> str | None:
        """Return what the newest execution of a job said of itself."""
        found = sorted(self._study.slurm.glob(f"*/{job}.*.outcome"), key=lambda path: path.name)
        return found[-1].read_text(encoding="utf-8") if found else None

    def _notice_ends(self, live: set[str]) -> None:
        """Give up where job after job comes to nothing; while others are at work, only pause."""
        held = {job: state.reason or "held" for job, state in (self._scheduler.jobs() or {}).items() if state.held}
        for job in sorted(self._submitted - live):
            self._submitted.remove(job)
            outcome = self._outcome(job)
            if outcome == "left":
                self._fruitless.reset()
            elif job not in self._worked:
                self._fruitless.add(job, outcome, held.get(job), alone=not live)
