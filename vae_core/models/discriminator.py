"""A network that tells real images from reconstructions.

Letters: B images, C channels, H x W padded pixels, h x w positions of the last feature map.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

_KERNEL, _STRIDE, _PADDING = 4, 2, 1
_SLOPE = 0.2  # of LeakyReLU below zero


class Discriminator(nn.Module):
    """4x4 convolutions of stride 2 with LeakyReLU, then the mean score of the positions: `(B, C, H, W)` to `(B,)`.

    Images are blackened on their padding, and a position counts by how much of it is real. There is no
    normalisation: over a batch it would tie images to their companions, and over an image it would hide the contrast
    that blurred images lack; spectral normalisation moves with every call, so with how a step is split.

    Args:
        channels: C.
        widths: channels after each convolution.
    """

    def __init__(self, channels: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, _KERNEL, _STRIDE, _PADDING), nn.LeakyReLU(_SLOPE)]
        self.features = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.halvings = len(widths)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the log odds `(B,)` float32 that `images` are real; `mask (B, 1, H, W)` is 1 on real pixels."""
        scores = self.score(self.features(images * mask)).float()  # (B, 1, h, w)
        weight = mask
        for _ in range(self.halvings):
            weight = F.avg_pool2d(weight, _KERNEL, _STRIDE, _PADDING, count_include_pad=False)
        total: Tensor = (scores * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
        return total
