"""Additive painting: every node adds 1 over its box, then the canvas is divided by its maximum depth.

Because painting is additive, the area average of the canvas over output pixels is a sum of outer products of
row and column coverages. An image of any size is therefore painted exactly without the canvas at full size.
Letters: N boxes, H and W output height and width in px.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vae_core.data.area import coverage
from vae_core.data.layout import Boxes, Layout

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_BLOCK = 4096  # boxes per matrix product; bounds the memory of trees with very many nodes


def output_height(layout: Layout, width: int) -> int:
    """Return the height in px of the layout scaled to `width` px, at least 1."""
    return max(1, int(np.floor(layout.height * width / layout.width + 0.5)))


def max_depth(boxes: Boxes) -> int:
    """Return the largest number of boxes over any one point; exact, on the grid of the distinct edges."""
    xs, columns = np.unique(boxes[:, [0, 2]], return_inverse=True)
    ys, rows = np.unique(boxes[:, [1, 3]], return_inverse=True)
    columns, rows = columns.reshape(-1, 2), rows.reshape(-1, 2)
    change = np.zeros((len(ys), len(xs)), dtype=np.int32)
    for row, column, sign in ((0, 0, 1), (0, 1, -1), (1, 0, -1), (1, 1, 1)):
        np.add.at(change, (rows[:, row], columns[:, column]), sign)
    return int(change.cumsum(axis=0).cumsum(axis=1).max(initial=0))


def _window(layout: Layout, width: int, max_height: int | None) -> tuple[int, int, int]:
    """Return the full output height, and the first row and number of rows of its centred crop."""
    height = output_height(layout, width)
    count = min(height, max_height or height)
    return height, (height - count) // 2, count


def paint_gray(layout: Layout, width: int, max_height: int | None = None) -> Floats:
    """Return `(H, W)` in [0, 1]: the painted canvas averaged over output pixels, cropped to its middle rows.

    Args:
        layout: the boxes.
        width: px of the output; the aspect is kept, the height rounded.
        max_height: px; more rows than this are cropped away equally above and below.
    """
    height, first, count = _window(layout, width, max_height)
    canvas = np.zeros((count, width))
    for start in range(0, len(layout.boxes), _BLOCK):
        boxes = layout.boxes[start : start + _BLOCK]
        rows = coverage(boxes[:, 1], boxes[:, 3], layout.height, height, first, count)  # (N, H)
        columns = coverage(boxes[:, 0], boxes[:, 2], layout.width, width, 0, width)  # (N, W)
        canvas += rows.T @ columns
    return np.clip(canvas / max_depth(layout.boxes), 0.0, 1.0)


def paint_colour(layout: Layout, width: int, palette: Mapping[str, Colour], max_height: int | None = None) -> Floats:
    """Return `(3, H, W)` in [0, 1]: boxes over one another in the colour of their kind, edges antialiased.

    A kind that the palette lacks is not drawn.
    """
    height, first, count = _window(layout, width, max_height)
    canvas = np.ones((3, count, width))
    for box, kind in zip(layout.boxes, layout.kinds, strict=True):
        if kind not in palette:
            continue
        one = box[None]
        rows = coverage(one[:, 1], one[:, 3], layout.height, height, first, count)[0]
        columns = coverage(one[:, 0], one[:, 2], layout.width, width, 0, width)[0]
        down, across = np.flatnonzero(rows), np.flatnonzero(columns)
        if len(down) == 0 or len(across) == 0:
            continue
        tall, wide = slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1)
        share = np.outer(rows[tall], columns[wide])
        colour = np.array(palette[kind])[:, None, None] / 255
        canvas[:, tall, wide] += share * (colour - canvas[:, tall, wide])
    return np.clip(canvas, 0.0, 1.0)


def to_uint8(image: Floats) -> Pixels:
    """Return the image of [0, 1] as whole numbers of 0 to 255, rounded to the nearest."""
    return np.floor(image * 255 + 0.5).astype(np.uint8)
