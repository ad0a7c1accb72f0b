"""Encoders and decoders of a few plain layers: 4x4 convolutions, and fully connected ones.

Shapes: B images, C channels, H x W pixels, F features, M latent dimensions, h x w positions of a spatial latent.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vae_core.models.coders import ImageDecoder, ImageEncoder, code_layer, on_grid, stretch
from vae_core.models.parts import SpatialPyramid

_KERNEL, _STRIDE, _PADDING = 4, 2, 1  # halves a size exactly; transposed, doubles it


class ConvEncoder(ImageEncoder):
    """4x4 convolutions of stride 2 with ReLU, then a spatial pyramid.

    A pyramid of one level that is the feature map's own size (7 for 28 x 28 px and two convolutions) is a plain
    flattening. With `spatial` the feature map is returned as it is.
    """

    def __init__(self, channels: int, *, widths: Sequence[int], spp_levels: Sequence[int], spatial: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, _KERNEL, _STRIDE, _PADDING), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.pyramid = None if spatial else SpatialPyramid(spp_levels)
        self.features = widths[-1] * (self.pyramid.bins if self.pyramid else 1)
        self.spatial = spatial
        self.stride = 1 << len(widths)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, F)`, or `(B, F, h, w)` where `spatial`."""
        features: Tensor = self.layers(images)
        return self.pyramid(features) if self.pyramid else features


class ConvDecoder(ImageDecoder):
    """A linear layer to a small grid, then transposed 4x4 convolutions of stride 2, ReLU before each.

    With `follows_input` the grid is first stretched so that the doublings end at the image's size; logits that
    do not have it yet are stretched to it (bilinear) at the end.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: int,
        *,
        widths: Sequence[int],
        grid: tuple[int, int],
        follows_input: bool,
        spatial: bool,
    ) -> None:
        super().__init__()
        self.grid = (widths[0], *grid)
        self.follows_input = follows_input
        self.enlargement = 2 ** len(widths)
        self.project = code_layer(latent_dim, self.grid, spatial=spatial)
        layers: list[nn.Module] = []
        for before, after in pairwise((*widths, channels)):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, _KERNEL, _STRIDE, _PADDING)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, size: tuple[int, int], skips: tuple[Tensor, ...] = ()) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`."""
        features = on_grid(self.project(z), self.grid)
        if self.follows_input:
            features = stretch(features, (-(-size[0] // self.enlargement), -(-size[1] // self.enlargement)))
        return stretch(self.layers(features), size)


class MlpEncoder(ImageEncoder):
    """Fully connected layers with ReLU over all pixels of images of one size.

    Args:
        channels: C.
        image_size: height and width (px) of every image, padding included.
        widths: units of each layer.
    """

    spatial = False
    stride = 1

    def __init__(self, channels: int, *, image_size: tuple[int, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.image_size = image_size
        layers: list[nn.Module] = []
        for before, after in pairwise((channels * image_size[0] * image_size[1], *widths)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, F)`.

        Raises:
            ValueError: the images have another size.
        """
        _check_size((images.shape[-2], images.shape[-1]), self.image_size)
        features: Tensor = self.layers(images.flatten(1))
        return features


class MlpDecoder(ImageDecoder):
    """Fully connected layers with ReLU between them, from `(B, M)` to all pixels of images of one size."""

    def __init__(self, latent_dim: int, channels: int, *, image_size: tuple[int, int], widths: Sequence[int]) -> None:
        super().__init__()
        self.image = (channels, *image_size)
        layers: list[nn.Module] = []
        for before, after in pairwise((latent_dim, *widths)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], channels * image_size[0] * image_size[1]))

    def forward(self, z: Tensor, size: tuple[int, int], skips: tuple[Tensor, ...] = ()) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`.

        Raises:
            ValueError: `size` is not the model's.
        """
        _check_size(size, (self.image[1], self.image[2]))
        logits: Tensor = self.layers(z)
        return logits.view(-1, *self.image)


def _check_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        raise ValueError(
            f"network: mlp takes images of image_size {expected[0]} x {expected[1]} px, not {size[0]} x {size[1]}"
        )
