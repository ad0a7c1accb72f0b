"""Files that a crash cannot tear: written under a temporary name, fsynced, renamed, the folder fsynced."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

TEMPORARY_SUFFIX = ".tmp"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Make `path` hold `content`, whole and on disk; a reader sees either the old file or the new one.

    Raises:
        OSError: the folder is missing or cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        # not tempfile: its files are readable by their owner alone, and others share these folders
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: what was created, renamed or removed stays so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed `write_atomic` left in `folder`; only for a folder that has one writer."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically as indented JSON.

    Raises:
        ValueError: `value` holds NaN or an infinity, which JSON has no word for.
    """
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))
