"""Near-duplicates: images whose small thumbnails hardly differ, joined into groups that stay in one split.

Letters: N images, D numbers per thumbnail, S its side, P pairs.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from vae_core.data.area import area_weights
from vae_core.data.sources import Pixels

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
PairFilter = Callable[[Indices, Indices], npt.NDArray[np.bool_]]

THUMBNAIL_SIDE = 8  # px
ASPECT_TOLERANCE = 0.02  # relative difference of height / width
_ROWS, _COLUMNS, _PAIRS = 256, 8192, 1 << 16  # sizes of the blocks; they bound the memory
_SLACK = 1e-9  # for rounding in the lower bounds


def thumbnail(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return the area average of a `(C, H, W)` image over S x S cells as `(C, S, S)` float32 in [0, 1]."""
    rows = area_weights(pixels.shape[1], THUMBNAIL_SIDE)
    columns = area_weights(pixels.shape[2], THUMBNAIL_SIDE)
    return (rows @ (pixels / 255.0) @ columns.T).astype(np.float32)


def near_pairs(
    thumbnails: npt.NDArray[np.float32], aspects: Floats, tolerance: float, wanted: PairFilter | None = None
) -> Iterator[tuple[Indices, Indices]]:
    """Yield every near-duplicate pair once, in blocks of two `(P,)` index arrays; exact for any N.

    A pair is near if the mean absolute difference of its thumbnails is at most `tolerance` and its aspects
    are within 2%. The means of whole thumbnails and of their quarters differ by no more than that, so that
    sorting by mean and comparing quarters leaves few pairs to compare in full.

    Args:
        thumbnails: `(N, C, S, S)` in [0, 1].
        aspects: `(N,)` height / width.
        tolerance: mean absolute difference, of 1.
        wanted: called before the comparison in full; pairs for which it is False are left out.
    """
    count, channels, side, _ = thumbnails.shape
    half = side // 2
    quarters = thumbnails.reshape(count, channels, 2, half, 2, half).mean(axis=(3, 5), dtype=np.float64)
    quarters = quarters.reshape(count, -1)  # (N, 4 C)
    order = np.argsort(quarters.mean(axis=1), kind="stable")
    means, quarters = quarters.mean(axis=1)[order], quarters[order]
    flat = thumbnails.reshape(count, -1).astype(np.float64)  # (N, D)
    limit = tolerance * quarters.shape[1] + _SLACK
    for top in range(0, count, _ROWS):
        bottom = min(top + _ROWS, count)
        end = int(np.searchsorted(means, means[bottom - 1] + tolerance + _SLACK, side="right"))
        for left in range(top, end, _COLUMNS):
            right = min(left + _COLUMNS, end)
            rows, columns = np.nonzero(cdist(quarters[top:bottom], quarters[left:right], "cityblock") <= limit)
            later = columns + left > rows + top
            first, second = order[rows[later] + top], order[columns[later] + left]
            yield from _compare(flat, aspects, tolerance, first, second, wanted)


def _compare(
    flat: Floats,
    aspects: Floats,
    tolerance: float,
    first: Indices,
    second: Indices,
    wanted: PairFilter | None,
) -> Iterator[tuple[Indices, Indices]]:
    for start in range(0, len(first), _PAIRS):
        a, b = first[start : start + _PAIRS], second[start : start + _PAIRS]
        alike = np.abs(aspects[a] - aspects[b]) <= ASPECT_TOLERANCE * np.maximum(aspects[a], aspects[b])
        if wanted is not None:
            alike &= wanted(a, b)
        a, b = a[alike], b[alike]
        near = np.abs(flat[a] - flat[b]).mean(axis=1) <= tolerance + _SLACK
        if near.any():
            yield a[near], b[near]


def group_near_duplicates(thumbnails: npt.NDArray[np.float32], aspects: Floats, tolerance: float) -> Indices:
    """Return `(N,)`: the number of each image's group, where near-duplicates (and theirs) share a group.

    See `near_pairs` for the arguments. Groups are numbered by their first image.
    """
    count = len(thumbnails)
    groups = np.arange(count, dtype=np.int64)
    for first, second in near_pairs(thumbnails, aspects, tolerance, lambda a, b: groups[a] != groups[b]):
        edges = coo_array((np.ones(len(first), dtype=bool), (groups[first], groups[second])), shape=(count, count))
        _, joined = connected_components(edges, directed=False)
        groups[:] = joined[groups]
    _, firsts, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts)).astype(np.int64)[numbers]


def near_any(
    thumbnails: npt.NDArray[np.float32], aspects: Floats, tolerance: float, marked: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return `(N,)`: which unmarked images are a near-duplicate of a marked one."""
    found = np.zeros(len(marked), dtype=bool)
    for first, second in near_pairs(thumbnails, aspects, tolerance, lambda a, b: marked[a] != marked[b]):
        found[first] = True
        found[second] = True
    return found & ~marked
