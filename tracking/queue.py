"""The queue of a study in three folders: a rename moves an entry from queue/ to claimed/ to done/.

A file's first line is the entry; the worker that claimed it appends a second line that says who it is.
Appending to the file, instead of replacing it, cannot bring back a claim that was withdrawn meanwhile.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracking.files import fsync_folder, write_atomic
from tracking.run_directory import StudyDirectory

_RUN = re.compile(r"[A-Za-z0-9_-]+")
_WORKER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class QueueEntry:
    """An attempt to be executed, lower `order` first; `pixel_budget_scale` scales `train.pixel_budget`."""

    run: str
    attempt: int
    order: int
    pixel_budget_scale: float = 1.0


@dataclass(frozen=True)
class Claim:
    """An entry that a worker took; `owner` is None where the worker was killed before it said who it is."""

    entry: QueueEntry
    worker: str
    owner: dict[str, Any] | None
    path: Path


def enqueue(study: StudyDirectory, entry: QueueEntry) -> bool:
    """Queue the entry unless this attempt is already queued, claimed or done; return whether it was new.

    Raises:
        ValueError: the run's name cannot stand in a file name.
    """
    if not _RUN.fullmatch(entry.run):
        raise ValueError(f"a run id holds letters, digits, - and _ only; got {entry.run!r}")
    if _is_known(study, entry):
        return False
    name = f"{entry.order:06d}-{entry.run}.{entry.attempt}.json"
    write_atomic(study.queue / name, json.dumps(asdict(entry)) + "\n")
    return True


def queued(study: StudyDirectory) -> list[QueueEntry]:
    """Return the entries that wait for a worker, in order."""
    return [entry for path in _paths(study.queue) if (entry := _read(path)[0])]


def claim(study: StudyDirectory, worker: str, owner: dict[str, Any]) -> Claim | None:
    """Take the first waiting entry, or return None where none is left.

    Args:
        study: the study.
        worker: a name that no other living worker has.
        owner: who the worker is, see `heartbeat.process_identity`.

    Raises:
        ValueError: the worker's name cannot stand in a file name.
    """
    if not _WORKER.fullmatch(worker):
        raise ValueError(f"a worker's name holds letters, digits, '.', - and _ only; got {worker!r}")
    for source in _paths(study.queue):
        run_and_attempt = source.name.partition("-")[2].removesuffix(".json")
        target = study.claimed / f"{run_and_attempt}.{worker}.json"
        if _move(source, target) and (won := _sign(target, worker, owner)):
            return won
    return None


def claims(study: StudyDirectory) -> list[Claim]:
    """Return the entries that workers hold."""
    found = []
    for path in _paths(study.claimed):
        entry, owner = _read(path)
        if entry is not None:
            found.append(Claim(entry, path.name.removesuffix(".json").split(".", 2)[2], owner, path))
    return found


def finish(study: StudyDirectory, claim: Claim) -> bool:
    """Move the claim to done/; return False where it was withdrawn and the work does not count."""
    return _move(claim.path, study.done / f"{claim.entry.run}.{claim.entry.attempt}.json")


def finished(study: StudyDirectory) -> list[QueueEntry]:
    """Return the entries that their workers ended, well or badly: the journals say which."""
    return [entry for path in _paths(study.done) if (entry := _read(path)[0])]


def withdraw(study: StudyDirectory, claim: Claim) -> None:
    """Remove the claim of a dead worker, after the run's next attempt was queued."""
    claim.path.unlink(missing_ok=True)
    fsync_folder(study.claimed)


def _is_known(study: StudyDirectory, entry: QueueEntry) -> bool:
    # entries move from queue to claimed to done: looking in this order cannot miss one on its way
    key = (entry.run, entry.attempt)
    return (
        any((waiting.run, waiting.attempt) == key for waiting in queued(study))
        or any(path.name.startswith(f"{entry.run}.{entry.attempt}.") for path in _paths(study.claimed))
        or (study.done / f"{entry.run}.{entry.attempt}.json").exists()
    )


def _paths(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _move(source: Path, target: Path) -> bool:
    """Rename, and return whether the target exists: over NFS a rename can succeed and report an error."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            return False
    fsync_folder(target.parent)
    fsync_folder(source.parent)
    return True


def _sign(path: Path, worker: str, owner: dict[str, Any]) -> Claim | None:
    """Append the owner to a claim just won; None where the claim was withdrawn before that."""
    try:
        with path.open("r+b") as file:
            entry = _entry(file.readline())
            file.seek(0, os.SEEK_END)
            file.write(json.dumps({"worker": worker, "owner": owner}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return None
    return Claim(entry, worker, owner, path) if path.exists() else None


def _read(path: Path) -> tuple[QueueEntry | None, dict[str, Any] | None]:
    """Return (entry, owner) of a file; both None where it moved on between listing and reading."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None, None
    # a line without its newline was torn by a kill: nobody signed
    owner = json.loads(lines[1])["owner"] if len(lines) > 2 else None
    return _entry(lines[0]), owner


def _entry(line: bytes) -> QueueEntry:
    return QueueEntry(**json.loads(line))
