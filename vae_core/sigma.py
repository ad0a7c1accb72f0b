"""The scale of the training likelihood: fixed, learned, or the best one for the last steps' errors."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_core.losses import LIKELIHOODS, MIN_SCALE
from vae_core.running_mean import RunningMean

_DECAY = 0.9  # per optimizer step


class Sigma(Protocol):
    """A source of the likelihood's scale, in pixel units."""

    def value(self) -> float | Tensor:
        """Return the scale of the step under way; a tensor is scalar and on the device."""
        ...

    def observe(self, error: Tensor, dims: Tensor) -> None:
        """Take in a micro-batch: `error (B,)` as `Likelihood.error` has it, of `dims (B,)` real values."""
        ...

    def finish_step(self) -> None:
        """Mark the end of an optimizer step."""
        ...


class FixedSigma(nn.Module):
    """A number that stays."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self._sigma = sigma

    def value(self) -> float:
        """Return the number."""
        return self._sigma

    def observe(self, error: Tensor, dims: Tensor) -> None:
        """Ignore the errors."""

    def finish_step(self) -> None:
        """Do nothing."""


class LearnedSigma(nn.Module):
    """One scalar for all pixels, moved by the run's optimizer as its logarithm.

    At the optimum sigma^2 is the mean squared error. Source: Rybkin et al. 2021, "sigma-VAE".
    """

    def __init__(self, sigma: float, device: torch.device | str) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma), device=device))

    def value(self) -> Tensor:
        """Return e^log_sigma with its gradient."""
        return self.log_sigma.exp()

    def observe(self, error: Tensor, dims: Tensor) -> None:
        """Ignore the errors: the gradient has them."""

    def finish_step(self) -> None:
        """Do nothing: the optimizer has moved it."""


class OptimalSigma(nn.Module):
    """The scale of maximum likelihood for the errors of earlier optimizer steps, without gradient.

    D/2 ln(MSE), which is the Gaussian likelihood at its best sigma, has the gradient of the likelihood at a
    sigma^2 = MSE that is held fixed; so nothing is lost by taking it from earlier steps but their delay.
    Source: Rybkin et al. 2021, "optimal sigma-VAE".

    Args:
        kind: a likelihood that has a scale.
        sigma: scale of the first step, before there are errors.
        device: where the running mean lives.
    """

    def __init__(self, kind: str, sigma: float, device: torch.device | str) -> None:
        super().__init__()
        fit = LIKELIHOODS[kind].fit
        if fit is None:
            raise ValueError(f"a likelihood with a scale is needed, not {kind}")
        self._fit = fit
        self._first = sigma
        self.mean = RunningMean(2, device, decay=_DECAY)  # error and real values of an image

    def value(self) -> Tensor:
        """Return the scale, at least `MIN_SCALE`."""
        error, dims = self.mean.value
        fitted = self._fit(error / torch.where(self.mean.started, dims, 1.0))
        return torch.where(self.mean.started, torch.as_tensor(fitted).clamp_min(MIN_SCALE), self._first)

    def observe(self, error: Tensor, dims: Tensor) -> None:
        """Take in the errors of a micro-batch."""
        self.mean.add(torch.stack([error, dims], dim=1))

    def finish_step(self) -> None:
        """Count the errors as one step."""
        self.mean.commit()


def build_sigma(
    mode: str, *, kind: str, sigma: float, device: torch.device | str
) -> FixedSigma | LearnedSigma | OptimalSigma:
    """Return the scale for `loss.sigma_mode`."""
    if mode == "learned":
        return LearnedSigma(sigma, device)
    return OptimalSigma(kind, sigma, device) if mode == "optimal" else FixedSigma(sigma)
