"""Workers in SLURM jobs: submits as many as there is work for, and knows from the scheduler which are alive."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from experiments.launchers import LauncherError
from experiments.leases import JobState
from experiments.slurm_logs import newest_log, submitted_jobs
from experiments.sweep_file import LauncherConfig
from slurm.errors import SlurmError
from slurm.host import JobHost
from slurm.scheduler import Scheduler
from slurm.settings import SlurmSettings
from slurm.submission import Submission, cancel
from tracking.run_directory import StudyDirectory

_LONGEST_PACE_S = 1.0
_MAX_FAILED = 3
_LOG_TAIL_CHARACTERS = 2000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0
_MAX_REFUSALS = 6  # over about two minutes


def job_name(study: StudyDirectory) -> str:
    """Return the name of a study's jobs, by which the scheduler is asked for them."""
    place = hashlib.sha256(str(study.path.absolute()).encode()).hexdigest()[:6]
    return f"vae-sweep-{study.path.name}-{place}"


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
        self._submitted: set[str] = set()
        self._lost: set[str] = set()
        self._worked: set[str] = set()
        self._failed_in_a_row = 0
        self._refusals = 0
        self._refusal: str | None = None
        self._submit_again_at = float("-inf")
        self.workers = self._settings.slots * self._settings.array_parallelism

    def ensure(self, wanted: int) -> None:
        """Submit jobs until there are enough for `wanted` open runs.

        Beside living jobs, whose arrays have throttles of their own, only as many as may run at once.

        Raises:
            LauncherError: SLURM refuses again and again, or several jobs in a row failed before they could work.
        """
        live = self._live()
        self._notice_failures(live)
        new = self.needed(wanted) - len(live)
        if live:
            new = min(new, self._settings.array_parallelism - len(live))
        if new <= 0 or time.monotonic() < self._submit_again_at:
            return
        try:
            jobs = self._submission.submit(new)
        except SlurmError as error:
            self._refused(error)
            return
        self._refusals, self._refusal = 0, None
        self._submitted |= set(jobs)
        self._scheduler.submitted(jobs)

    def _refused(self, error: SlurmError) -> None:
        """Wait before the next attempt, ever longer; jobs that were submitted before go on meanwhile."""
        pause_s = min(_FIRST_PAUSE_S * 2**self._refusals, _LONGEST_PAUSE_S)
        self._refusals += 1
        if self._refusals > _MAX_REFUSALS:
            raise LauncherError(f"{error}; {self._refusals} times in a row") from error
        self._submit_again_at = time.monotonic() + pause_s
        self._refusal = f"{error}; the next attempt is in {pause_s:.0f} s"

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
        self._worked.add(job)
        self._lost.discard(job)

    def lost(self, job: str) -> None:
        """Take note that a worker of this job is lost: where the scheduler is silent, the job counts as ended."""
        self._worked.add(job)
        self._lost.add(job)

    def words(self) -> str | None:
        """Return how many jobs run where, how many wait and why, or why that is not known."""
        if self._refusal is not None:
            return self._refusal
        if self._scheduler.problem is not None:
            return f"the scheduler does not answer ({self._scheduler.problem}); the journals decide"
        jobs = (self._scheduler.jobs() or {}).values()
        running = Counter(job.node or "?" for job in jobs if job.state == "running")
        pending = [job for job in jobs if job.state == "pending"]
        words = []
        if running:
            nodes = ", ".join(f"{count} on {node}" for node, count in sorted(running.items()))
            words.append(f"{running.total()} running ({nodes})")
        if pending:
            reasons = ", ".join(sorted({job.reason for job in pending if job.reason})) or "submitted"
            longest_s = max((job.wait_s or 0.0) for job in pending)
            words.append(f"{len(pending)} waiting ({reasons}), the longest for {longest_s:.0f} s")
        return "jobs: " + "; ".join(words) if words else None

    def request_stop(self) -> None:
        """Have workers write checkpoints and leave, and cancel the jobs that have not begun."""
        self._study.stop_file.touch()
        jobs = self._scheduler.jobs(fresh=True) or {}
        self._cancel([job for job, state in jobs.items() if state.state == "pending"])

    def wait(self, timeout_s: float) -> bool:
        """Wait until every job has ended; cancel what is left after `timeout_s`; return whether they all had."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            jobs = self._scheduler.jobs(fresh=True) or {}
            if self._scheduler.problem is not None:
                return False
            if not jobs:
                return True
            if all(job.state == "pending" for job in jobs.values()):  # requeued by a worker that was just told to stop
                self._cancel(list(jobs))
            time.sleep(min(_LONGEST_PACE_S, self._settings.poll_s))
        self._cancel(list(self._scheduler.jobs(fresh=True) or {}))
        return False

    def _cancel(self, jobs: list[str]) -> None:
        """Cancel jobs; where that does not work, `words` says how to do it by hand."""
        try:
            cancel(jobs)
        except SlurmError as error:
            self._refusal = f"{error}; to end the jobs by hand: scancel --name {self._submission.name}"

    def _live(self) -> set[str]:
        """Return the ids of the jobs that run or will run.

        Where the scheduler is silent, a job lives until it has said that it left, or its worker was given up.
        """
        jobs = self._scheduler.jobs()
        if jobs is not None and self._scheduler.problem is None:
            return set(jobs)
        known = jobs if jobs is not None else submitted_jobs(self._study)
        return {job for job in known if job not in self._lost and self._outcome(job) in (None, "started")}

    def _outcome(self, job: str) -> str | None:
        """Return what the newest execution of a job said of itself."""
        found = sorted(self._study.slurm.glob(f"*/{job}.*.outcome"), key=lambda path: path.name)
        return found[-1].read_text(encoding="utf-8") if found else None

    def _notice_failures(self, live: set[str]) -> None:
        """Give up where job after job ends before a worker of it had a run; while others are at work, only pause."""
        for job in sorted(self._submitted - live):
            self._submitted.remove(job)
            log = newest_log(self._study, job)
            outcome = self._outcome(job)
            failed = job not in self._worked and (outcome == "crashed" or (outcome is None and log is not None))
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
            if self._failed_in_a_row >= _MAX_FAILED:
                self._failed_in_a_row = 0
                self._give_up(job, log, alone=not live)

    def _give_up(self, job: str, log: Path | None, *, alone: bool) -> None:
        what = f"{_MAX_FAILED} jobs in a row failed; the last one, {job}, said ({log})"
        if not alone:
            self._submit_again_at = time.monotonic() + _LONGEST_PAUSE_S
            self._refusal = f"{what}; the next attempt is in {_LONGEST_PAUSE_S:.0f} s"
            return
        said = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARACTERS:] if log else ""
        raise LauncherError(f"{what}:\n{said}")
