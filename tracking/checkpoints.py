"""Checkpoints of an attempt: `<step>-<covers>-<crc32>.pt`, written atomically, checked when read."""

import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracking.files import remove_temporaries, write_atomic
from tracking.run_directory import AttemptDirectory, RunDirectory, read_chain_of

_NAME = re.compile(r"([0-9]{8,})-([0-9]{6,})-([0-9a-f]{8})\.pt")


@dataclass(frozen=True)
class FoundCheckpoint:
    """A loaded checkpoint: its file, the attempt that wrote it, and the last line (`covers`) it includes."""

    path: Path
    attempt: int
    step: int
    covers: int
    state: dict[str, Any]


def save_checkpoint(attempt: AttemptDirectory, state: dict[str, Any], *, step: int, covers: int, keep: int = 2) -> Path:
    """Save `state` durably, then drop all but the newest `keep` checkpoints of the attempt.

    Args:
        attempt: the attempt that is being executed.
        state: plain dicts, lists, numbers, strings and tensors.
        step: optimizer steps done.
        covers: number of the last line of the attempt's journal that the state includes.
        keep: checkpoints to keep.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    folder = attempt.checkpoints
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    path = folder / f"{step:08d}-{covers:06d}-{zlib.crc32(data):08x}.pt"
    write_atomic(path, data)
    for old in _newest_first(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(run: RunDirectory, before_attempt: int) -> FoundCheckpoint | None:
    """Return the newest valid checkpoint of the attempts before `before_attempt`, or None.

    A checkpoint whose content does not match its name's checksum is passed over for the next older one,
    as is one that claims lines which its attempt's journal does not hold.
    """
    for number in reversed(run.attempts()):
        if number < before_attempt and (found := _newest_of_attempt(run, number)):
            return found
    return None


def _newest_of_attempt(run: RunDirectory, number: int) -> FoundCheckpoint | None:
    chain = read_chain_of(run, number)
    for path in _newest_first(run.attempt(number).checkpoints) if chain else []:
        step, covers = _step_and_covers(path)
        if covers <= chain[-1].line.n and (state := _load(path)) is not None:
            return FoundCheckpoint(path, number, step, covers, state)
    return None


def _newest_first(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("*.pt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (_step_and_covers(path), path.stat().st_mtime_ns), reverse=True)


def _step_and_covers(path: Path) -> tuple[int, int]:
    step, covers, _ = path.stem.split("-")
    return int(step), int(covers)


def _load(path: Path) -> dict[str, Any] | None:
    """Return the state, or None where the file is damaged, or was dropped by a late worker."""
    import torch

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if zlib.crc32(data) != int(path.stem[-8:], 16):
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
