"""Finding the folder of a study that was run before; imports nothing heavy."""

import fcntl
import os
from pathlib import Path

from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError, suggestion


def existing_study(root: Path, name: str) -> StudyDirectory:
    """Return the folder of a study that was run before.

    Raises:
        UserError: there is none of that name under `root`.
    """
    study = StudyDirectory(root / name)
    if not study.sweep_file.is_file():
        known = [path.parent.name for path in root.glob("*/sweep.yaml")]
        hint = suggestion(name, known) if known else "no study has been run there yet"
        raise UserError(f"{root}: holds no study named {name!r}; {hint}")
    return study


def lock_holder(study: StudyDirectory) -> str | None:
    """Return what the coordinator that runs a study says of itself; None where there is none."""
    try:
        descriptor = os.open(study.lock_file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    return None
