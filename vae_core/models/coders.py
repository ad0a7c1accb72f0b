"""Encoder and decoder for images of any size.

Shapes: B images, C channels, H x W pixels, F pooled features, M latent dimensions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.models.parts import SpatialPyramid, normalised_conv

# (in channels, out channels, stride) -> block
BlockFactory = Callable[[int, int, int], nn.Module]


class Encoder(nn.Module):
    """A strided stem, a halving block per further width, a spatial pyramid: `(B, C, H, W)` to `(B, F)`."""

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int],
        stem_kernel: int,
        stem_pool: bool,
        spp_levels: Sequence[int],
        norm_groups: int,
        make_block: BlockFactory,
    ) -> None:
        super().__init__()
        stem: list[nn.Module] = [
            *normalised_conv(channels, widths[0], kernel_size=stem_kernel, stride=2, norm_groups=norm_groups),
            nn.ReLU(),
        ]
        if stem_pool:
            stem.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(*(make_block(before, after, 2) for before, after in pairwise(widths)))
        self.pyramid = SpatialPyramid(spp_levels)
        self.features = widths[-1] * self.pyramid.bins

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features `(B, F)`, F = last width times the pyramid's bins."""
        pooled: Tensor = self.pyramid(self.blocks(self.stem(images)))
        return pooled


class Decoder(nn.Module):
    """A linear layer to a small grid, then doublings with a block after all but the last: `(B, M)` to pixels.

    With `follows_input` the grid is first stretched so that the doublings end at the image's size; otherwise
    the decoder draws at its own fixed size. Logits that do not have the image's size yet are stretched to it
    (bilinear) at the end.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: int,
        *,
        widths: Sequence[int],
        grid: tuple[int, int],
        follows_input: bool,
        make_block: BlockFactory,
    ) -> None:
        super().__init__()
        self.grid = (widths[0], *grid)
        self.follows_input = follows_input
        self.enlargement = 2 ** len(widths)
        self.project = nn.Linear(latent_dim, widths[0] * grid[0] * grid[1])
        self.blocks = nn.ModuleList(make_block(before, after, 1) for before, after in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)

    def forward(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`."""
        features = self.project(z).unflatten(1, self.grid)
        if self.follows_input:
            features = _stretch(features, (-(-size[0] // self.enlargement), -(-size[1] // self.enlargement)))
        for block in self.blocks:
            features = block(_double(features))
        return _stretch(self.head(_double(features)), size)


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _stretch(features: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
