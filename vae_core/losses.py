"""The objective `total = reconstruction + beta * kl` and its terms, all in nats per image.

Shapes: B images, C channels, H x W pixels, M latent dimensions. Terms are summed over real pixels, channels
and latent dimensions; how images are weighted (a mean over images) is the caller's one division.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

# A fitted scale is never below half a step of 8-bit gray: finer than that, the data themselves are rounded.
MIN_SCALE = 1 / 512

Scale = float | Tensor  # pixel units; a tensor is scalar and on the device, so that nobody waits for it


@dataclass(frozen=True)
class Likelihood:
    """A likelihood of pixels, written as `nll = error / unit(scale) + dims * log_normaliser(scale)`.

    `error` is the only part that depends on the images, so one decoded batch serves every scale.
    """

    pixel_error: Callable[[Tensor, Tensor], Tensor]  # (logits, images) -> same shape
    unit: Callable[[Scale], Scale]
    log_normaliser: Callable[[Scale], Scale]  # nats per pixel and channel
    fit: Callable[[Scale], Scale] | None  # mean pixel error -> scale of maximum likelihood; None: no scale

    def error(self, logits: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Return the error summed over real pixels and channels, `(B,)` in float32.

        Args:
            logits: `(B, C, H, W)`; the mean of the likelihood is their sigmoid.
            images: `(B, C, H, W)` in [0, 1].
            mask: `(B, 1, H, W)`, 1 on real pixels and 0 on padding.
        """
        return (self.pixel_error(logits.float(), images.float()) * mask).sum((1, 2, 3))

    def nll(self, error: Tensor, dims: Tensor, scale: Scale) -> Tensor:
        """Return -ln p(x|z) in nats per image, `(B,)`, from `error (B,)` and the real values `dims (B,)`."""
        return error / self.unit(scale) + dims * self.log_normaliser(scale)


def _ln(scale: Scale) -> Scale:
    return scale.log() if isinstance(scale, Tensor) else math.log(scale)


LIKELIHOODS: dict[str, Likelihood] = {
    # N(m, scale^2), m = sigmoid(logits): (x - m)^2 / (2 scale^2) + ln scale + ln(2 pi) / 2; best at the MSE.
    "gaussian": Likelihood(
        pixel_error=lambda logits, images: (torch.sigmoid(logits) - images).square(),
        unit=lambda scale: 2 * scale * scale,
        log_normaliser=lambda scale: _ln(scale) + 0.5 * math.log(2 * math.pi),
        fit=lambda mean_error: mean_error**0.5,
    ),
    # Laplace(m, scale), m = sigmoid(logits): |x - m| / scale + ln(2 scale); best at the mean absolute error.
    "laplace": Likelihood(
        pixel_error=lambda logits, images: (torch.sigmoid(logits) - images).abs(),
        unit=lambda scale: scale,
        log_normaliser=lambda scale: _ln(2 * scale),
        fit=lambda mean_error: mean_error,
    ),
    # -x ln p - (1 - x) ln(1 - p) from logits. On gray images a surrogate, not a density.
    "bernoulli": Likelihood(
        pixel_error=lambda logits, images: F.binary_cross_entropy_with_logits(logits, images, reduction="none"),
        unit=lambda scale: 1.0,  # noqa: ARG005 - one signature for all
        log_normaliser=lambda scale: 0.0,  # noqa: ARG005
        fit=None,
    ),
}


def real_dims(mask: Tensor, channels: int) -> Tensor:
    """Return the number of real values of each image, C * H * W without padding, `(B,)` float32."""
    return mask.sum((1, 2, 3)) * channels


def negative_log_likelihood(kind: str, logits: Tensor, images: Tensor, mask: Tensor, scale: Scale) -> Tensor:
    """Return -ln p(x|z) in nats per image, `(B,)` float32, summed over real pixels and channels.

    Args:
        kind: a key of `LIKELIHOODS`, where the formulas stand.
        logits: `(B, C, H, W)`; the mean (or probability) is their sigmoid.
        images: `(B, C, H, W)` in [0, 1].
        mask: `(B, 1, H, W)`, 1 on real pixels and 0 on padding.
        scale: pixel units; standard deviation of the Gaussian, b of the Laplace, unused by bernoulli.
    """
    likelihood = LIKELIHOODS[kind]
    return likelihood.nll(likelihood.error(logits, images, mask), real_dims(mask, images.shape[1]), scale)


def fitted_scale(kind: str, error_sum: float, count: float) -> float | None:
    """Return the scale of maximum likelihood, at least `MIN_SCALE`, or None for a likelihood without one.

    Args:
        kind: a key of `LIKELIHOODS`.
        error_sum: the likelihood's errors (squared, absolute) summed over `count` pixel values.
        count: number of pixel values.
    """
    fit = LIKELIHOODS[kind].fit
    return None if fit is None else max(MIN_SCALE, float(fit(error_sum / count)))


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, e^logvar) || N(0, 1)) = (mu^2 + e^logvar - 1 - logvar) / 2 in nats, `(B, M)` float32.

    `expm1` keeps it exact near the prior. Source: Kingma and Welling 2014, appendix B.
    """
    mu, logvar = mu.float(), logvar.float()
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def reparameterize(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Return z = mu + e^(logvar / 2) * noise, `(B, M)` float32, for standard normal `noise (B, M)`."""
    return mu.float() + torch.exp(0.5 * logvar.float()) * noise


@dataclass(frozen=True)
class Objective:
    """The objective of each image and its two terms, `(B,)` each, nats per image.

    `parts` holds further numbers of each image that are worth a mean over the epoch, `(B,)` each, by name.
    """

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


def objective(
    reconstruction: Tensor,
    kl: Tensor,
    beta: float | Tensor,
    further: float | Tensor = 0.0,
    parts: Mapping[str, Tensor] | None = None,
) -> Objective:
    """Compose the objective of beta-VAE (Higgins et al. 2017); the only place where it is written.

    Args:
        reconstruction: `(B,)` negative log-likelihood, nats per image.
        kl: `(B,)` KL to the prior, nats per image; the sum of `kl_per_dimension`.
        beta: coefficient of the KL; 1 gives the negative ELBO.
        further: `(B,)` or 0, whatever else is minimised, weighted already; nats per image.
        parts: see `Objective`.
    """
    total = reconstruction + beta * kl + further
    return Objective(total, reconstruction, kl, parts or {})


def effective_beta(kl_coefficient: float, likelihood_coefficient: float = 1.0) -> float:
    """Return the coefficient of the KL over that of the likelihood; equal values mean the same trade-off."""
    return kl_coefficient / likelihood_coefficient


def normalised_beta(beta: float, latent_dim: float, dims: float) -> float:
    """Return beta * M / D (Higgins et al. 2017): M latent dimensions, D values per image (or their mean)."""
    return beta * latent_dim / dims


def beta_of_mean_loss(kind: str, weight: float, dims: float, scale: float = 1.0) -> float:
    """Translate `mean pixel error + weight * KL` (a common way to write the loss) into beta.

    The mean error is 1 / D of the summed one, so beta = weight * D / unit(scale): weight * D / 2 for a mean
    squared error and a unit Gaussian. It grows with the image's size; hence the sums per image used here.
    """
    return effective_beta(weight, float(LIKELIHOODS[kind].unit(scale)) / dims)
