"""Finding the folder of a study that was run before, and reading the files in it; imports nothing heavy."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracking.files import read_json
from tracking.mlflow_experiments import StudyIdentity
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError, suggestion
from vae_core.yaml_io import load_yaml

_SWEEP_KEYS = {"question": str, "config": dict, "space": dict, "objective": dict, "sampler": str}


def existing_study(root: Path, name: str) -> StudyDirectory:
    """Return the folder of a study that was run before.

    Raises:
        UserError: there is none of that name under `root`, or it cannot be read.
    """
    study = StudyDirectory(root / name)
    try:
        is_there = study.sweep_file.is_file()
    except OSError as error:
        raise UserError(f"{root}: no study {name!r} can be read there ({error.strerror})") from error
    if not is_there:
        known = [path.parent.name for path in root.glob("*/sweep.yaml")]
        hint = suggestion(name, known) if known else "no study has been run there yet"
        raise UserError(f"{root}: holds no study named {name!r}; {hint}")
    return study


def read_sweep(file: Path) -> dict[str, Any]:
    """Return the keys of a study's `sweep.yaml`, unchecked but for those that every reader needs.

    Raises:
        UserError: it is no YAML, or such a key is missing.
    """
    keys = load_yaml(file)
    found = keys if isinstance(keys, dict) else {}
    wrong = [name for name, kind in _SWEEP_KEYS.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise UserError(
            f"{file}: is torn or was changed by hand: {', '.join(wrong)} missing or of the wrong kind; restore it from "
            "a copy, or remove it and run the sweep again, which writes it anew"
        )
    return found


def read_facts(file: Path) -> dict[str, Any]:
    """Return what a JSON file of a study says.

    Raises:
        UserError: it is torn, or holds something else.
    """
    try:
        found = read_json(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _torn(file, str(error)) from error
    if not isinstance(found, dict):
        raise _torn(file, f"{type(found).__name__} instead of a mapping")
    return found


def study_identity(study: StudyDirectory) -> StudyIdentity:
    """Return what tells the study from its namesakes in an MLflow store.

    Raises:
        UserError: its provenance is torn.
    """
    file = study.provenance_file
    return StudyIdentity(study.path.name, read_facts(file).get("study_id") if file.exists() else None)


def _torn(file: Path, why: str) -> UserError:
    return UserError(
        f"{file}: is torn or was changed by hand ({why}); restore it from a copy, or remove it: a report does without"
    )


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
