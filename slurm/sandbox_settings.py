"""What a sandbox is started with: its size, and the ports, address and job ids that its machine and past leave it."""

import random
import re
import socket
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from slurm.errors import SlurmError, SlurmMistake

LOOPBACK = "127.0.0.1"
_SOCKET_BYTES = 107  # the kernel's limit on the path of a Unix socket
_LONGEST_SOCKET = "/spool/n64/n64_67043327.4294967292"  # that of a job's step, longer than munge's
_FOLDER_BYTES = _SOCKET_BYTES - len(_LONGEST_SOCKET)
_FIRST_PORT, _USUAL_EPHEMERAL = 10000, 32768
_EPOCH_2024_S = 1704067200
_JOB_IN_LOG = re.compile(rb"JobId=(\d+)(?:_\d+\((\d+)\))?")


class Settings(BaseModel):
    """What a sandbox was started with; kept in its folder as sandbox.json."""

    model_config = ConfigDict(frozen=True)

    nodes: int
    gpus: int  # per node
    max_array_size: int
    ports: tuple[int, ...]  # of slurmctld, then of each node's slurmd
    first_job_id: int

    @property
    def node_names(self) -> list[str]:
        """The names of the nodes: n1, n2, ..."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


def read_settings(folder: Path) -> Settings | None:
    """Return what the sandbox in `folder` was last started with; None where that is unknown."""
    try:
        return Settings.model_validate_json((folder / "sandbox.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def checked_folder(folder: Path) -> Path:
    """Return `folder` as an absolute path that Slurm and its sockets can bear.

    Raises:
        SlurmMistake: the path is too long, or has characters that mean something in Slurm's files.
    """
    path = folder.expanduser().resolve()
    advice = "choose another with VAE_SWEEP_SANDBOX"
    if not re.fullmatch(r"[A-Za-z0-9/._+-]+", str(path)):
        raise SlurmMistake(
            f"sandbox folder {str(path)!r}: only letters, digits and / . _ + - can stand in Slurm's files; {advice}"
        )
    if len(str(path)) > _FOLDER_BYTES:
        raise SlurmMistake(
            f"sandbox folder {path}: its path has {len(str(path))} characters, and at most {_FOLDER_BYTES} leave room "
            f"for the sockets below it; {advice}"
        )
    return path


def choose_settings(folder: Path, nodes: int, gpus: int, max_array_size: int) -> Settings:
    """Return settings for a start in `folder`: free ports, the old ones where they are, and job ids not yet given.

    Raises:
        SlurmError: this machine has not enough free ports.
    """
    previous = read_settings(folder)
    return Settings(
        nodes=nodes,
        gpus=gpus,
        max_array_size=max_array_size,
        ports=_free_ports(1 + nodes, previous.ports if previous else ()),
        first_job_id=first_job_id(folder),
    )


def host_is_loopback() -> bool:
    """Tell whether this machine's host name stands for 127.0.0.1; often it is 127.0.1.1, or the network's address.

    Slurm's daemons and srun listen on the address of the host name, or else on all.
    """
    try:
        return socket.getaddrinfo(socket.gethostname(), None, family=socket.AF_INET)[0][4][0] == LOOPBACK
    except OSError:
        return False


def first_job_id(folder: Path) -> int:
    """Return a job id above all that the sandbox in `folder` has given, and above those of an earlier, deleted one.

    Results are kept by job id, and an id given again would show the old ones. A killed slurmctld forgets the jobs of
    its last seconds and goes on from the ids of before; its log has them. A new folder begins with the minutes since
    2024.
    """
    log, previous = folder / "log" / "slurmctld.log", read_settings(folder)
    found = _JOB_IN_LOG.findall(log.read_bytes()) if log.exists() else []
    seen = [int(number) for numbers in found for number in numbers if number]
    return max(
        previous.first_job_id if previous else 0, 1 + max(seen, default=0), int(time.time() - _EPOCH_2024_S) // 60
    )


def _free_ports(count: int, preferred: tuple[int, ...]) -> tuple[int, ...]:
    """Return free ports below those that the kernel gives to outgoing connections, which could take one in between."""
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    end = int(limits.read_text().split()[0]) if limits.exists() else _USUAL_EPHEMERAL
    usual = range(_FIRST_PORT, end if end > 2 * _FIRST_PORT else _USUAL_EPHEMERAL)
    found: list[int] = []
    for port in dict.fromkeys([*preferred, *random.sample(usual, len(usual))]):
        if len(found) == count:
            return tuple(found)
        if _is_free(port):
            found.append(port)
    raise SlurmError(
        f"the sandbox needs {count} free ports on {LOOPBACK}; from {usual[0]} to {usual[-1]} only {len(found)} are free"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not hindered by closed connections
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
