"""What the kernel says about processes and their sockets, read from /proc."""

import re
import socket
from pathlib import Path

LISTENING, ESTABLISHED = "0A", "01"


def family(pid: int) -> list[int]:
    """Return a living process and its living descendants."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended in the meantime
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found = [pid] if pid in parents else []
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def command(pid: int) -> str:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def environment(pid: int) -> dict[str, str]:
    entries = (Path("/proc") / str(pid) / "environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets(pids: list[int]) -> list[tuple[str, str, int, str]]:
    """Return (state, local address, local port, remote address) of the TCP sockets that the processes hold."""
    held = set()
    for pid in pids:
        for descriptor in (Path("/proc") / str(pid) / "fd").iterdir():
            try:
                held |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
            except FileNotFoundError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[9] in held:
                local, remote = fields[1].split(":"), fields[2].split(":")
                found.append((fields[3], _address(local[0]), int(local[1], 16), _address(remote[0])))
    return found


def _address(digits: str) -> str:
    """Return a kernel's hexadecimal address (words in host byte order) as people write it."""
    words = [bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8)]
    kind = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(kind, b"".join(words))
