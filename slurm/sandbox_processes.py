"""The processes of a sandbox, found in /proc by the folder in their arguments: pid files may be stale.

Zombies count as dead, for the first process of a container often reaps none.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from slurm.errors import SlurmError

GRACE_S = 10.0  # for slurmctld to save its state
_KILL_TIMEOUT_S = 5.0
_POLL_S = 0.02


def daemons(folder: Path) -> dict[str, list[int]]:
    """Return the living daemons of the sandbox in `folder`: name -> process ids, more than one while it forks."""
    found: dict[str, list[int]] = {}
    for pid in _pids():
        name = _daemon_name(_arguments(pid), folder)
        if name and _alive(pid):
            found.setdefault(name, []).append(pid)
    return found


def leftovers(folder: Path) -> list[int]:
    """Return the living processes of the jobs of the sandbox in `folder`, Slurm's step daemons included."""
    return [pid for pid in _pids() if _alive(pid) and (_is_step(pid, folder) or _is_of_a_job(pid, folder))]


def thaw(pids: list[int]) -> None:
    """Let stopped processes go on; nothing happens to others."""
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def end(pids: list[int], grace_s: float = GRACE_S) -> None:
    """Ask processes to end, and kill those that still live after `grace_s` seconds.

    Raises:
        SlurmError: one outlives even that.
    """
    for number, timeout_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_TIMEOUT_S)):
        for pid in pids:
            _signal(pid, number)
        deadline = time.monotonic() + timeout_s
        while any(map(_alive, pids)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        pids = [pid for pid in pids if _alive(pid)]
    if pids:
        raise SlurmError(f"cannot be killed: {', '.join(f'{pid} ({_arguments(pid)[:1]})' for pid in pids)}")


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _daemon_name(arguments: list[str], folder: Path) -> str | None:
    program = Path(arguments[0]).name if arguments else ""
    if program == "munged" and f"--socket={folder}/run/munge.socket" in arguments:
        return program
    if program not in ("slurmctld", "slurmd") or not any(Path(argument).parent == folder for argument in arguments):
        return None
    return program if program == "slurmctld" else f"slurmd {arguments[-1]}"


def _is_step(pid: int, folder: Path) -> bool:
    """Tell whether a process is a slurmstepd of the sandbox: it works in the folder of slurmd's log."""
    try:
        program, workplace = Path(f"/proc/{pid}/exe").readlink(), Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return program.name.startswith("slurmstepd") and workplace.is_relative_to(folder)


def _is_of_a_job(pid: int, folder: Path) -> bool:
    variables = _strings(pid, "environ")
    in_job = any(variable.startswith("SLURM_JOB_ID=") for variable in variables)
    return in_job and any(variable.startswith(f"SLURM_CONF={folder}/") for variable in variables) and pid != os.getpid()


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _arguments(pid: int) -> list[str]:
    return _strings(pid, "cmdline")


def _strings(pid: int, file: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:  # it has ended
        return []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
