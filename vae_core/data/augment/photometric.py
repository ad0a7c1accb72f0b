"""Augmentations of brightness, contrast and colour, and torchvision's AutoAugment.

Each takes an image `(C, h, w)` in [0, 1], C 1 or 3, and returns one of the same size.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vae_core.data.augment.draws import uniform

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision weighs red, green and blue


def jitter_brightness(image: Tensor, key: torch.Generator, *, brightness_jitter: float) -> Tensor:
    """Multiply by a factor of up to 1 +- `brightness_jitter`."""
    return (image * uniform(key, 1 - brightness_jitter, 1 + brightness_jitter)).clamp_(0, 1)


def jitter_contrast(image: Tensor, key: torch.Generator, *, contrast_jitter: float) -> Tensor:
    """Multiply distances from the image's mean gray by a factor of up to 1 +- `contrast_jitter`."""
    factor = uniform(key, 1 - contrast_jitter, 1 + contrast_jitter)
    means = image.mean(dim=(1, 2))  # (C,)
    gray = means if len(means) == 1 else (means * torch.tensor(_LUMA)).sum()
    return (image * factor + gray * (1 - factor)).clamp_(0, 1)


def apply_policy(image: Tensor, key: torch.Generator, *, auto_augment: str) -> Tensor:
    """Apply a random part of a learned policy to the image in 8 bits.

    torchvision draws from torch's global CPU generator: it is seeded for the call and put back afterwards. Source:
    Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data".
    """
    seed = int(torch.randint(2**62, (), generator=key))
    pixels = image.mul(255).round_().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the devices as well
        varied = _policy(auto_augment)(pixels)
    return varied.float().div_(255)


@cache
def _policy(name: str) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes seconds, which only this should pay

    policy: Callable[[Tensor], Tensor] = AutoAugment(AutoAugmentPolicy[name.upper()])
    return policy
