"""Exact area averages: how much of each output cell an interval of input px covers."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def coverage(starts: Ints, ends: Ints, length: int, cells: int, first: int = 0, count: int | None = None) -> Floats:
    """Return `(N, count)`: the share of each cell that each interval covers.

    Args:
        starts: `(N,)` beginnings of the intervals in px.
        ends: `(N,)` their ends.
        length: px that are divided into `cells` equal cells.
        cells: number of cells.
        first: the first cell to return.
        count: how many to return; default: all from `first`.
    """
    size = length / cells
    edges = (first + np.arange((cells - first if count is None else count) + 1)) * size
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    shares: Floats = np.maximum(overlap, 0.0) / size
    return shares


@lru_cache(maxsize=256)
def area_weights(length: int, cells: int, first: int = 0, count: int | None = None) -> Floats:
    """Return `(count, length)`: the share of each of `length` px in each cell; every row sums to 1.

    `weights @ column` is then the column's area average over the cells.
    """
    pixels = np.arange(length, dtype=np.int64)
    weights: Floats = np.ascontiguousarray(coverage(pixels, pixels + 1, length, cells, first, count).T)
    weights.setflags(write=False)
    return weights
