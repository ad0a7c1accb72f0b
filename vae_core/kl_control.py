"""How much the KL costs: beta alone, or a rule that watches the KL of earlier optimizer steps.

The rules are written on the mean KL over a batch. To keep the objective a sum over images, each is replaced by
the straight line with the same gradient at the running mean of earlier steps: for one step the cost of an image
is `beta * kl + correction` with a beta that is the same for all.

Letters: B images of a micro-batch, M latent dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_core.running_mean import RunningMean
from vae_core.schema.loss import LossConfig

_DECAY = 0.5  # per optimizer step; a longer memory answers late, and the KL swings about its target

Beta = Callable[[float], float]  # position in epochs -> the schedule's beta


@dataclass(frozen=True)
class KlCost:
    """What the KL of each image costs, `beta * kl + correction` in nats.

    Attributes:
        beta: coefficient of the KL; a tensor is scalar and on the device.
        correction: `(B,)` or 0.
        effective: mean coefficient over the dimensions, where it is not `beta` as scheduled; else None.
    """

    beta: float | Tensor
    correction: float | Tensor = 0.0
    effective: Tensor | None = None


class KlControl(Protocol):
    """A rule for the cost of the KL."""

    def cost(self, kl: Tensor, position: float) -> KlCost:
        """Return the cost for `kl (B, M)` nats at a position in epochs, and remember the KL for later steps."""
        ...

    def evaluation_beta(self, position: float) -> float:
        """Return the coefficient of the KL in `val/objective`; waits for the device."""
        ...

    def finish_step(self) -> None:
        """Mark the end of an optimizer step."""
        ...


class Plain(nn.Module):
    """`beta * KL` with beta as scheduled."""

    def __init__(self, beta: Beta) -> None:
        super().__init__()
        self._beta = beta

    def cost(self, kl: Tensor, position: float) -> KlCost:
        """Return beta."""
        return KlCost(self._beta(position))

    def evaluation_beta(self, position: float) -> float:
        """Return beta."""
        return self._beta(position)

    def finish_step(self) -> None:
        """Do nothing."""


class FreeBits(nn.Module):
    """`beta * sum over dimensions of max(nats, mean KL_j)`: a dimension pays only for what it has beyond `nats`.

    A dimension whose KL was below `nats` in the steps before gets no gradient from it and costs beta * nats.
    Source: Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow", equation 15.
    """

    def __init__(self, beta: Beta, *, nats: float, latent_dim: int, device: torch.device | str) -> None:
        super().__init__()
        self._beta = beta
        self._nats = nats
        self.mean = RunningMean(latent_dim, device, decay=_DECAY)

    def cost(self, kl: Tensor, position: float) -> KlCost:
        """Return beta, and the correction that takes the free dimensions out."""
        beta = self._beta(position)
        free = (self.mean.value <= self._nats).to(kl.dtype)  # (M,)
        self.mean.add(kl)
        return KlCost(beta, beta * ((self._nats - kl) * free).sum(1), beta * (1 - free.mean()))

    def evaluation_beta(self, position: float) -> float:
        """Return beta."""
        return self._beta(position)

    def finish_step(self) -> None:
        """Count the KL as one step."""
        self.mean.commit()


class Capacity(nn.Module):
    """`gamma * |mean KL - C|` with C rising linearly from 0 to `capacity` nats over `epochs` epochs.

    Source: Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.
    """

    def __init__(self, *, capacity: float, epochs: float, gamma: float, device: torch.device | str) -> None:
        super().__init__()
        self._capacity = capacity
        self._epochs = epochs
        self._gamma = gamma
        self.mean = RunningMean(1, device, decay=_DECAY)

    def target(self, position: float) -> float:
        """Return C in nats per image."""
        return self._capacity * (position / self._epochs if position < self._epochs else 1.0)

    def cost(self, kl: Tensor, position: float) -> KlCost:
        """Return +-gamma: what was above C must fall, what was below must rise."""
        target = self.target(position)
        slope = self._gamma * torch.sign(self.mean.value[0] - target)
        self.mean.add(kl.sum(1, keepdim=True))
        return KlCost(slope, -slope * target, slope)

    def evaluation_beta(self, position: float) -> float:
        """Return 0: the penalty vanishes at its target, and half a cycle's slope says nothing of a model."""
        return 0.0

    def finish_step(self) -> None:
        """Count the KL as one step."""
        self.mean.commit()


class PiControl(nn.Module):
    """`beta * KL` with a beta that steers the KL to `target`: clip(kp / (1 + exp(e)) + I, least, greatest).

    e = target - KL in nats, and I falls by ki * e each step, so beta rises while the KL is above its target. I
    stands still while beta is at a bound that it would be pushed beyond (anti-windup).
    Source: Shao et al. 2020, "ControlVAE: Controllable Variational Autoencoder".
    """

    integral: Tensor
    beta: Tensor

    def __init__(
        self, *, target: float, kp: float, ki: float, least: float, greatest: float, device: torch.device | str
    ) -> None:
        super().__init__()
        self._target = target
        self._kp, self._ki = kp, ki
        self._bounds = least, greatest
        self.mean = RunningMean(1, device, decay=_DECAY)
        self.register_buffer("integral", torch.zeros((), dtype=torch.float64, device=device))
        self.register_buffer("beta", torch.full((), least, dtype=torch.float64, device=device))

    def cost(self, kl: Tensor, position: float) -> KlCost:
        """Return the controller's beta."""
        self.mean.add(kl.sum(1, keepdim=True))
        beta = self.beta.clone()  # finish_step moves it in place
        return KlCost(beta, effective=beta)

    def evaluation_beta(self, position: float) -> float:
        """Return the controller's beta."""
        return float(self.beta)

    @torch.no_grad()
    def finish_step(self) -> None:
        """Count the KL as one step and let the controller act on it."""
        self.mean.commit()
        least, greatest = self._bounds
        error = self._target - self.mean.value[0]
        proportional = self._kp * torch.sigmoid(-error)
        output = proportional + self.integral
        wound_up = ((output >= greatest) & (error < 0)) | ((output <= least) & (error > 0))
        self.integral -= torch.where(wound_up, 0.0, self._ki * error)
        self.beta.copy_((proportional + self.integral).clamp(least, greatest))


def build_kl_control(
    settings: LossConfig, beta: Beta, latent_dim: int, device: torch.device | str
) -> Plain | FreeBits | Capacity | PiControl:
    """Return the rule that `loss.kl_control` names.

    Args:
        settings: the section `loss`.
        beta: what is scheduled, for the rules that start from it.
        latent_dim: M.
        device: where running means live.
    """
    if settings.kl_control == "free_bits":
        return FreeBits(beta, nats=settings.free_bits, latent_dim=latent_dim, device=device)
    if settings.kl_control == "capacity":
        return Capacity(
            capacity=settings.capacity, epochs=settings.capacity_epochs, gamma=settings.capacity_gamma, device=device
        )
    if settings.kl_control == "pi":
        return PiControl(
            target=settings.kl_target,
            kp=settings.pi_kp,
            ki=settings.pi_ki,
            least=settings.beta_min,
            greatest=settings.beta_max,
            device=device,
        )
    return Plain(beta)
