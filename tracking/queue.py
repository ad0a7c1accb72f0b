"""The queue of a study in three folders: a rename moves an entry from queue/ to claimed/ to done/.

A lost claim moves back to queue/ (or to its worker's next execution) as the next attempt, again by one rename, so that
of all who want an attempt one gets it. The file's name says which attempt it is; its first line is the entry; each
worker that claims it appends a line that says who it is. Appending to the file, instead of replacing it, cannot bring
back a claim that was taken away meanwhile.
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
_LISTINGS = 5
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
        worker: a name that no other worker, living or dead, has.
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


def renew(study: StudyDirectory, lost: Claim, worker: str, owner: dict[str, Any]) -> Claim | None:
    """Take over the claim of an earlier execution of this worker, as the run's next attempt.

    Returns:
        The new claim; None where somebody else was faster.
    """
    target = study.claimed / f"{lost.entry.run}.{lost.entry.attempt + 1}.{worker}.json"
    return _sign(target, worker, owner) if _move(lost.path, target) else None


def requeue(study: StudyDirectory, lost: Claim) -> bool:
    """Queue the next attempt of the run whose worker was lost; return False where the claim was gone already."""
    entry = lost.entry
    return _move(lost.path, study.queue / f"{entry.order:06d}-{entry.run}.{entry.attempt + 1}.json")


def claims(study: StudyDirectory) -> list[Claim]:
    """Return the entries that workers hold.

    One that is renewed between listing and reading has another name: then the folder is listed again.
    """
    for _ in range(_LISTINGS):
        paths = list(_paths(study.claimed))
        found = [claim for path in paths if (claim := _claim_at(path)) is not None]
        if len(found) == len(paths):
            break
    return found


def _claim_at(path: Path) -> Claim | None:
    entry, owner = _read(path)
    return Claim(entry, path.name.removesuffix(".json").split(".", 2)[2], owner, path) if entry is not None else None


def finish(study: StudyDirectory, claim: Claim) -> bool:
    """Move the claim to done/; return False where it was taken away and the work does not count."""
    return _move(claim.path, study.done / f"{claim.entry.run}.{claim.entry.attempt}.json")


def finished(study: StudyDirectory) -> list[QueueEntry]:
    """Return the entries that their workers ended, well or badly: the journals say which."""
    return [entry for path in _paths(study.done) if (entry := _read(path)[0])]


def _is_known(study: StudyDirectory, entry: QueueEntry) -> bool:
    # entries move from queue to claimed to done: looking in this order cannot miss one on its way
    key = f"{entry.run}.{entry.attempt}."
    return (
        any(name.partition("-")[2] == f"{key}json" for name in _names(study.queue))  # names alone: there may be many
        or any(name.startswith(key) for name in _names(study.claimed))
        or (study.done / f"{key}json").exists()
    )


def _paths(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in sorted(_names(folder)))


def _names(folder: Path) -> list[str]:
    """Return the names of the entries in a folder; those that are still being written begin with a dot."""
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found]
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(".json") and not name.startswith(".")]


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
    """Append the owner to a claim just won; None where the claim was taken away before that."""
    attempt = _attempt(path)
    signature = {"worker": worker, "attempt": attempt, "owner": owner}
    try:
        with path.open("r+b") as file:
            content = file.read()
            torn = b"" if content.endswith(b"\n") else b"\n"  # an earlier owner was killed as it signed
            file.seek(0, os.SEEK_END)
            file.write(torn + json.dumps(signature).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return None
    return Claim(_entry(content.partition(b"\n")[0], attempt), worker, owner, path) if path.exists() else None


def _read(path: Path) -> tuple[QueueEntry | None, dict[str, Any] | None]:
    """Return (entry, owner) of a file; both None where it moved on between listing and reading."""
    try:
        entry, *signatures = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None, None
    attempt = _attempt(path)
    return _entry(entry, attempt), _owner(signatures[:-1], path, attempt)  # the last one was torn, or is empty


def _owner(signatures: list[bytes], path: Path, attempt: int) -> dict[str, Any] | None:
    """Return who signed this attempt under the name that the file has; None: nobody yet."""
    for text in reversed(signatures):
        try:
            signature = json.loads(text)
        except ValueError:
            continue
        worker = path.name.removesuffix(".json").partition(".")[2].partition(".")[2]
        if signature["worker"] == worker and signature.get("attempt", attempt) == attempt:
            return dict(signature["owner"])
    return None


def _attempt(path: Path) -> int:
    """Return the attempt that a file's name holds: `<order>-<run>.<attempt>.json`, `<run>.<attempt>.<worker>.json`."""
    return int(path.name.split(".")[1])


def _entry(line: bytes, attempt: int) -> QueueEntry:
    return QueueEntry(**{**json.loads(line), "attempt": attempt})
