"""Checks of the folder of the studies: can it be written, how fast, and does its file system keep its promises."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from experiments.checks import Check, attempted
from experiments.file_system import FileSystem, file_system_of
from tracking.files import write_atomic

_GB, _MB = 10**9, 10**6
_BROKEN_GB, _SCARCE_GB = 1, 10
_WRITTEN_MB, _SLOW_MB_PER_S = 32, 10
_SMALL_FILES, _SMALL_BYTES, _SLOW_MS = 10, 4096, 100
_ANOTHER = "choose another folder with --root"


def root_checks(root: Path) -> Iterator[Check]:
    """Try in the folder, or where it would be made, what a sweep does there; nothing is left behind."""
    place = nearest_folder(root)
    yield (written := writable(root, place))
    if written.verdict == "broken":
        return
    yield attempted("free space", lambda: free_space(shutil.disk_usage(place).free))
    yield attempted("file system", lambda: file_system(file_system_of(place)))
    for name, check in _TRIALS.items():
        yield attempted(name, partial(_tried, place, check))


def nearest_folder(root: Path) -> Path:
    """Return the root, or what is there of the path that leads to it."""
    path = root.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def writable(root: Path, place: Path) -> Check:
    """Make a folder in `place`, and remove it."""
    path = root.absolute()
    if "?" in str(path):
        return Check("root", f"{path}: MLflow's database address cannot hold a '?'", "broken", _ANOTHER)
    if not place.is_dir():
        return Check("root", f"{path}: {place} is no folder", "broken", _ANOTHER)
    try:
        with _probe(place):
            return Check("root", f"{path} {'can be written' if place == path else 'can be made'}")
    except OSError as error:
        remedy = f"make {place} writable, or {_ANOTHER}"
        return Check("root", f"{path}: {place} cannot be written ({error.strerror})", "broken", remedy)


def free_space(free: int) -> Check:
    """Judge the bytes that are free."""
    finding = f"{free / _GB:.1f} GB"
    if free < _BROKEN_GB * _GB:
        return Check("free space", finding, "broken", f"make room, or {_ANOTHER}; quotas are not seen here")
    if free < _SCARCE_GB * _GB:
        return Check("free space", finding, "note", "enough for small sweeps; quotas are not seen here")
    return Check("free space", finding)


def file_system(found: FileSystem | None) -> Check:
    """Judge a kind of file system."""
    if found is None:
        return Check("file system", "unknown: this system does not say")
    finding = f"{found.kind}, mounted at {found.point}"
    if found.forgetful:
        return Check("file system", f"{finding}: {found.forgetful}", "note", f"to keep the results {_ANOTHER}")
    if not found.of_one_machine:
        remedy = (
            "nothing to do: the coordinator alone writes the SQLite and Optuna stores; run the coordinators of one "
            "root on one machine"
        )
        return Check("file system", f"{finding}: a network file system", "note", remedy)
    return Check("file system", finding)


def locks(folder: Path) -> Check:
    """Lock a file twice; the second time has to fail, or two coordinators could run one study."""
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Check("locks", f"flock fails ({error.strerror})", "broken", f"mount it with locks, or {_ANOTHER}")
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return reach_of_locks(file_system_of(folder))
    return Check("locks", "flock gives one lock to two holders", "broken", f"mount it with locks, or {_ANOTHER}")


def reach_of_locks(system: FileSystem | None) -> Check:
    """Judge whether other machines see this one's locks."""
    if system is not None and system.locks_of_one_machine and not system.of_one_machine:
        remedy = "start the coordinators of one root on one machine; two of one study would not see one another"
        return Check("locks", "flock works, but is mounted to hold on this machine alone", "note", remedy)
    return Check("locks", "flock refuses a second holder")


def rename(folder: Path) -> Check:
    """Rename a file over another one, as every checkpoint and claim is."""
    new, old = folder / "new", folder / "old"
    new.write_text("new", encoding="utf-8")
    old.write_text("old", encoding="utf-8")
    new.replace(old)
    if new.exists() or old.read_text(encoding="utf-8") != "new":
        return Check("rename", "does not replace an existing file", "broken", _ANOTHER)
    return Check("rename", "replaces an existing file")


def write_speed(folder: Path) -> Check:
    """Time a large file until it is on disk; of random bytes, which no file system makes smaller."""
    content = os.urandom(_WRITTEN_MB * _MB)
    began = time.perf_counter()
    with (folder / "large").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return judged_speed(_WRITTEN_MB / (time.perf_counter() - began))


def judged_speed(mb_per_s: float) -> Check:
    """Judge a speed of writing."""
    finding = f"{mb_per_s:.0f} MB/s ({_WRITTEN_MB} MB, fsynced)"
    if mb_per_s < _SLOW_MB_PER_S:
        remedy = f"large checkpoints hold up training: raise train.checkpoint_minutes, or {_ANOTHER}"
        return Check("write speed", finding, "note", remedy)
    return Check("write speed", finding)


def small_files(folder: Path) -> Check:
    """Time files that are written, fsynced and renamed, as every checkpoint and claim is."""
    times_ms = []
    for _ in range(_SMALL_FILES):
        began = time.perf_counter()
        write_atomic(folder / "small", os.urandom(_SMALL_BYTES))
        times_ms.append(1000 * (time.perf_counter() - began))
    return judged_latency(median(times_ms))


def judged_latency(median_ms: float) -> Check:
    """Judge the time that a small file takes."""
    finding = f"{median_ms:.1f} ms each (fsynced and renamed; median of {_SMALL_FILES})"
    if median_ms > _SLOW_MS:
        remedy = f"every epoch writes a few: fine for long epochs; for short ones {_ANOTHER}"
        return Check("small files", finding, "note", remedy)
    return Check("small files", finding)


def _tried(place: Path, check: Callable[[Path], Check]) -> Check:
    with _probe(place) as folder:
        return check(Path(folder))


def _probe(place: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".vae-sweep-doctor-", dir=place)


_TRIALS = {"locks": locks, "rename": rename, "write speed": write_speed, "small files": small_files}
