"""Builds a prepared data set: reads the source once, chooses, groups, splits, and writes the files.

Letters: N images, C channels, S side of a thumbnail.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_core.config import DataConfig
from vae_core.data.dataset import RECORD, Records, Summary
from vae_core.data.near_duplicates import group_near_duplicates, near_any, thumbnail
from vae_core.data.packing import copy_images, write_prepared
from vae_core.data.sources import Item, Progress, Skipped, Source
from vae_core.data.splits import SPLITS, assign_splits
from vae_core.errors import UserError

Indices = npt.NDArray[np.int64]

_NAMED_SKIPS = 3


@dataclass
class _Staged:
    """What was read so far; the pixels are in the file, one image after another."""

    names: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    test: list[bool] = field(default_factory=list)
    official: bool = False
    thumbnails: list[npt.NDArray[np.float32]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, item: Item) -> None:
        self.names.append(item.name)
        self.labels.append(item.label)
        self.hashes.append(content_hash(item))
        self.shapes.append(item.pixels.shape)
        self.test.append(item.official == "test")
        self.official |= item.official is not None
        self.thumbnails.append(thumbnail(item.pixels))


def content_hash(item: Item) -> str:
    """Return 32 hex digits over the size and the pixels of an image."""
    digest = hashlib.sha256(repr(item.pixels.shape).encode())
    digest.update(item.pixels.tobytes())
    return digest.hexdigest()[:32]


def build(folder: Path, config: DataConfig, source: Source, progress: Progress) -> None:
    """Write the prepared data set of `source` into the empty `folder`."""
    staged = _stage(folder / "staged.u8", config, source, progress)
    chosen = _choose(staged, config.limit)
    excluded: dict[str, int] = {}
    official_test = np.array(staged.test, dtype=bool) if staged.official else None
    if official_test is not None:
        chosen, excluded = _drop_near_test(staged, chosen, official_test, config.near_duplicate_tolerance)
    progress("grouping near-duplicates", 0, len(chosen))
    records = _records(staged, chosen, config, official_test)
    progress("grouping near-duplicates", len(chosen), len(chosen))
    label_names = _label_names(staged, chosen, source)
    positions = {name: position for position, name in enumerate(label_names)}
    records["label"] = [positions.get(staged.labels[index] or "", -1) for index in chosen]
    _keep_pixels(folder, staged, chosen)
    summary = Summary(
        source=config.source,
        fingerprint=_fingerprint(records, label_names, config.channels),
        channels=config.channels,
        names=[staged.names[index] for index in chosen],
        label_names=label_names,
        skipped=staged.skipped,
        excluded=excluded,
    )
    write_prepared(folder, summary, records)


def _stage(path: Path, config: DataConfig, source: Source, progress: Progress) -> _Staged:
    staged = _Staged()
    total = len(source)
    with path.open("wb") as file:
        for done, item in enumerate(source.items(), start=1):
            if isinstance(item, Skipped):
                staged.skipped.append(item)
                _refuse_many(staged.skipped, config.max_skipped)
            else:
                staged.add(item)
                file.write(item.pixels.tobytes())
            progress("reading images", done, total)
        file.flush()
        os.fsync(file.fileno())
    if not staged.names:
        raise UserError(f"data.path: {config.path} holds no usable image{_examples(staged.skipped)}")
    return staged


def _refuse_many(skipped: Sequence[Skipped], limit: int) -> None:
    if len(skipped) > limit:
        raise UserError(
            f"data.max_skipped: at most {limit} images may be unusable, and more are{_examples(skipped)}; "
            "repair or remove them, or raise data.max_skipped"
        )


def _examples(skipped: Sequence[Skipped]) -> str:
    return "".join(f"; {item.name}: {item.reason}" for item in skipped[:_NAMED_SKIPS])


def _choose(staged: _Staged, limit: int | None) -> Indices:
    """Return the ascending indices of the `limit` smallest hashes, train and test in proportion."""
    count = len(staged.names)
    if limit is None or limit >= count:
        return np.arange(count)
    test = np.array(staged.test, dtype=bool)
    from_test = round(limit * int(test.sum()) / count)
    order = np.array(sorted(range(count), key=lambda index: (staged.hashes[index], staged.names[index])))
    parts = [order[test[order]][:from_test], order[~test[order]][: limit - from_test]]
    return np.sort(np.concatenate(parts))


def _compare_by(staged: _Staged, chosen: Indices) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return the chosen images' `(N, C, S, S)` thumbnails and `(N,)` aspects."""
    aspects = np.array([staged.shapes[index][1] / staged.shapes[index][2] for index in chosen])
    return np.stack([staged.thumbnails[index] for index in chosen]), aspects


def _drop_near_test(
    staged: _Staged, chosen: Indices, test: npt.NDArray[np.bool_], tolerance: float
) -> tuple[Indices, dict[str, int]]:
    """Leave out training images that nearly repeat an image of the official test set."""
    repeats = near_any(*_compare_by(staged, chosen), tolerance, test[chosen])
    return chosen[~repeats], {"near_duplicate_of_official_test": int(repeats.sum())}


def _keep_pixels(folder: Path, staged: _Staged, chosen: Indices) -> None:
    """Turn the staged file into `pixels.u8` with the chosen images alone."""
    if len(chosen) == len(staged.names):
        (folder / "staged.u8").rename(folder / "pixels.u8")
        return
    sizes = [int(np.prod(shape)) for shape in staged.shapes]
    ends = np.cumsum(sizes)
    spans = ((int(ends[index]) - sizes[index], int(ends[index])) for index in chosen)
    copy_images(folder / "staged.u8", folder / "pixels.u8", spans)
    (folder / "staged.u8").unlink()


def _records(
    staged: _Staged, chosen: Indices, config: DataConfig, official_test: npt.NDArray[np.bool_] | None
) -> Records:
    records = np.zeros(len(chosen), dtype=RECORD)
    hashes = [staged.hashes[index] for index in chosen]
    records["height"] = [staged.shapes[index][1] for index in chosen]
    records["width"] = [staged.shapes[index][2] for index in chosen]
    records["hash"] = hashes
    records["group"] = group_near_duplicates(*_compare_by(staged, chosen), config.near_duplicate_tolerance)
    records["split"] = assign_splits(
        records["group"],
        hashes,
        seed=config.split_seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        official_test=None if official_test is None else official_test[chosen],
    )
    return records


def _label_names(staged: _Staged, chosen: Indices, source: Source) -> list[str]:
    found = {label for index in chosen if (label := staged.labels[index]) is not None}
    if not found:
        return []
    return list(source.label_names) if source.label_names is not None else sorted(found)


def _fingerprint(records: Records, label_names: Sequence[str], channels: int) -> str:
    """Return 16 hex digits over pixels, sizes, labels and splits, in order; names do not count."""
    digest = hashlib.sha256(f"{channels}".encode())
    for record in records:
        label = label_names[record["label"]] if record["label"] >= 0 else ""
        digest.update(record["hash"])
        digest.update(f"|{label}|{SPLITS[record['split']]}\n".encode())
    return digest.hexdigest()[:16]
