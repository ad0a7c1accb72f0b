"""How a sandbox's daemons are started and its Slurm is asked: the commands, their environment, the ends of the logs."""

import os
import shutil
import subprocess
from pathlib import Path

from slurm.errors import SlurmError

_COMMAND_TIMEOUT_S = 30.0
_LOG_TAIL_BYTES, _LOG_TAIL_LINES = 4000, 8
_FOREIGN = ("SLURM_", "SCANCEL_", "SINFO_", "SQUEUE_")  # set for another cluster, or by its jobs
# runs a command that sees another file as /etc/hosts
_OTHER_HOSTS = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']


def daemon_names(nodes: list[str]) -> list[str]:
    """Return the names of a sandbox's daemons in the order in which they start."""
    return ["munged", "slurmctld", *(f"slurmd {node}" for node in nodes)]


def program(name: str) -> str:
    """Return the path of a program; root's PATH lacks the sbin folders after a plain `su`."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path) or name


def start_daemon(folder: Path, name: str, other_hosts: bool = False) -> None:
    """Start one daemon of the sandbox in `folder`, whose files are written; return once it is in the background.

    Args:
        folder: of the sandbox.
        name: `munged`, `slurmctld`, or a node's `slurmd n1`.
        other_hosts: give it the sandbox's own `hosts` for /etc/hosts, in which the host name stands for loopback.

    Raises:
        SlurmError: it ends at once.
    """
    if name == "munged":
        for leftover in folder.glob("run/munge.socket*"):  # a killed munged's; a new one refuses to replace it
            leftover.unlink()
    prefix = [*_OTHER_HOSTS, f"{folder}/hosts"] if other_hosts else []
    result = call(folder, [*prefix, *_daemon_command(folder, name)])
    if result.returncode:
        words = [f"{name} does not start", result.stderr.strip(), last_words(folder, name)]
        raise SlurmError("\n".join(filter(None, words)))


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that make Slurm's commands and submitit talk to the sandbox in `folder`."""
    return {"SLURM_CONF": f"{folder}/slurm.conf"}


def query(folder: Path, command: list[str]) -> list[str]:
    """Return the lines that a command of Slurm's prints.

    Raises:
        SlurmError: it fails, or takes too long.
    """
    result = call(folder, command)
    if result.returncode:
        raise SlurmError(f"{' '.join(command)}: {result.stderr.strip()}\n{last_words(folder, 'slurmctld')}")
    return result.stdout.splitlines()


def call(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the sandbox's environment.

    Raises:
        SlurmError: it takes too long.
    """
    own = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    try:
        return subprocess.run(
            command,
            env=own | environment(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{' '.join(command)}: no answer within {_COMMAND_TIMEOUT_S:.0f} s") from error


def last_words(folder: Path, name: str) -> str:
    """Return the end of a daemon's log, as the tail of an error message."""
    log = folder / "log" / f"{name.replace(' ', '.')}.log"
    if not log.exists():
        return f"It has not written {log}."
    lines = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join([f"The end of {log}:", *lines])


def _daemon_command(folder: Path, name: str) -> list[str]:
    kind, _, node = name.partition(" ")
    if kind != "munged":
        return [program(kind), "-f", f"{folder}/daemons.conf", *(["-N", node] if node else [])]
    run = folder / "run"
    options = {
        "key-file": folder / "munge.key",
        "socket": run / "munge.socket",
        "pid-file": run / "munged.pid",
        "log-file": folder / "log" / "munged.log",
        "seed-file": run / "munged.seed",
        "num-threads": 2,
    }
    # force: the socket may be out of other users' reach, as below /root; root alone uses a sandbox
    return [program(kind), "--force", *(f"--{key}={value}" for key, value in options.items())]
