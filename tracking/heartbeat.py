"""Is a worker alive, and does it make progress? Judged by change, never by clocks or modification times."""

import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracking.run_directory import RunDirectory


class Heartbeat:
    """Keeps two counters in the file at `path`: `alive`, bumped by a thread, `progress`, bumped by `advance`.

    Both are one write of fixed size. Opening and closing the file each time makes them visible over NFS.

    Args:
        path: the file.
        interval_s: s between two writes.
        stall_timeout_s: s without progress after which this process writes the stacks of its threads to stderr and
            exits with code 1; None: never. Only for a process that does nothing else.
    """

    def __init__(self, path: Path, interval_s: float = 1.0, stall_timeout_s: float | None = None) -> None:
        self._path = path
        self._interval_s = interval_s
        self._stall_timeout_s = stall_timeout_s
        self._alive = 0
        self._progress = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def advance(self) -> None:
        """Bump the progress counter; the thread writes it with its next beat."""
        self._progress += 1

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        self._expect_progress()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._stall_timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()

    def _beat(self) -> None:
        progress = self._progress
        while not self._stopped.wait(self._interval_s):
            self._alive += 1
            if self._progress != progress:
                progress = self._progress
                self._expect_progress()
            try:
                self._write()
            except OSError:
                continue  # a missed beat is what the observer judges; the next one may succeed

    def _expect_progress(self) -> None:
        """Start the time limit anew; it is kept outside the interpreter, whose lock a hang may hold."""
        if self._stall_timeout_s is not None:
            faulthandler.dump_traceback_later(self._stall_timeout_s, exit=True, file=sys.stderr)

    def _write(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, f"{self._alive:020d} {self._progress:020d}\n".encode(), 0)
        finally:
            os.close(descriptor)


def read_heartbeat(path: Path) -> tuple[int, int] | None:
    """Return (alive, progress), or None where nothing was written yet."""
    try:
        alive, progress = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return None
    return int(alive), int(progress)


@dataclass(frozen=True)
class Lease:
    """What an observer saw of one attempt: seconds, and own polls, since each counter last changed."""

    alive_unchanged_s: float
    progress_unchanged_s: float
    polls_unchanged: int


@dataclass
class _Seen:
    counters: tuple[int, int] | None
    alive_at: float
    progress_at: float
    polls: int = 0


class LeaseWatch:
    """Observes heartbeats; only changes between its own polls count, timed by its own monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, int], _Seen] = {}

    def observe(self, run: RunDirectory, attempt: int) -> Lease:
        """Look at an attempt's heartbeat once; a missing one counts as unchanged since the first look."""
        now = self._clock()
        counters = read_heartbeat(run.attempt(attempt).heartbeat_file)
        seen = self._seen.setdefault((run.id, attempt), _Seen(counters, now, now))
        seen.polls += 1
        before = seen.counters or (None, None)
        if counters is not None and counters[0] != before[0]:
            seen.alive_at, seen.polls = now, 0
        if counters is not None and counters[1] != before[1]:
            seen.progress_at = now
        seen.counters = counters or seen.counters
        return Lease(now - seen.alive_at, now - seen.progress_at, seen.polls)

    def forget(self, run: RunDirectory, attempt: int) -> None:
        """Drop what is known of an attempt that has ended."""
        self._seen.pop((run.id, attempt), None)


def process_identity() -> dict[str, Any]:
    """Return host, pid and start_time, which name this process across reboots and reused pids."""
    return {"host": host_name(), "pid": os.getpid(), "start_time": _start_time(os.getpid())}


def host_name() -> str:
    """Return what this machine is called: by SLURM inside a job (several of its nodes may be one machine), else by
    itself.
    """
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def process_is_alive(identity: Mapping[str, Any]) -> bool | None:
    """Return whether the process named by `process_identity` is running; None: on another host."""
    if identity["host"] != host_name():
        return None
    pid, start_time = identity["pid"], identity["start_time"]
    if Path("/proc/self/stat").exists():
        found = _start_time(pid)
        return found is not None and start_time in (None, found)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_time(pid: int) -> str | None:
    """Return "<boot id>/<clock ticks since boot>"; None: gone, a zombie, or a system without /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name, in parentheses, may hold anything
    return None if fields[0] in ("Z", "X") else f"{boot}/{fields[19]}"
