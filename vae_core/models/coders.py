"""What encoders and decoders have in common, and the pair that is made of blocks, for images of any size.

Shapes: B images, C channels, H x W pixels, F features, M latent dimensions, h x w positions of a spatial latent.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.models.parts import SpatialPyramid, normalised_conv

# (in channels, out channels, stride) -> block
BlockFactory = Callable[[int, int, int], nn.Module]


class ImageEncoder(nn.Module, ABC):
    """Images `(B, C, H, W)` to features: `(B, F)`, or `(B, F, h, w)` where `spatial`.

    Attributes:
        features: F.
        spatial: whether the features have positions; a latent made of them has the same.
        stride: px of the image for each position.
    """

    features: int
    spatial: bool
    stride: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""

    def with_maps(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features, and the maps `(B, width, H / stride, W / stride)` for the decoder, finest first."""
        return self(images), ()

    def positions(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return `(h, w)` for images of padded `size = (H, W)`, `()` where features have no positions."""
        return (size[0] // self.stride, size[1] // self.stride) if self.spatial else ()

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        """Return a linear layer from `inputs` to `outputs` features, applied to each position where there are any."""
        return nn.Conv2d(inputs, outputs, kernel_size=1) if self.spatial else nn.Linear(inputs, outputs)


class ImageDecoder(nn.Module, ABC):
    """Codes `(B, M)` or `(B, M, h, w)` to logits of images of a given size."""

    @abstractmethod
    def forward(self, z: Tensor, size: tuple[int, int], skips: tuple[Tensor, ...] = ()) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`; `skips` as `ImageEncoder.with_maps` gives them."""

    def start_step(self, position: float) -> None:
        """Prepare for the optimizer step that starts at `position` in epochs."""
        return


class Encoder(ImageEncoder):
    """A strided stem, a halving block per further width, a spatial pyramid: `(B, C, H, W)` to `(B, F)`.

    With `spatial` the last block's feature map is returned as it is.

    Attributes:
        maps: px per position and channels of what `with_maps` gives the decoder; empty without `keep_maps`.
    """

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
        spatial: bool,
        keep_maps: bool = False,
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
        self.pyramid = None if spatial else SpatialPyramid(spp_levels)
        first = 4 if stem_pool else 2
        self.maps = {first << level: width for level, width in enumerate(widths[:-1])} if keep_maps else {}
        self.features = widths[-1] * (self.pyramid.bins if self.pyramid else 1)
        self.spatial = spatial
        self.stride = 1 << (len(widths) + int(stem_pool))

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features `(B, F)`, F = last width times the pyramid's bins, or the map."""
        return self.with_maps(images)[0]

    def with_maps(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features and, where they are kept, the maps of the stem and of each block but the last."""
        features = self.stem(images)
        maps = []
        for block in self.blocks:
            maps.append(features)
            features = block(features)  # (B, width, h, w)
        return (self.pyramid(features) if self.pyramid else features), tuple(maps) if self.maps else ()


class Decoder(ImageDecoder):
    """A linear layer to a small grid, then doublings with a block after all but the last: `(B, M)` to pixels.

    With `follows_input` the grid is first stretched so that the doublings end at the image's size; otherwise
    the decoder draws at its own fixed size. Logits that do not have the image's size yet are stretched to it
    (bilinear) at the end. With `spatial` the grid is a 1x1 convolution of the code `(B, M, h, w)`. With `skips` the
    encoder's maps are added where the scales meet; without maps, as for samples, nothing is added.
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
        spatial: bool,
        skips: "SkipJoins | None" = None,
    ) -> None:
        super().__init__()
        self.skips = skips
        self.grid = (widths[0], *grid)
        self.follows_input = follows_input
        self.enlargement = 2 ** len(widths)
        self.project = code_layer(latent_dim, self.grid, spatial=spatial)
        self.blocks = nn.ModuleList(make_block(before, after, 1) for before, after in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)

    def start_step(self, position: float) -> None:
        """Open or shut the skips for the step that starts at `position` in epochs."""
        if self.skips:
            self.skips.start_step(position)

    def forward(self, z: Tensor, size: tuple[int, int], skips: tuple[Tensor, ...] = ()) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`."""
        features = on_grid(self.project(z), self.grid)
        if self.follows_input:
            features = stretch(features, (-(-size[0] // self.enlargement), -(-size[1] // self.enlargement)))
        for level, block in enumerate(self.blocks):
            features = _double(features)
            if self.skips and skips:
                features = self.skips(features, level, skips)
            features = block(features)
        return stretch(self.head(_double(features)), size)


class SkipJoins(nn.Module):
    """Adds the encoder's maps to the decoder's features, each by a 1x1 convolution; shut during a warm-up.

    Args:
        maps: px per position and channels of each of the encoder's maps, the finest first.
        widths: channels of the decoder's grid and after each block but the last.
        warmup_epochs: how long nothing is added.
    """

    gate: Tensor  # scalar: 1 open, 0 shut; part of the state, so kept weights are measured as they were

    def __init__(self, maps: Mapping[int, int], widths: Sequence[int], *, warmup_epochs: float) -> None:
        super().__init__()
        self.warmup_epochs = warmup_epochs
        self.register_buffer("gate", torch.zeros(()))
        strides = [1 << (len(widths) - 1 - level) for level in range(len(widths) - 1)]  # of each block's input
        self.places = {level: list(maps).index(stride) for level, stride in enumerate(strides) if stride in maps}
        self.joins = nn.ModuleDict(
            {str(level): nn.Conv2d(maps[strides[level]], widths[level], kernel_size=1) for level in self.places}
        )

    def fill_buffers(self, generator: torch.Generator) -> None:
        """Open the gate unless there is a warm-up."""
        self.start_step(0.0)

    def start_step(self, position: float) -> None:
        """Open or shut the gate for the step that starts at `position` in epochs."""
        self.gate.fill_(float(position >= self.warmup_epochs))

    def forward(self, features: Tensor, level: int, skips: tuple[Tensor, ...]) -> Tensor:
        """Return `features (B, width, h, w)` of the input of block `level` with the map of their scale added."""
        if level not in self.places:
            return features
        added = self.joins[str(level)](skips[self.places[level]])
        return features + self.gate * stretch(added, (features.shape[-2], features.shape[-1]))


def code_layer(latent_dim: int, grid: tuple[int, int, int], *, spatial: bool) -> nn.Module:
    """Return the layer from a code to `grid` (channels, rows, columns), or to its channels at each position."""
    if spatial:
        return nn.Conv2d(latent_dim, grid[0], kernel_size=1)
    return nn.Linear(latent_dim, grid[0] * grid[1] * grid[2])


def on_grid(features: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Return what a `code_layer` gave as a feature map: `(B, *grid)` from a vector, a map as it is."""
    return features if features.dim() == 4 else features.view(-1, *grid)


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def stretch(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a feature map at `size`, bilinear; untouched where it has it."""
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
