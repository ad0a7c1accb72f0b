"""The files of a prepared data set in the cache: written once, checked at every opening.

pixels.u8   the images' bytes one after another
index.npy   one `dataset.RECORD` per image
meta.json   {"crc": ..., "body": {...}}: the summary and the checksums of the other two
"""

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vae_core.data.dataset import RECORD, Dataset, Records, Summary
from vae_core.data.sources import Pixels, Skipped

FORMAT_VERSION = 1
_CHUNK = 1 << 20  # bytes of pixels.u8 under one checksum
_CHECKED_CHUNKS = 16  # looked at when the set is opened, spread over the file


class DamagedError(Exception):
    """A prepared data set that is not what was written."""


def write_prepared(folder: Path, summary: Summary, records: Records) -> None:
    """Write index and meta data beside the finished `pixels.u8` in `folder`, all synced to disk."""
    index = folder / "index.npy"
    with index.open("wb") as file:
        np.save(file, records)
        _sync(file.fileno())
    with (folder / "pixels.u8").open("rb") as file:
        checksums = [zlib.crc32(chunk) for chunk in iter(lambda: file.read(_CHUNK), b"")]
        _sync(file.fileno())
    body = {
        "format": FORMAT_VERSION,
        "summary": asdict(summary),
        "index_crc": zlib.crc32(index.read_bytes()),
        "pixel_bytes": (folder / "pixels.u8").stat().st_size,
        "pixel_crcs": checksums,
    }
    text = json.dumps(body)
    with (folder / "meta.json").open("w", encoding="utf-8") as meta:
        meta.write(json.dumps({"crc": zlib.crc32(text.encode()), "body": text}))
        meta.flush()
        _sync(meta.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def open_prepared(folder: Path) -> Dataset:
    """Open the prepared data set in `folder`.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: a file is missing or is not what was written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        body = _read_meta(folder / "meta.json")
        index = (folder / "index.npy").read_bytes()
        if zlib.crc32(index) != body["index_crc"]:
            raise DamagedError(f"{folder / 'index.npy'}: checksum differs")
        records = np.load(folder / "index.npy", allow_pickle=False)
        pixels = np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder}: {error}") from error
    _check_pixels(pixels, records, body, folder)
    summary = body["summary"]
    summary["skipped"] = [Skipped(**item) for item in summary["skipped"]]
    return Dataset(Summary(**summary), records, pixels)


def _read_meta(path: Path) -> dict[str, Any]:
    meta = json.loads(path.read_text(encoding="utf-8"))
    if zlib.crc32(meta["body"].encode()) != meta["crc"]:
        raise DamagedError(f"{path}: checksum differs")
    body: dict[str, Any] = json.loads(meta["body"])
    return body


def _check_pixels(pixels: Pixels, records: Records, body: dict[str, Any], folder: Path) -> None:
    """Check the packed file's size and the checksums of some of its chunks, first and last among them."""
    if records.dtype != RECORD or pixels.size != body["pixel_bytes"]:
        raise DamagedError(f"{folder}: pixels.u8 has {pixels.size} bytes, {body['pixel_bytes']} were written")
    checksums = body["pixel_crcs"]
    positions = np.unique(np.linspace(0, len(checksums) - 1, _CHECKED_CHUNKS).round().astype(int))
    for position in positions.tolist():
        if zlib.crc32(pixels[position * _CHUNK : (position + 1) * _CHUNK].data) != checksums[position]:
            raise DamagedError(f"{folder}: pixels.u8 differs from what was written in chunk {position}")


def copy_images(source: Path, target: Path, spans: Iterable[tuple[int, int]]) -> None:
    """Write the byte ranges (start, end) of the file `source` one after another to `target`."""
    with source.open("rb") as reading, target.open("wb") as writing:
        for start, end in spans:
            reading.seek(start)
            writing.write(reading.read(end - start))
        writing.flush()
        _sync(writing.fileno())
