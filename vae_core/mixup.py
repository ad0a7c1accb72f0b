"""Latent mixup: images are drawn from codes between their own and a partner's, and judged against both.

Source: Zhang et al. 2018, "mixup", with the code for the input and the pair of reconstructions for the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_core.losses import Objective
from vae_core.random_streams import numpy_generator

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mixing:
    """Who is mixed with whom in one effective batch of N images.

    Attributes:
        partners: `(N,)` positions in the batch; an image whose padded shape no other has is its own partner.
        shares: `(N,)` float32 in [0, 1], what an image keeps of its own code.
    """

    partners: Positions
    shares: Tensor

    def shares_of(self, positions: Positions) -> Tensor:
        """Return the shares of the images at `positions`, `(B,)`."""
        return self.shares[torch.from_numpy(positions)]


def plan_mixing(shapes: Sequence[tuple[int, int]], alpha: float, seed: int, step: int) -> Mixing:
    """Return the mixing of an effective batch, which its split into micro-batches does not change.

    Args:
        shapes: padded height and width (px) of each image; only equal ones are mixed.
        alpha: shares are drawn from Beta(alpha, alpha): near 0 or 1 for a small one, evenly for 1.
        seed: of the run.
        step: number of the optimizer step.
    """
    draws = numpy_generator("mixup", seed, step)
    partners = np.arange(len(shapes), dtype=np.int64)
    for shape in sorted(set(shapes)):
        circle = draws.permutation([position for position, other in enumerate(shapes) if other == shape])
        partners[circle] = np.roll(circle, -1)
    return Mixing(partners, torch.from_numpy(draws.beta(alpha, alpha, size=len(shapes)).astype(np.float32)))


def between(own: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """Return `share * own + (1 - share) * others` for codes `(B, ...)` and `shares (B,)`."""
    return torch.lerp(others, own, shares.to(own.dtype).view(-1, *[1] * (own.dim() - 1)))


def mixed(own: Objective, other: Objective, shares: Tensor) -> Objective:
    """Return the objective of images judged against two targets, each by its share `(B,)`."""
    return Objective(
        between(own.total, other.total, shares),
        between(own.reconstruction, other.reconstruction, shares),
        own.kl,
        {name: between(part, other.parts[name], shares) for name, part in own.parts.items()},
    )
