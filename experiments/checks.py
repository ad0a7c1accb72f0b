"""One finding of `vae-sweep doctor`, and how a check that fails itself becomes one."""

import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from slurm.commands import UnansweredError
from tracking.errors import first_line

Verdict = Literal["ok", "note", "broken"]

FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    ImportError,
    sqlite3.Error,
    subprocess.SubprocessError,
    UnansweredError,
)


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it where it is not ok."""

    name: str
    finding: str
    verdict: Verdict = "ok"
    remedy: str = ""


def attempted(name: str, check: Callable[[], Check]) -> Check:
    """Return the result of a check; one that fails itself is broken, and says why."""
    try:
        return check()
    except FAILURES as error:
        return failed(name, error)


def failed(name: str, error: BaseException) -> Check:
    """Return what becomes of a check that failed itself."""
    finding = f"this check failed: {type(error).__name__}: {first_line(error)}"
    return Check(name, finding, "broken", "mend what the message names, then run this again")
