"""A real Slurm for tests, its processes, and what it says of its jobs, read with its own commands."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurm import sandbox
from slurm.sandbox_daemons import start_daemon
from slurm.sandbox_settings import host_is_loopback
from support.processes import alive, environment

_FORMAT = "%i|%A|%F|%K|%T|%r|%N|%P|%j"


@dataclass(frozen=True)
class Job:
    """One line of squeue."""

    name_in_queue: str  # 7, or 7_3 for a task of an array
    id: int
    array: int  # the id of its array; its own where it is of none
    task: int | None
    state: str
    reason: str
    node: str
    partition: str
    name: str


@contextmanager
def running_sandbox(nodes: int = 2, gpus: int = 2, max_array_size: int = 1001) -> Iterator[sandbox.Sandbox]:
    """A sandbox in a new folder, with SLURM_CONF in this process's environment; skips where none can run."""
    reason = sandbox.missing()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sandbox", dir="/tmp") as name:
        try:
            cluster = sandbox.start(Path(name), nodes, gpus, max_array_size)
            with pytest.MonkeyPatch.context() as patch:
                for key, value in cluster.environment.items():
                    patch.setenv(key, value)
                yield cluster
        finally:
            sandbox.stop(Path(name))


def wait_until(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = 30.0) -> None:
    """Return once the condition holds; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        late = time.monotonic() > deadline
        assert not late, f"waited {timeout_s:.0f} s for: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)


def slurm(*command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands in this process's environment."""
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert not check or result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def sbatch(script: str, output: Path, *options: object) -> int:
    """Submit a shell script whose output goes to the file `output`; return the job's id."""
    command = ["sbatch", "--parsable", "--output", output, "--open-mode", "append", *options, "--wrap", script]
    return int(slurm(*command).stdout)


def squeue(*options: object) -> list[Job]:
    """Return the jobs that wait, run or end; with `-t all` also those that have ended. Tasks of arrays are jobs."""
    jobs = []
    for line in slurm("squeue", "-h", "-r", "-o", _FORMAT, *options).stdout.splitlines():
        shown, number, array, task, *words = line.split("|")
        jobs.append(Job(shown, int(number), int(array), int(task) if task.isdigit() else None, *words))
    return jobs


def job_state(job: int) -> str:
    """Return the state of one job, also of one that has ended within the last minutes; empty where it is unknown."""
    states = slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T", check=False).stdout.split()
    return states[0] if states else ""


def job_fields(job: int) -> dict[str, str]:
    """Return what `scontrol show job` says: JobState, Restarts, Reason, ..."""
    words = slurm("scontrol", "show", "job", "-o", job).stdout.split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def slurmd_pid(folder: Path, node: str) -> int:
    """Return the process id of a node's daemon."""
    return sandbox.status(folder).daemons[f"slurmd {node}"]


def step_pids(folder: Path, job: int) -> list[int]:
    """Return the living slurmstepd of a job, of all its steps."""
    found = []
    for pid in _living_pids():
        with _may_end():
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            at = Path(f"/proc/{pid}/cwd").readlink()
            if title.startswith(b"slurmstepd: [%d." % job) and at.is_relative_to(folder):
                found.append(pid)
    return found


def task_pids(folder: Path, job: int) -> list[int]:
    """Return the living processes that a job has started, shells included, whoever their parent is now."""
    found = []
    for pid in _living_pids():
        with _may_end():
            variables = environment(pid)
            ours = variables.get("SLURM_CONF", "").startswith(f"{folder}/")
            if ours and variables.get("SLURM_JOB_ID") == str(job):
                found.append(pid)
    return found


def restart_slurmd(folder: Path, node: str) -> None:
    """Start a dead node's daemon again, without waiting for its node."""
    start_daemon(folder, f"slurmd {node}", other_hosts=not host_is_loopback())


def node_state(node: str) -> str:
    """Return a node's state in Slurm's words; with a star where it does not answer.

    scontrol is asked: sinfo may go on to call a node mixed whose jobs have ended.
    """
    words = slurm("scontrol", "--oneliner", "show", "node", node).stdout.split()
    return next(word.removeprefix("State=") for word in words if word.startswith("State=")).lower()


def _living_pids() -> Iterator[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return (pid for pid in pids if pid != os.getpid() and alive(pid))


@contextmanager
def _may_end() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError):  # it ended while it was read
        return
