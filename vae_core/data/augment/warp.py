"""Resampling of an image along a projective map.

Coordinates are px: x to the right and y down from the upper left corner, so that the first pixel's middle is
(0.5, 0.5). A map is a 3x3 matrix that takes a point of the result to the point of the image that it shows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Matrix = Sequence[Sequence[float]]
Corners = Sequence[tuple[float, float]]


def warp(image: Tensor, matrix: Matrix) -> Tensor:
    """Return what `matrix` shows of `image (C, h, w)`, of the same size.

    Between pixels it is bilinear; outside the image it shows the nearest pixel of the edge, so that no black
    corners become something to learn.
    """
    _, height, width = image.shape
    x = torch.arange(width) + 0.5  # (w,)
    y = torch.arange(height)[:, None] + 0.5  # (h, 1)
    grid = torch.empty(1, height, width, 2)  # where each pixel looks, the image reaching from -1 to 1
    for axis, side in enumerate((width, height)):
        a, b, c = (2 / side * number for number in matrix[axis])
        torch.add(a * x, b * y + c, out=grid[0, :, :, axis])
    a, b, c = matrix[2]
    grid.div_((a * x + (b * y + c))[None, :, :, None]).sub_(1)
    shown = torch.nn.functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)
    return shown[0].clamp_(0, 1)


def rotation(degrees: float, height: int, width: int) -> Matrix:
    """Return the map of a counter-clockwise rotation about the middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y), (0.0, 0.0, 1.0)


def window(top: float, left: float, tall: float, wide: float) -> Matrix:
    """Return the map that shows from (left, top) on, `tall` and `wide` px of the image per px of the result."""
    return (wide, 0.0, left), (0.0, tall, top), (0.0, 0.0, 1.0)


def homography(moved: Corners, corners: Corners) -> Matrix:
    """Return the map that takes each of four points `moved` (x, y) of the result to one of `corners`."""
    rows, values = [], []
    for (x, y), (u, v) in zip(moved, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    system, right = (torch.tensor(numbers, dtype=torch.float64) for numbers in (rows, values))
    a, b, c, d, e, f, g, h = torch.linalg.solve(system, right).tolist()
    return (a, b, c), (d, e, f), (g, h, 1.0)
