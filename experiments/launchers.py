"""Where workers run: as local processes, or in the coordinator's own process for a debugger."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Protocol

from experiments.failures import OperationError
from experiments.leases import JobState
from experiments.own_modules import module_command, own_path
from experiments.worker import Worker, presence_file
from tracking.files import read_json
from tracking.heartbeat import process_is_alive
from tracking.queue import claims
from tracking.run_directory import StudyDirectory

_POLL_S = 0.3
_MAX_STILLBORN = 3
_LOG_TAIL_BYTES = 2000


class LauncherError(OperationError):
    """Workers cannot be started; the message holds the end of the last one's log."""


class Launcher(Protocol):
    """Keeps workers alive for a study.

    Attributes:
        workers: how many at once.
        outlives_coordinator: whether workers go on, and come back when killed, while no coordinator is there.
    """

    workers: int
    outlives_coordinator: bool

    def job_state(self, job: str) -> JobState | None:
        """Return what the scheduler says of a job; None: there is none, or it does not answer."""

    def at_work(self, job: str) -> None:
        """Take note that a worker in this job has a run."""

    def lost(self, job: str) -> None:
        """Take note that a worker in this job is lost."""

    def words(self) -> str | None:
        """Return what there is to say of the jobs in one line, for the live table."""

    def ensure(self, wanted: int) -> None:
        """Start workers until `wanted` (at most `workers`) are alive."""

    def pace(self) -> Iterator[None]:
        """Pause between two looks of the coordinator, for ever."""

    def request_stop(self) -> None:
        """Ask every worker to write a checkpoint and leave."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until every worker has left; return whether they all did."""


class LocalLauncher:
    """Worker processes on this machine; they outlive a killed coordinator and are counted when it comes back.

    Args:
        study: the study's folder.
        workers: how many at once.
        threads: CPU threads of each.
        idle_timeout_s: s after which a worker without work leaves.
    """

    outlives_coordinator = False

    def __init__(self, study: StudyDirectory, workers: int, threads: int, idle_timeout_s: float) -> None:
        self.workers = workers
        self._study = study
        self._threads = threads
        self._idle_timeout_s = idle_timeout_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self._stillborn = 0

    def ensure(self, wanted: int) -> None:
        """Start workers until `wanted` (at most `workers`) are alive.

        Raises:
            LauncherError: several workers in a row died before they took a run.
        """
        self._reap()
        for _ in range(min(wanted, self.workers) - self._alive()):
            self._start()

    def pace(self) -> Iterator[None]:
        """Sleep between two looks."""
        while True:
            time.sleep(_POLL_S)
            yield

    def job_state(self, job: str) -> None:
        """Return nothing: there is no scheduler."""

    def at_work(self, job: str) -> None:
        """Nothing to note: there are no jobs."""

    def lost(self, job: str) -> None:
        """Nothing to note: there are no jobs."""

    def words(self) -> None:
        """Return nothing: there are no jobs."""

    def request_stop(self) -> None:
        """Send SIGTERM to every living worker of the study, also to those of an earlier coordinator."""
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue  # it left in the meantime

    def wait(self, timeout_s: float) -> bool:
        """Wait until every worker has left; return whether they all did."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._reap()
            if not self._alive():
                return True
            time.sleep(0.05)
        return False

    def _start(self) -> None:
        self._started += 1
        name = f"local-{os.getpid()}-{self._started}"
        threads = str(self._threads)
        environment = os.environ | own_path() | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        command = [*module_command("experiments.worker"), str(self._study.path), "--name", name]
        command += ["--idle-timeout-s", str(self._idle_timeout_s)]
        with (self._study.workers / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the coordinator alone, which asks for checkpoints
            )

    def _reap(self) -> None:
        claimants = {claim.worker for claim in claims(self._study)}
        for name, child in list(self._children.items()):
            code = child.poll()
            if code is None:
                continue
            del self._children[name]
            presence_file(self._study, name).unlink(missing_ok=True)
            self._stillborn = self._stillborn + 1 if code > 0 and name not in claimants else 0
            if self._stillborn >= _MAX_STILLBORN:
                raise LauncherError(
                    f"{self._stillborn} workers in a row died before they took a run; the last one said:\n"
                    + self.log_tail(name)
                )

    def log_tail(self, name: str) -> str:
        """Return the last lines of a worker's log."""
        log = self._study.workers / f"{name}.log"
        return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""

    def _alive(self) -> int:
        strangers = [pid for pid in self._pids() if pid not in {child.pid for child in self._children.values()}]
        return len(self._children) + len(strangers)

    def _pids(self) -> list[int]:
        """Return the pids of this machine's living workers of the study, whoever started them."""
        pids = [child.pid for child in self._children.values()]
        for path in self._study.workers.glob("*.json"):
            try:
                who = read_json(path)
            except FileNotFoundError:
                continue  # it left in the meantime
            alive = process_is_alive(who)
            if alive:
                pids.append(who["pid"])
            elif alive is False:  # killed, and so was the coordinator that would have noticed
                path.unlink(missing_ok=True)
        return list(dict.fromkeys(pids))


class InlineLauncher:
    """One worker in the coordinator's process, which looks up between two events of the trainer."""

    workers = 1
    outlives_coordinator = False

    def __init__(self, study: StudyDirectory) -> None:
        self._worker = Worker(study, f"inline-{os.getpid()}", idle_timeout_s=float("inf"))
        self._work = self._worker.work()

    def ensure(self, wanted: int) -> None:
        """Nothing to start."""

    def pace(self) -> Iterator[None]:
        """Train, and pause when the coordinator's next look is due."""
        looked = time.monotonic()
        for _ in self._work:
            if time.monotonic() - looked > _POLL_S:
                yield
                looked = time.monotonic()
        while True:
            yield

    def job_state(self, job: str) -> None:
        """Return nothing: there is no scheduler."""

    def at_work(self, job: str) -> None:
        """Nothing to note: there are no jobs."""

    def lost(self, job: str) -> None:
        """Nothing to note: there are no jobs."""

    def words(self) -> None:
        """Return nothing: there are no jobs."""

    def request_stop(self) -> None:
        """Ask for a checkpoint after the current optimizer step."""
        self._worker.request_stop()

    def wait(self, timeout_s: float) -> bool:
        """Let the worker come to its checkpoint."""
        for _ in self._work:
            pass
        return True
