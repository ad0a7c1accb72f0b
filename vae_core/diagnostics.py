"""Is the latent used? Active units, spectra, the verdict in words.

Shapes: N images (of spatial latents: positions of images), M latent dimensions, K codes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, section 5.2
_LEAST_RATE = 0.5  # nats per image
_LEAST_EXCHANGE_COST = 0.01  # of the reconstruction term
_LEAST_ACTIVE_SHARE = 0.1  # of the latent dimensions
_FALLEN_SHARE = 0.5  # of the most active units seen during the run
_PAIRS_AT_ONCE = 2**22  # float64 numbers held at once; 32 MiB


def active_dimensions(mu: Tensor) -> Tensor:
    """Return which dimensions are active, `(M,)` bool: variance of `mu (N, M)` over images above 0.01.

    Source: Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2.
    """
    return mu.double().var(dim=0, correction=1) > ACTIVE_VARIANCE


def active_units(mu: Tensor) -> int:
    """Return the number of active dimensions of `mu (N, M)`; see `active_dimensions`."""
    return int(active_dimensions(mu).sum())


def mu_std(mu: Tensor) -> Tensor:
    """Return the standard deviation over images (n - 1) of each dimension of `mu (N, M)`, `(M,)` float64."""
    return mu.double().std(dim=0, correction=1)


def latent_variance(logvar: Tensor) -> Tensor:
    """Return the mean over images of sigma^2 = e^logvar, `(M,)` float64.

    Near 1 a dimension is superfluous, near 0 it carries information. Source: Dai and Wipf 2019.
    """
    return logvar.double().exp().mean(dim=0)


def kl_spectrum(kl: Tensor) -> Tensor:
    """Return the mean over images of `kl (N, M)` in nats, largest first, `(M,)` float64."""
    return kl.double().mean(dim=0).sort(descending=True).values


def mutual_information(z: Tensor, mu: Tensor, logvar: Tensor) -> float:
    """Return the mutual information of images and codes in nats, between 0 and ln N up to the noise of z.

    I = mean_i [ ln q(z_i | x_i) - ln (1 / N) sum_n q(z_i | x_n) ] with q(z | x_n) = N(mu_n, diag e^logvar_n), the same
    sampled z_i in both terms. It cannot exceed ln N: a value above ln N - 1 says only that N images do not suffice to
    tell. Source: Hoffman and Johnson 2016, "ELBO surgery".

    Args:
        z: `(N, M)`, one sample of every image's posterior.
        mu: `(N, M)`.
        logvar: `(N, M)`, nats.
    """
    z, mu, logvar = z.double(), mu.double(), logvar.double()
    precision = (-logvar).exp()  # (N, M)
    constant = (mu.square() * precision + logvar).sum(1)  # (N,)
    total = 0.0
    rows = max(1, _PAIRS_AT_ONCE // len(z))
    for start in range(0, len(z), rows):
        part = z[start : start + rows]  # (R, M)
        # -2 ln q(z_i | x_n) but for a constant that both terms share
        distance = part.square() @ precision.T - 2 * part @ (mu * precision).T + constant  # (R, N)
        own = distance.diagonal(start)  # (R,)
        total += float((torch.logsumexp(-distance / 2, dim=1) + own / 2).sum())
    return math.log(len(z)) - total / len(z)


def perplexity(code_counts: Tensor) -> float:
    """Return e^entropy of the use of codes, `code_counts (N, K)` summed over images: K if all are used alike."""
    share = code_counts.double().sum(0) / code_counts.double().sum()
    return float(torch.special.entr(share).sum().exp())


def dead_codes(code_counts: Tensor) -> int:
    """Return how many of the K codes no image uses; see `perplexity`."""
    return int((code_counts.sum(0) == 0).sum())


def curve_roughness(losses: Sequence[float]) -> float | None:
    """Return the standard deviation (n - 1) of the second difference of a loss per epoch, in the loss's unit.

    Zero for a straight curve, however steep; large where the loss jumps to and fro. None under four epochs, which
    have fewer than two second differences.
    """
    return float(np.std(np.diff(losses, n=2), ddof=1)) if len(losses) >= 4 else None


@dataclass(frozen=True)
class Verdict:
    """Whether the posterior collapsed, why, and the numbers it rests on."""

    name: Literal["full", "ignored", "partial", "none"]
    because: str
    numbers: dict[str, float]


def collapse_verdict(
    *, active_units: float | None, rate: float | None, exchange_cost: float, latent_dim: int, max_active_units: float
) -> Verdict:
    """Judge a finished run; the first rule that holds gives the name.

    Args:
        active_units: of the finished model; None where the scale of its codes is arbitrary, which is then judged by
            the exchange cost alone.
        rate: mean KL, nats per image; None for a model whose codes have no scale of their own.
        exchange_cost: relative increase of the reconstruction error when images decode each other's z.
        latent_dim: number of latent dimensions.
        max_active_units: the largest number of active units of any evaluation of the run.

    Returns:
        `full`: no active unit, or a rate under 0.5 nat. `ignored`: exchanging z costs less than 1% although
        the rate is at least that. `partial`: active units fell to half of their maximum, or are under 10% of
        the dimensions. Otherwise `none`: a healthy VAE also prunes dimensions.
    """
    if active_units is None:
        return _exchange_verdict(exchange_cost, latent_dim)
    most = max(max_active_units, active_units)
    numbers = {
        "active_units": float(active_units),
        "max_active_units": float(most),
        "latent_dim": float(latent_dim),
        "exchange_cost": float(exchange_cost),
    }
    if rate is not None:
        numbers["rate"] = float(rate)

    def verdict(name: Literal["full", "ignored", "partial", "none"], because: str) -> Verdict:
        return Verdict(name, because, numbers)

    if active_units == 0:
        return verdict("full", "no active unit")
    if rate is not None and rate < _LEAST_RATE:
        return verdict("full", f"a rate of {rate:.3g} nats per image is under {_LEAST_RATE:g}")
    if exchange_cost < _LEAST_EXCHANGE_COST:
        return verdict("ignored", f"exchanging z between images costs {exchange_cost:.2%}, under 1%")
    counted = f"{active_units:g} of {latent_dim} units active"
    if active_units <= _FALLEN_SHARE * most:
        return verdict("partial", f"{counted}, fallen from {most:g} during the run")
    if active_units < _LEAST_ACTIVE_SHARE * latent_dim:
        return verdict("partial", f"{counted}, under a tenth")
    return verdict("none", f"{counted}; exchanging z between images costs {exchange_cost:.1%}")


def _exchange_verdict(exchange_cost: float, latent_dim: int) -> Verdict:
    """Judge a model whose codes could be scaled at will, so that neither variance nor rate says anything."""
    numbers = {"exchange_cost": float(exchange_cost), "latent_dim": float(latent_dim)}
    cost = f"exchanging z between images costs {exchange_cost:.2%}"
    if exchange_cost < _LEAST_EXCHANGE_COST:
        return Verdict("ignored", f"{cost}, under 1%", numbers)
    return Verdict("none", f"{cost}; the codes have no scale by which units could be called active", numbers)
