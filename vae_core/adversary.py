"""What opposes a model in training: nothing, or a discriminator with an optimizer of its own.

Letters: B images of a micro-batch, C channels, H x W padded pixels.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from vae_core.config import RunConfig
from vae_core.data.batches import Batch
from vae_core.losses import real_dims
from vae_core.models.discriminator import Discriminator
from vae_core.models.latent import Latent
from vae_core.models.vae import build_discriminator
from vae_core.optimisation import Optimisation


class Adversary(Protocol):
    """An opponent, told of every part of an optimizer step in this order."""

    def start_step(self, position: float) -> None:
        """Prepare for the optimizer step that starts at `position` in epochs."""
        ...

    def oppose(self, latent: Latent, logits: Tensor, batch: Batch) -> Latent:
        """Return `latent` with what the model loses to the opponent among its losses, for `logits (B, C, H, W)`."""
        ...

    def learn(self, logits: Tensor, batch: Batch, images: int) -> Mapping[str, Tensor]:
        """Add a micro-batch to the opponent's own gradient, and return what is logged of it: `(B,)` each, by name.

        Args:
            logits: `(B, C, H, W)`; the model gets no gradient from them.
            batch: the micro-batch.
            images: number of images of the effective batch.
        """
        ...

    def finish_step(self, start: float, end: float) -> None:
        """Apply the gradient; see `Optimisation.step`."""
        ...

    def observe(self, value: float) -> None:
        """Tell the learning rate the value of an evaluation."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the training depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        ...


class NoAdversary:
    """Nobody opposes."""

    def start_step(self, position: float) -> None:
        """Do nothing."""

    def oppose(self, latent: Latent, logits: Tensor, batch: Batch) -> Latent:
        """Return `latent` as it is."""
        return latent

    def learn(self, logits: Tensor, batch: Batch, images: int) -> Mapping[str, Tensor]:
        """Return nothing."""
        return {}

    def finish_step(self, start: float, end: float) -> None:
        """Do nothing."""

    def observe(self, value: float) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class GanAdversary:
    """A discriminator that learns to tell images from reconstructions, while the model learns to fool it.

    Both losses of a step are measured with the weights from before it. The model pays weight * D * -ln p per image,
    p being the probability that its reconstruction is real and D the image's real values, so that a weight means the
    same at every size; that it falls with -ln p, not with ln(1 - p), keeps a gradient where the discriminator is sure.
    The discriminator is no part of the model: neither averaged nor evaluated nor kept, only resumed.
    Sources: Goodfellow et al. 2014, "Generative Adversarial Nets" (the losses); Salimans et al. 2016, "Improved
    Techniques for Training GANs" (smoothed labels of real images).

    Args:
        discriminator: judges; only `optimisation` moves it.
        optimisation: of the discriminator's weights alone.
        weight: `loss.adversarial`.
        start_epochs: finished epochs before the first step against the discriminator, and of it.
        real_label: probability that the discriminator is to give real images.
        autocast: makes the context of the network's forward pass.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        optimisation: Optimisation,
        *,
        weight: float,
        start_epochs: int,
        real_label: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.discriminator = discriminator
        self._optimisation = optimisation
        self._weight = weight
        self._start_epochs = start_epochs
        self._real_label = real_label
        self._autocast = autocast
        self._is_active = False

    def start_step(self, position: float) -> None:
        """Forget the gradient, and see whether the warm-up is over."""
        self._optimisation.zero_grad()
        self._is_active = position >= self._start_epochs

    def oppose(self, latent: Latent, logits: Tensor, batch: Batch) -> Latent:
        """Return `latent` with the loss `adversarial`, weighted, in nats per image."""
        if not self._is_active:
            return latent
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        with self._autocast():
            score = torch.func.functional_call(self.discriminator, frozen, (torch.sigmoid(logits.float()), batch.mask))
        dims = real_dims(batch.mask, batch.images.shape[1])
        return replace(latent, losses={**latent.losses, "adversarial": self._weight * dims * F.softplus(-score)})

    def learn(self, logits: Tensor, batch: Batch, images: int) -> Mapping[str, Tensor]:
        """Add the gradient, and return loss (nats per judgement) and accuracy (share of right judgements)."""
        if not self._is_active:
            return {}
        with self._autocast():
            real = self.discriminator(batch.images, batch.mask)  # (B,)
            fake = self.discriminator(torch.sigmoid(logits.detach().float()), batch.mask)  # (B,)
        loss = discriminator_loss(real, fake, self._real_label)
        self._optimisation.backward(loss.sum() / images)
        accuracy = ((real > 0).float() + (fake <= 0).float()) / 2
        return {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy}

    def finish_step(self, start: float, end: float) -> None:
        """Move the discriminator."""
        if self._is_active:
            self._optimisation.step(start, end)

    def observe(self, value: float) -> None:
        """Tell the learning rate the value of an evaluation."""
        self._optimisation.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the discriminator's weights and its optimizer's state."""
        return {"discriminator": self.discriminator.state_dict(), "optimisation": self._optimisation.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimisation.load_state_dict(state["optimisation"])


def build_adversary(
    config: RunConfig,
    *,
    channels: int,
    device: torch.device,
    higher_is_better: bool,
    scaler: torch.amp.GradScaler,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> GanAdversary:
    """Return the adversary of a model that has one; see `GanAdversary` and `Optimisation`."""
    discriminator = build_discriminator(config.model, channels, config.seed, device)
    optimisation = Optimisation(
        discriminator.parameters(),
        config.optim.model_copy(update={"lr": config.optim.discriminator_lr or config.optim.lr}),
        epochs=config.train.epochs,
        higher_is_better=higher_is_better,
        scaler=scaler,
    )
    return GanAdversary(
        discriminator,
        optimisation,
        weight=config.loss.adversarial,
        start_epochs=config.loss.adversarial_start_epochs,
        real_label=config.loss.real_label,
        autocast=autocast,
    )


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float) -> Tensor:
    """Return the mean binary cross-entropy of two judgements, `(B,)` nats, from log odds `real (B,)` and `fake (B,)`.

    Args:
        real: of images, whose label is `real_label`.
        fake: of reconstructions, whose label is 0.
        real_label: 1, or a little less so that the discriminator never becomes sure.
    """
    of_real = real_label * F.softplus(-real) + (1 - real_label) * F.softplus(real)
    return (of_real + F.softplus(fake)) / 2
