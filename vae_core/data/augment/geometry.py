"""Geometric augmentations; each takes an image `(C, h, w)` in [0, 1] and returns one of the same size."""

import math

import torch
from torch import Tensor

from vae_core.data.augment.draws import happens, log_uniform, uniform
from vae_core.data.augment.warp import homography, rotation, warp, window

_ASPECT = 4 / 3


def resize_crop(image: Tensor, key: torch.Generator, *, resized_crop: float, resized_crop_min_area: float) -> Tensor:
    """Enlarge a random window, of at least `resized_crop_min_area` of the image, to the image's size.

    The window's aspect is the image's times a factor of 3/4 to 4/3, less where the window would not fit.
    """
    if not happens(key, resized_crop):
        return image
    _, height, width = image.shape
    area = uniform(key, resized_crop_min_area, 1)
    aspect = min(max(log_uniform(key, 1 / _ASPECT, _ASPECT), area), 1 / area)
    tall, wide = math.sqrt(area / aspect), math.sqrt(area * aspect)  # shares of the sides
    top, left = uniform(key, 0, 1 - tall) * height, uniform(key, 0, 1 - wide) * width
    return warp(image, window(top, left, tall, wide))


def flip_left_right(image: Tensor, key: torch.Generator, *, flip_horizontal: float) -> Tensor:
    """Exchange left and right."""
    return image.flip(2) if happens(key, flip_horizontal) else image


def flip_up_down(image: Tensor, key: torch.Generator, *, flip_vertical: float) -> Tensor:
    """Exchange top and bottom."""
    return image.flip(1) if happens(key, flip_vertical) else image


def change_perspective(
    image: Tensor, key: torch.Generator, *, perspective: float, perspective_distortion: float
) -> Tensor:
    """Move each corner inwards by up to `perspective_distortion` of half the side, as torchvision does."""
    if not happens(key, perspective):
        return image
    _, height, width = image.shape
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    moves = torch.rand(4, 2, generator=key).mul_(perspective_distortion / 2).tolist()
    moved = [
        (x + dx * (width - 2 * x), y + dy * (height - 2 * y)) for (x, y), (dx, dy) in zip(corners, moves, strict=True)
    ]
    return warp(image, homography(moved, corners))


def rotate(image: Tensor, key: torch.Generator, *, rotation_degrees: float) -> Tensor:
    """Rotate about the middle by up to +-`rotation_degrees`."""
    _, height, width = image.shape
    return warp(image, rotation(uniform(key, -rotation_degrees, rotation_degrees), height, width))


def move(image: Tensor, key: torch.Generator, *, shift: float) -> Tensor:
    """Move along each side by up to +-`shift` of it."""
    _, height, width = image.shape
    return warp(image, window(uniform(key, -shift, shift) * height, uniform(key, -shift, shift) * width, 1, 1))
