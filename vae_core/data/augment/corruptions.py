"""Corruptions of what the encoder sees; the target stays clean, so that a model learns to undo them.

Each takes an image `(C, h, w)` in [0, 1] and returns one of the same size.
"""

import math

import torch
from torch import Tensor

from vae_core.data.augment.draws import happens, log_uniform, uniform, whole

_ERASED_ASPECTS = (0.3, 3.3)


def add_gaussian_noise(image: Tensor, key: torch.Generator, *, gaussian_noise: float) -> Tensor:
    """Add noise of standard deviation `gaussian_noise`, and clip."""
    return (torch.randn(image.shape, generator=key) * gaussian_noise + image).clamp_(0, 1)


def add_uniform_noise(image: Tensor, key: torch.Generator, *, uniform_noise: float) -> Tensor:
    """Add noise that is uniform in +-`uniform_noise`, and clip."""
    return ((torch.rand(image.shape, generator=key) * 2 - 1) * uniform_noise + image).clamp_(0, 1)


def erase_rectangle(
    image: Tensor,
    key: torch.Generator,
    *,
    erase: float,
    erase_min_area: float,
    erase_max_area: float,
    erase_value: float,
) -> Tensor:
    """Fill a rectangle with `erase_value`.

    Its height over its width is 0.3 to 3.3, or the nearest that fits into the image with its area. Source: Zhong
    et al. 2017, "Random Erasing Data Augmentation".
    """
    if not happens(key, erase):
        return image
    _, height, width = image.shape
    share = uniform(key, erase_min_area, erase_max_area)
    aspect = min(max(log_uniform(key, *_ERASED_ASPECTS), share * height / width), height / (share * width))
    area = share * height * width
    tall = min(height, max(1, round(math.sqrt(area * aspect))))
    wide = min(width, max(1, round(math.sqrt(area / aspect))))
    top, left = whole(key, 0, height - tall), whole(key, 0, width - wide)
    erased = image.clone()
    erased[:, top : top + tall, left : left + wide] = erase_value
    return erased


def sprinkle(image: Tensor, key: torch.Generator, *, salt_pepper: float, salt_pepper_share: float) -> Tensor:
    """Turn a share of the px, in all channels: half of them into salt (white, 1), half into pepper (black, 0)."""
    if not happens(key, salt_pepper):
        return image
    draws = torch.rand(image.shape[1:], generator=key)  # (h, w)
    turned = image.masked_fill(draws < salt_pepper_share, 0.0)
    return turned.masked_fill_(draws < salt_pepper_share / 2, 1.0)
