"""Runs SLURM's commands, and tells a cluster that does not answer from one that says no."""

import os
import re
import subprocess

TIMEOUT_S = 30.0

_COMPLETE = {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}  # 0: long lists of array tasks are not cut


class UnansweredError(Exception):
    """A command is missing, failed or hung; the message says which and why."""


def ask(*command: str, timeout_s: float = TIMEOUT_S, text: str = "") -> str:
    """Return what a command prints, given `text` on its standard input.

    Raises:
        UnansweredError: it is missing, exits with an error or takes too long.
    """
    try:
        finished = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            encoding="utf-8",
            errors="replace",
            input=text,
            env=os.environ | _COMPLETE,
        )
    except FileNotFoundError as error:
        raise UnansweredError(f"{command[0]} is not installed here") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnansweredError(f"{command[0]} does not answer ({error})") from error
    if finished.returncode != 0:
        raise UnansweredError(_refusal(command[0], finished))
    return finished.stdout


def _refusal(program: str, finished: "subprocess.CompletedProcess[str]") -> str:
    """Return what a command said when it failed, in one line."""
    said = finished.stderr.strip() or finished.stdout.strip() or f"exit code {finished.returncode}"
    repeated = re.compile(rf"^{re.escape(program)}: (?:error: |fatal: )?")
    return f"{program}: " + "; ".join(repeated.sub("", line.strip()) for line in said.splitlines() if line.strip())
