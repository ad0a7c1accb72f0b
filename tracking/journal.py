"""An append-only journal: one JSON object per line, each fsynced, numbered and checksummed.

A line is `{"n": 0, "time_ms": 1700000000000, "kind": "...", ..., "crc": "8 hex digits"}`; `crc` is the CRC-32
of the line's text without it. A reader stops at the first line that is torn, fails its checksum or is out of
sequence.
"""

import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic_core import from_json

from tracking.files import fsync_folder

_OWN_FIELDS = ("n", "time_ms", "kind", "crc")
_CHECKED_LINE = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"}', re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One valid line: its number (from 0), its time (ms since 1970), its kind and its fields."""

    n: int
    time_ms: int
    kind: str
    fields: dict[str, Any]


class JournalWriter:
    """Appends lines to the journal at `path`, going on after its last valid line.

    Whatever follows that line (the torn tail of a crash) is cut off first. A journal has one writer.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._next_n, self._end = 0, 0
        for line, length in _valid_lines(path.read_bytes(), first_n=0):
            self._next_n, self._end = line.n + 1, self._end + length
        os.ftruncate(self._descriptor, self._end)
        os.fsync(self._descriptor)
        fsync_folder(path.parent)

    def append(self, kind: str, /, **fields: object) -> Line:
        """Write one line and return it once it is on disk.

        Raises:
            ValueError: a field holds NaN or an infinity, or takes the name of one of the line's own fields.
            OSError: the disk refused; the journal is as it was before.
        """
        _check_fields(fields)
        line = Line(self._next_n, time.time_ns() // 1_000_000, kind, fields)
        data = encode_line(line)
        try:
            _write_all(self._descriptor, data)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)  # half a line would swallow the next one
            raise
        self._next_n, self._end = self._next_n + 1, self._end + len(data)
        return line

    def close(self) -> None:
        """Close the file; further appends fail."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class JournalTail:
    """Reads a journal that is being written, each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._next_n = 0, 0

    def poll(self) -> list[Line]:
        """Return the lines added since the last poll; a partial last line is left for the next one."""
        try:
            if self._path.stat().st_size <= self._offset:
                return []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        lines = []
        for line, length in _valid_lines(data, self._next_n):
            lines.append(line)
            self._offset, self._next_n = self._offset + length, line.n + 1
        return lines


def read_journal(path: Path) -> list[Line]:
    """Return the valid lines from the start of the journal; none where the file is missing."""
    return JournalTail(path).poll()


def encode_line(line: Line) -> bytes:
    """Return the line as it stands in a journal, checksum and line end included."""
    head = {"n": line.n, "time_ms": line.time_ms, "kind": line.kind}
    body = json.dumps(head | line.fields, allow_nan=False).encode()
    return body[:-1] + f', "crc": "{zlib.crc32(body):08x}"}}\n'.encode()


def _valid_lines(data: bytes, first_n: int) -> Iterator[tuple[Line, int]]:
    """Yield (line, its length in bytes) up to the first line that is torn, damaged or out of sequence."""
    start, n = 0, first_n
    while (end := data.find(b"\n", start)) >= 0:
        line = _decode(data[start:end])
        if line is None or line.n != n:
            return
        yield line, end + 1 - start
        start, n = end + 1, n + 1


def _decode(text: bytes) -> Line | None:
    match = _CHECKED_LINE.fullmatch(text)
    if match is None or zlib.crc32(match[1] + b"}") != int(match[2], 16):
        return None
    try:
        value = _parse(match[1] + b"}")
        head = [value.pop(name) for name in _OWN_FIELDS[:3]]
    except (ValueError, KeyError, AttributeError):  # a right checksum over something that no writer wrote
        return None
    return Line(head[0], head[1], head[2], value)


def _parse(text: bytes) -> Any:
    try:
        return from_json(text)  # four times as fast as json.loads
    except ValueError:  # it takes no half of a surrogate pair, which names of files and tracebacks may hold
        return json.loads(text)


def _check_fields(fields: dict[str, object]) -> None:
    for name, value in fields.items():
        if name in _OWN_FIELDS:
            raise ValueError(f"a journal line cannot carry a field {name!r}: every line has its own")
        _check_finite(value, name)


def _check_finite(value: object, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: a journal holds finite numbers only; got {value!r}")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(item, f"{place}[{index}]")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
