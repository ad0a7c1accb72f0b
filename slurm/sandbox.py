"""A real Slurm with several nodes and fake GPUs on this machine's loopback, for tries and tests without a cluster.

Everything lives below one folder; sandboxes in several folders run side by side. Needs root and Debian's packages.
"""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from slurm import sandbox_processes as processes
from slurm.errors import SlurmError, SlurmMistake
from slurm.sandbox_daemons import call, daemon_names, environment, last_words, program, query, start_daemon
from slurm.sandbox_files import write_files
from slurm.sandbox_settings import (
    LOOPBACK,
    Settings,
    checked_folder,
    choose_settings,
    first_job_id,
    host_is_loopback,
    read_settings,
)

_START_TIMEOUT_S = 60.0  # for the nodes to be usable
_CANCEL_TIMEOUT_S = 10.0  # for the jobs to end: KillWait is 5 s
_LEFTOVER_GRACE_S = 2.0  # step daemons without their slurmd do not end by themselves
_POLL_S = 0.02
_PROGRAMS = ("slurmctld", "slurmd", "munged", "sinfo", "squeue", "scancel")
_CAPABILITY_SYS_ADMIN = 1 << 21
_MAX_JOBS = 10000  # Slurm's default


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox."""

    folder: Path
    settings: Settings
    started: tuple[str, ...]  # the daemons that this start has started; none where it ran already

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make Slurm's commands and submitit talk to this sandbox."""
        return environment(self.folder)


@dataclass(frozen=True)
class SandboxStatus:
    """What runs in a sandbox's folder."""

    folder: Path
    settings: Settings | None  # None: never started
    daemons: dict[str, int]  # name of a living daemon -> process id
    nodes: dict[str, str]  # name -> state in Slurm's words; empty where slurmctld or munged does not run
    jobs: int  # waiting, running or ending; each task of an array counts

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make Slurm's commands and submitit talk to this sandbox."""
        return environment(self.folder)

    @property
    def dead(self) -> list[str]:
        """The daemons that should run and do not; all of them where the sandbox is stopped."""
        names = daemon_names(self.settings.node_names) if self.settings else []
        return [name for name in names if name not in self.daemons]


def missing() -> str | None:
    """Return why no sandbox can run on this machine; None where one can."""
    if os.geteuid() != 0:
        return "needs root"
    if not all(shutil.which(program(name)) for name in _PROGRAMS):
        return "needs slurmctld, slurmd and munged (Debian: apt install slurmctld slurmd slurm-client munge)"
    if not host_is_loopback() and not _may_mount():
        return f"needs a host name on loopback: the line `{LOOPBACK} {socket.gethostname()}` in /etc/hosts"
    return None


def default_folder() -> Path:
    """Return where the sandbox lives unless told otherwise: $VAE_SWEEP_SANDBOX or ~/.local/state/vae-sweep/sandbox."""
    chosen = os.environ.get("VAE_SWEEP_SANDBOX")
    return Path(chosen) if chosen else Path.home() / ".local" / "state" / "vae-sweep" / "sandbox"


def start(folder: Path, nodes: int = 2, gpus: int = 2, max_array_size: int = 1001) -> Sandbox:
    """Start a sandbox in `folder`, or what is dead of one that runs there, and wait until its nodes are usable.

    Args:
        folder: kept between starts; holds configuration, state and logs.
        nodes: number of nodes, named n1, n2, ...
        gpus: fake GPUs per node: Slurm hands them out and sets CUDA_VISIBLE_DEVICES; nothing is behind them.
        max_array_size: Slurm's MaxArraySize: the indices of an array are below it.

    Raises:
        SlurmMistake: this machine or an argument does not allow it, or a sandbox of another size runs there.
        SlurmError: a daemon does not come up; what this start has started is ended again.
    """
    _check(nodes, gpus, max_array_size)
    folder = checked_folder(folder)
    with _locked(folder):
        running = processes.daemons(folder)
        settings = _settings(folder, running, nodes, gpus, max_array_size)
        started = tuple(name for name in daemon_names(settings.node_names) if name not in running)
        other_hosts = not host_is_loopback()
        try:
            for name in started:
                start_daemon(folder, name, other_hosts)
                if name == "slurmctld":
                    _wait_until_listening(folder, settings)
            _wait_until_usable(folder, settings)
        except BaseException:
            for name in reversed(started):
                processes.end(processes.daemons(folder).get(name, []))
            raise
    return Sandbox(folder, settings, started)


def stop(folder: Path) -> SandboxStatus:
    """Cancel all jobs of the sandbox in `folder`, then end its daemons and whatever its jobs leave behind.

    Jobs cannot be cancelled where slurmctld or munged is dead: their processes are ended, and with the next start they
    come back, as on any cluster.

    Returns:
        What ran before; no daemons where nothing did.

    Raises:
        SlurmMistake: the folder's path is not one of a sandbox.
        SlurmError: something cannot be killed.
    """
    folder = checked_folder(folder)
    if not (folder / "lock").exists():
        return SandboxStatus(folder, None, {}, {}, 0)
    with _locked(folder):
        before = _status(folder, ask=False)
        processes.thaw([*before.daemons.values(), *processes.leftovers(folder)])
        with suppress(SlurmError):  # slurmctld does not answer
            before = _status(folder)
            if before.nodes:
                _cancel_jobs(folder, await_end=not before.dead)
        for kind in ("slurmd", "slurmctld", "munged"):
            running = processes.daemons(folder)
            processes.end([pid for name in running if name.split()[0] == kind for pid in running[name]])
        processes.end(processes.leftovers(folder), _LEFTOVER_GRACE_S)
    return before


def status(folder: Path) -> SandboxStatus:
    """Return what runs in `folder`.

    Raises:
        SlurmMistake: the folder's path is not one of a sandbox.
        SlurmError: slurmctld runs and does not answer.
    """
    return _status(checked_folder(folder))


def _may_mount() -> bool:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:")]
    return bool(int(line.split()[1], 16) & _CAPABILITY_SYS_ADMIN)


def _check(nodes: int, gpus: int, max_array_size: int) -> None:
    reason = missing()
    if reason:
        raise SlurmMistake(f"the SLURM sandbox {reason}")
    for option, value, least, most in (
        ("--nodes", nodes, 1, 64),
        ("--gpus", gpus, 0, 16),
        ("max_array_size", max_array_size, 2, _MAX_JOBS),
    ):
        if not least <= value <= most:
            raise SlurmMistake(f"{option} {value}: must be from {least} to {most}")


def _settings(folder: Path, running: Collection[str], nodes: int, gpus: int, max_array_size: int) -> Settings:
    """Return the settings of this start; where slurmctld is to be started, they stand in the files that it reads."""
    if not running:
        settings = choose_settings(folder, nodes, gpus, max_array_size)
    else:
        settings = _running_settings(folder, nodes, gpus, max_array_size)
        if "slurmctld" in running:
            return settings
        settings = settings.model_copy(update={"first_job_id": first_job_id(folder)})
    write_files(folder, settings)
    return settings


def _running_settings(folder: Path, nodes: int, gpus: int, max_array_size: int) -> Settings:
    settings = read_settings(folder)
    if settings is None:
        raise SlurmError(f"{folder}/sandbox.json of the running sandbox cannot be read; first: vae-sweep sandbox stop")
    if (settings.nodes, settings.gpus, settings.max_array_size) != (nodes, gpus, max_array_size):
        raise SlurmMistake(
            f"the sandbox in {folder} runs with --nodes {settings.nodes} --gpus {settings.gpus} (arrays below "
            f"{settings.max_array_size}), not with --nodes {nodes} --gpus {gpus} (arrays below {max_array_size}); "
            "to change that, first: vae-sweep sandbox stop"
        )
    return settings


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other starts and stops out of `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise SlurmMistake(
            f"sandbox folder {folder}: cannot be written ({error.strerror}); choose another with VAE_SWEEP_SANDBOX"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wait_until_listening(folder: Path, settings: Settings) -> None:
    """Wait for slurmctld as long as it lives: a slurmd or command that finds nobody tries again only after 1 s."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while "slurmctld" in processes.daemons(folder) and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((LOOPBACK, settings.ports[0]), timeout=1):
            return
        time.sleep(_POLL_S)


def _wait_until_usable(folder: Path, settings: Settings) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        running = processes.daemons(folder)
        for name in daemon_names(settings.node_names):
            if name not in running:
                raise SlurmError(f"{name} ended at its start\n{last_words(folder, name)}")
        states: dict[str, str] = {}
        with suppress(SlurmError):  # slurmctld is not yet up
            states = _node_states(folder)
        unusable = [name for name in settings.node_names if not _usable(states.get(name, "unknown"))]
        if not unusable:
            return
        if time.monotonic() > deadline:
            log = last_words(folder, f"slurmd {unusable[0]}")
            raise SlurmError(f"node {unusable[0]} is not usable after {_START_TIMEOUT_S:.0f} s\n{log}")
        time.sleep(_POLL_S)


def _usable(state: str) -> bool:
    return not state.endswith("*") and not state.startswith(("unknown", "down"))  # *: the node does not answer


def _status(folder: Path, ask: bool = True) -> SandboxStatus:
    running = {name: pids[0] for name, pids in processes.daemons(folder).items()}
    ask = ask and "slurmctld" in running and "munged" in running
    nodes = _node_states(folder) if ask else {}
    jobs = len(query(folder, ["squeue", "-h", "-r", "-o", "%i"])) if ask else 0
    return SandboxStatus(folder, read_settings(folder), running, nodes, jobs)


def _node_states(folder: Path) -> dict[str, str]:
    lines = query(folder, ["sinfo", "-h", "-N", "-p", "main", "-o", "%N %T"])
    return dict(line.split(maxsplit=1) for line in lines)


def _cancel_jobs(folder: Path, await_end: bool) -> None:
    """Cancel all jobs and wait for a bounded time until they have ended, which those on a dead node never do."""
    states = [] if await_end else ["-t", "pending,running,suspended"]
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while time.monotonic() < deadline:
        jobs = query(folder, ["squeue", "-h", "-o", "%F", *states])  # of an array: its id
        if not jobs:
            return
        call(folder, ["scancel", *sorted(set(jobs))])
        time.sleep(_POLL_S)
