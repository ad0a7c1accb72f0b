"""What a model says about a batch's latent, and what every family of models offers.

Letters: B images, C channels, H x W padded pixels, M latent dimensions (channels, groups of positions),
h x w positions of a spatial latent, K codes of a codebook, Y labels; R = B rows, or B Y of them (see `Latent`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Latent:
    """The posterior of one batch, a sample of it, and what the sample costs.

    Attributes:
        z: `(B, ...)`, the sampled code that `decode` takes.
        mu: `(B, M)` or `(B, M, h, w)` float32, the code without noise, for active units and clusters.
        logvar: shaped like `mu`, log variance in nats; None where the posterior has none.
        kl: `(B, M)` float32, nats; KL to the prior, summed over the positions of a spatial latent.
        skips: features of the encoder that the decoder takes beside z, the finest first; usually none.
        losses: further terms of the training objective by name, `(B,)` float32 each, weighted already.
        groups: sizes of the groups that the M dimensions fall into, from the top down; none: one group.
        code_counts: `(B, K)` float32, how often each image uses each code; None without a codebook, and in training.
        labels: `(R,)` int64 on the CPU, the labels that z was inferred with, and is to be decoded with; None without
            conditioning. Where they are unknown, every image is inferred once for each label: R = B Y, one image's
            rows in a block. Then B in the shapes above is R, but for `losses`, whose images are the B ones.
        label_probabilities: `(B, Y)` float32, q(y|x); None without a classifier.
    """

    z: Tensor
    mu: Tensor
    logvar: Tensor | None
    kl: Tensor
    skips: tuple[Tensor, ...] = ()
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    code_counts: Tensor | None = None
    labels: Tensor | None = None
    label_probabilities: Tensor | None = None

    def over_labels(self, values: Tensor) -> Tensor:
        """Return the mean under q(y|x), `(B, ...)`, of `values (R, ...)`; the values themselves where R is B."""
        weights = self.label_probabilities
        if weights is None or values.shape[0] == weights.shape[0]:
            return values
        return torch.einsum("by,by...->b...", weights, values.reshape(*weights.shape, *values.shape[1:]))


class LatentModel(nn.Module, ABC):
    """A family of models: images to a `Latent`, and back to logits.

    All randomness comes in as standard normal numbers, so that the caller keys it.

    Attributes:
        latent_dim: M.
        has_prior: whether there is a prior: a rate that means something, and samples to draw.
        unit_prior: whether the prior of `mu` is N(0, I), so that its variance says which dimensions are used.
        classes: Y, how many labels images are inferred and decoded with; 0 without conditioning.
        has_adversary: whether a discriminator, which is no part of the model, opposes it in training.
    """

    latent_dim: int
    has_prior: bool = True
    unit_prior: bool = True
    classes: int = 0
    has_adversary: bool = False

    @abstractmethod
    def noise_size(self, size: tuple[int, int]) -> int:
        """Return how many standard normal numbers `infer` and `prior` take per image of padded `size = (H, W)`."""

    def positions(self, size: tuple[int, int]) -> int:
        """Return how many times the latent holds `latent_dim` numbers for an image of padded `size`; 1: a vector."""
        return 1

    @abstractmethod
    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the latent of `images (B, C, H, W)` for `noise (B, noise_size)`; float32 even under autocast.

        B is asked for as `images.shape[0]`: Python's `len` would make it a fixed number in an exported graph.

        Args:
            images: in [0, 1].
            noise: standard normal.
            labels: `(B,)` int64 on the CPU, all of them known or all unknown, -1; None: all unknown, which
                `torch.export` can follow, as it cannot what depends on values. Ignored without conditioning.
        """

    @abstractmethod
    def decode(
        self, z: Tensor, size: tuple[int, int], labels: Tensor | None = None, skips: tuple[Tensor, ...] = ()
    ) -> Tensor:
        """Return logits `(B, C, H, W)` for `size = (H, W)`; the image is their sigmoid."""

    @abstractmethod
    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Return draws of z from the prior, made from `noise (B, noise_size)`.

        Raises:
            UserError: the family has no prior.
        """

    def start_step(self, position: float) -> None:
        """Prepare for the optimizer step that starts at `position` in epochs; called before each."""
        return

    def finish_step(self) -> None:
        """Take over what the micro-batches of one effective batch gathered; called after each optimizer step."""
        return
