"""What families share that put a latent between an encoder and a decoder.

Shapes: B images, C channels, H x W pixels (padded), F features, M latent dimensions, h x w positions of a spatial
latent.
"""

import math
from abc import ABC
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from vae_core.models.coders import ImageDecoder, ImageEncoder
from vae_core.models.latent import LatentModel


class CodedModel(LatentModel, ABC):
    """An encoder, a decoder, and a latent `(B, M)` or `(B, M, h, w)` between them.

    Unless a family says otherwise, noise and prior are one standard normal number per dimension and position.

    Args:
        encoder: images to features.
        decoder: codes to logits.
        latent_dim: M.
        heads: modules between the two, by name; parameters are ordered as data flows.
    """

    def __init__(
        self, encoder: ImageEncoder, decoder: ImageDecoder, *, latent_dim: int, heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = encoder
        for name, head in heads.items():
            self.add_module(name, head)
        self.decoder = decoder

    @property
    def stride(self) -> int:
        """Return the px that sizes must be a multiple of."""
        return self.encoder.stride

    def noise_size(self, size: tuple[int, int]) -> int:
        """Return one number per latent dimension and position."""
        return self.latent_dim * self.positions(size)

    def positions(self, size: tuple[int, int]) -> int:
        """Return how many positions the latent of an image of padded `size` has; 1 for a vector."""
        return math.prod(self.encoder.positions(size))

    def decode(
        self,
        z: Tensor,
        size: tuple[int, int],
        labels: Tensor | None = None,
        skips: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return logits `(B, C, H, W)` for `z (B, M)` or `(B, M, h, w)` and `size = (H, W)`."""
        logits: Tensor = self.decoder(z, size, skips)
        return logits

    def start_step(self, position: float) -> None:
        """Open or shut what a warm-up keeps shut."""
        self.decoder.start_step(position)

    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Return z drawn from N(0, I), which is `noise` itself: `(B, M)`, or `(B, M, h, w)`."""
        return noise.view(-1, self.latent_dim, *self.encoder.positions(size))


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Return bound * tanh(raw / bound): within +-bound, small values as they are, no gradient cut off."""
    return bound * torch.tanh(raw / bound)


def over_positions(values: Tensor) -> Tensor:
    """Return `values (B, M)` as they are, and `(B, M, h, w)` summed over positions: `(B, M)`."""
    return values.flatten(2).sum(2) if values.dim() == 4 else values


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which float32 stays float32."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
