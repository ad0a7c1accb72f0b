"""Where results come from: code, packages, machine and command, of a study and of each attempt."""

import getpass
import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "torchvision",
    "mlflow",
    "optuna",
    "numpy",
    "pydantic",
    "torchmetrics",
    "lpips",
    "scikit-learn",
)
# sweep files: a study has its own copy of the one it runs, and their setup lines may hold secrets
_NOT_SHOWN = (":(exclude)sweeps/*.yaml", ":(exclude)sweeps/*.yml")
_LONGEST_DIFF = 200_000  # characters
_TIMEOUT_S = 20


def collect(repository: Path | None) -> dict[str, Any]:
    """Return commit, dirty flag, diff, versions, hardware and command line, ready for JSON.

    The diff leaves out the sweep files, `sweeps/*.yaml` below `repository`.
    What cannot be found out (no git, no repository, no GPU) is None; nothing is raised for it.
    """
    return {**code(repository), **machine(), "user": _user(), "command": shlex.join(sys.argv)}


def machine() -> dict[str, Any]:
    """Return this machine's hardware, driver and packages."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "hostname": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        **_gpu(),
    }


def code(repository: Path | None) -> dict[str, Any]:
    """Return commit, dirty flag and diff of the checkout at `repository`; None each where there is none."""
    commit = _git(repository, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None, "diff": None, "diff_cut": None}
    status = _git(repository, "status", "--porcelain")
    diff = _git(repository, "diff", "HEAD", "--", *_NOT_SHOWN) or ""
    return {
        "commit": commit.strip(),
        "dirty": None if status is None else bool(status.strip()),
        "diff": diff[:_LONGEST_DIFF],
        "diff_cut": len(diff) > _LONGEST_DIFF,
    }


def _git(repository: Path | None, *arguments: str) -> str | None:
    if repository is None:
        return None
    return _output(["git", "-C", str(repository), "--no-optional-locks", *arguments])


def _gpu() -> dict[str, Any]:
    """Return the GPUs' names and the driver's version, as nvidia-smi gives them."""
    output = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rpartition(", ") for line in (output or "").splitlines() if ", " in line]
    return {"gpu": [name for name, _, _ in rows] or None, "driver": rows[0][2] if rows else None}


def _output(command: list[str]) -> str | None:
    """Return what a command prints, or None where it is missing, fails or hangs."""
    try:
        finished = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, check=True, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's process may have a number and no name
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
