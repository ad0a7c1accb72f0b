"""A VAE with a discrete latent: every position of the encoder's map takes the nearest entry of a codebook.

Shapes: B images, C channels, H x W pixels (padded), M channels of a code, h x w positions, P = B h w positions of a
batch, K codes.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.models.coded import CodedModel, no_autocast
from vae_core.models.coders import ImageDecoder, ImageEncoder
from vae_core.models.latent import Latent

_LEAST_USE = 1e-6  # positions per step; an average of fewer is no average


class Codebook(nn.Module):
    """K vectors that follow the mean of the encodings nearest to them, in exponential averages over steps.

    What the micro-batches of one effective batch gather (`observe`) is taken over at once (`commit`), so how the batch
    is split makes no difference. A code that is used less than `restart` times the mean use moves to one of the
    step's encodings, chosen at random. All state is in buffers.
    Source: van den Oord et al. 2017, appendix A.1 (averages); Dhariwal et al. 2020, "Jukebox" (restarts).

    Args:
        count: K.
        channels: M.
        decay: share of the old averages that a step keeps.
        restart: share of the mean use; 0: no code is ever moved.
    """

    codes: Tensor  # (K, M)
    use: Tensor  # (K,) average number of positions per step
    sums: Tensor  # (K, M) average over steps of the sum of the encodings that took the code
    step_use: Tensor  # (K,) of the current step
    step_sums: Tensor  # (K, M) of the current step
    spare: Tensor  # (K, M) encodings of the current step drawn at random, the first to be used first
    rank: Tensor  # (K,) the random numbers that drew them, descending; -inf where nothing was drawn

    def __init__(self, count: int, channels: int, *, decay: float, restart: float) -> None:
        super().__init__()
        self.decay, self.restart = decay, restart
        for name in ("codes", "sums", "step_sums", "spare"):
            self.register_buffer(name, torch.zeros(count, channels))
        for name in ("use", "step_use", "rank"):
            self.register_buffer(name, torch.zeros(count))

    def fill_buffers(self, generator: torch.Generator) -> None:
        """Draw the first codes from U(-1/K, 1/K), as the paper's code does, and forget all use."""
        for buffer in self.buffers():
            buffer.zero_()
        count = len(self.codes)
        self.codes.copy_(torch.empty(self.codes.shape).uniform_(-1 / count, 1 / count, generator=generator))
        self.rank.fill_(-math.inf)

    def nearest(self, encodings: Tensor) -> Tensor:
        """Return the index `(P,)` of the code nearest to each of `encodings (P, M)`."""
        squares = self.codes.square().sum(1) - 2 * encodings @ self.codes.T  # (P, K), without |encoding|^2
        return squares.argmin(dim=1)

    @torch.no_grad()
    def observe(self, encodings: Tensor, chosen: Tensor, rank: Tensor) -> None:
        """Gather `encodings (P, M)`, their codes `chosen (P,)` and the random numbers `rank (P,)` that draw spares."""
        one_hot = _one_hot(chosen, len(self.codes))  # (P, K); sums as a product: deterministic everywhere
        self.step_use += one_hot.sum(0)
        self.step_sums += one_hot.T @ encodings
        best = torch.topk(torch.cat([self.rank, rank]), len(self.codes))
        self.rank.copy_(best.values)
        self.spare.copy_(torch.nan_to_num(torch.cat([self.spare, encodings])[best.indices]))

    @torch.no_grad()
    def commit(self) -> None:
        """Take over what the step gathered, and forget it; a step with a number that is not finite is left out."""
        share = (1 - self.decay) * torch.isfinite(self.step_sums).all().to(self.use.dtype)
        self.use.lerp_(self.step_use, share)
        self.sums.lerp_(torch.nan_to_num(self.step_sums), share)
        self.rank.masked_fill_(share == 0, -math.inf)
        known = (self.use > _LEAST_USE)[:, None]
        self.codes.copy_(torch.where(known, self.sums / self.use.clamp_min(_LEAST_USE)[:, None], self.codes))
        self._restart_unused()
        self.step_use.zero_()
        self.step_sums.zero_()
        self.rank.fill_(-math.inf)

    def _restart_unused(self) -> None:
        mean = self.use.mean()
        unused = self.use < self.restart * mean
        place = (unused.cumsum(0) - 1).clamp_min(0)  # the n-th unused code takes the n-th spare
        moved = unused & (self.rank[place] > -math.inf)
        self.codes.copy_(torch.where(moved[:, None], self.spare[place], self.codes))
        self.use.copy_(torch.where(moved, mean, self.use))
        self.sums.copy_(torch.where(moved[:, None], self.codes * mean, self.sums))


class VQVAE(CodedModel):
    """A VQ-VAE: encodings are rounded to codes, whose gradient goes straight through to the encoder.

    The prior is uniform over codes and the posterior certain, so the KL is h w ln K nats per image, a constant that
    is written as equal shares of the M channels. The commitment loss is weight * |encoding - code|^2 / 2 per image:
    in nats as a Gaussian of variance 1 / weight around the code would have it. `mu` and z are the codes themselves.
    Source: van den Oord et al. 2017, "Neural Discrete Representation Learning".
    """

    to_code: nn.Module
    codebook: Codebook

    unit_prior = False

    def __init__(
        self, encoder: ImageEncoder, decoder: ImageDecoder, codebook: Codebook, *, latent_dim: int, commitment: float
    ) -> None:
        heads = {"to_code": encoder.layer(encoder.features, latent_dim), "codebook": codebook}
        super().__init__(encoder, decoder, latent_dim=latent_dim, heads=heads)
        self.commitment = commitment

    def noise_size(self, size: tuple[int, int]) -> int:
        """Return one number per position: it draws codes in `prior`, and spares for unused codes in training."""
        return self.positions(size)

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the codes `(B, M, h, w)` of `images (B, C, H, W)`; in training the codebook gathers them."""
        features, skips = self.encoder.with_maps(images)
        with no_autocast(images.device.type):
            encoded = self.to_code(features.float())  # (B, M, h, w)
            flat = encoded.permute(0, 2, 3, 1).reshape(-1, self.latent_dim)  # (P, M)
            chosen = self.codebook.nearest(flat.detach())  # (P,)
            code = self._at(chosen.view(images.shape[0], *encoded.shape[2:]))
            if self.training:
                self.codebook.observe(flat.detach(), chosen, noise.flatten())
            distance = (encoded - code).square().sum((1, 2, 3))  # (B,)
            z = encoded + (code - encoded).detach()
        return Latent(
            z,
            code,
            None,
            self._kl(encoded),
            skips,
            losses={"commitment": self.commitment * distance / 2},
            code_counts=None if self.training else self._counts(chosen.view(images.shape[0], -1)),
        )

    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Return codes `(B, M, h, w)`, every position's drawn uniformly: the noise's quantile picks it."""
        count = len(self.codebook.codes)
        chosen = (torch.special.ndtr(noise) * count).long().clamp(max=count - 1)  # (B, h w)
        return self._at(chosen.view(-1, *self.encoder.positions(size)))

    def finish_step(self) -> None:
        """Move the codes to the encodings of the effective batch."""
        self.codebook.commit()

    def _at(self, chosen: Tensor) -> Tensor:
        """Return the codes `(B, M, h, w)` at the indices `chosen (B, h, w)`."""
        return F.embedding(chosen, self.codebook.codes).permute(0, 3, 1, 2)

    def _kl(self, encoded: Tensor) -> Tensor:
        nats = encoded.shape[2] * encoded.shape[3] * math.log(len(self.codebook.codes))
        return encoded.new_full(encoded.shape[:2], nats / self.latent_dim)  # (B, M)

    def _counts(self, chosen: Tensor) -> Tensor:
        return _one_hot(chosen, len(self.codebook.codes)).sum(1)  # (B, K)


def _one_hot(chosen: Tensor, count: int) -> Tensor:
    """Return `(..., count)` float32, 1 at `chosen (...)`; without the check of values that waits for the device."""
    return (chosen[..., None] == torch.arange(count, device=chosen.device)).float()
