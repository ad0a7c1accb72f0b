"""Finding the folder of a study that was run before; imports nothing heavy."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    with _lock_descriptor(study) as descriptor:
        return None if descriptor is None else holder_words(descriptor)


def coordinators_store(study: StudyDirectory) -> str | None:
    """Return the identity of the MLflow store that the study's coordinator writes to; None where there is none."""
    with _lock_descriptor(study) as descriptor:
        return None if descriptor is None else _holder(descriptor).get("store")


def holder_words(descriptor: int) -> str:
    """Return what the holder of an open lock file says of itself: where it runs, and since when."""
    holder = _holder(descriptor)
    return json.dumps({name: holder[name] for name in ("host", "pid", "since") if name in holder})


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # it has the lock and has not written yet
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _lock_descriptor(study: StudyDirectory) -> Iterator[int | None]:
    """Yield the study's lock file, open, where somebody holds it, else None."""
    try:
        descriptor = os.open(study.lock_file, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor if _is_held(descriptor) else None
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
