"""Processes that run this one's modules wherever they are started: the folder somebody works in may have namesakes."""

import os
import sys
from pathlib import Path


def module_command(module: str) -> list[str]:
    """Return the command that runs a module of this package; `own_path` has to be in its environment."""
    return [sys.executable, "-P", "-m", module]  # -P: not what lies in the current folder


def own_path() -> dict[str, str]:
    """Return the environment variable by which another process finds the modules that this one has."""
    return {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)}
