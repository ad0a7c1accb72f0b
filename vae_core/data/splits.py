"""Which images are for training, validation and test: near-duplicates together, by hashes alone.

Letters: N images.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vae_core.errors import UserError

Indices = npt.NDArray[np.int64]

SPLITS = ("train", "val", "test")
_TRAIN, _VAL, _TEST = range(3)


def assign_splits(
    groups: Indices,
    hashes: Sequence[str],
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    official_test: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.uint8]:
    """Return `(N,)`: the position in `SPLITS` of every image.

    Groups are ordered by a hash of the seed and of the smallest content hash among their images, and dealt in
    that order to test, then val, then train: to the first of them with room for the whole group. Targets are
    the fractions of N, rounded, at least 1.

    Args:
        groups: `(N,)` group number of each image; a group is never divided.
        hashes: content hash of each image.
        seed: `data.split_seed`.
        val_fraction: share of all images.
        test_fraction: share of all images; unused with `official_test`.
        official_test: `(N,)`, True for the images of the source's own test set, which is then the test split.

    Raises:
        UserError: a split is empty.
    """
    count = len(groups)
    room = {_TEST: max(1, round(test_fraction * count)), _VAL: max(1, round(val_fraction * count))}
    result = np.full(count, _TRAIN, dtype=np.uint8)
    pool = np.arange(count)
    if official_test is not None:
        result[official_test] = _TEST
        pool = np.flatnonzero(~official_test)
        room[_TEST] = 0
    for members in _dealing_order(groups, hashes, pool, seed):
        for split in (_TEST, _VAL):
            if len(members) <= room[split]:
                result[members] = split
                room[split] -= len(members)
                break
    _refuse_empty(result)
    return result


def _dealing_order(groups: Indices, hashes: Sequence[str], pool: Indices, seed: int) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for index in pool.tolist():
        members.setdefault(int(groups[index]), []).append(index)

    def key(group: list[int]) -> str:
        smallest = min(hashes[index] for index in group)
        return hashlib.sha256(f"{seed}:{smallest}".encode()).hexdigest()

    return sorted(members.values(), key=key)


def _refuse_empty(result: npt.NDArray[np.uint8]) -> None:
    counts = {name: int((result == position).sum()) for position, name in enumerate(SPLITS)}
    if min(counts.values()) == 0:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(
            f"data: every split needs at least one image; {len(result)} images gave {found} (near-duplicates "
            "stay together); add images, or lower data.near_duplicate_tolerance"
        )


def combined_hash(hashes: Sequence[str]) -> str:
    """Return 16 hex digits for a set of content hashes, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()[:16]
