"""Optimizer steps: gradients scaled, clipped and applied; and the exponential average of the weights."""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vae_core.learning_rate import LearningRate, Plateau
from vae_core.schema.optim import OptimConfig

Model = TypeVar("Model", bound=nn.Module)


class Optimisation:
    """One optimizer over some parameters, with its learning rate, clipping and loss scaling.

    Args:
        parameters: what it moves; nothing else.
        settings: the section `optim`.
        epochs: length of the training.
        higher_is_better: how the metric that `observe` is told improves.
        undecayed: moved and clipped with the others, but never decayed.
        scaler: shared by the optimizers of one training; scales the loss under fp16.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        settings: OptimConfig,
        *,
        epochs: int,
        higher_is_better: bool,
        scaler: torch.amp.GradScaler,
        undecayed: Iterable[nn.Parameter] = (),
    ) -> None:
        decayed, spared = list(parameters), list(undecayed)
        self._parameters = [*decayed, *spared]
        self._optimizer = _optimizer(decayed, settings)
        self._ratios = [1.0]  # rate of each parameter group over the scheduled one
        if spared:
            self._optimizer.add_param_group({"params": spared, "weight_decay": 0.0})
            self._ratios.append((settings.objective_lr or settings.lr) / settings.lr)
        self._rate = LearningRate(
            peak=settings.lr,
            floor=settings.min_lr,
            schedule=settings.lr_schedule,
            epochs=epochs,
            restart_epochs=settings.restart_epochs,
            restart_factor=settings.restart_factor,
            rise_share=settings.rise_share,
            warmup=settings.warmup,
            warmup_epochs=settings.warmup_epochs,
        )
        self._plateau: Plateau | None = None
        if settings.lr_schedule == "plateau":
            self._plateau = Plateau(
                factor=settings.plateau_factor,
                least=settings.min_lr / settings.lr,
                patience=settings.plateau_patience,
                higher_is_better=higher_is_better,
            )
        self._scaler = scaler
        self._clip_norm = settings.clip_norm or float("inf")

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss; call it once per micro-batch."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, start: float, end: float) -> Tensor:
        """Apply the gradients and return their norm before clipping, a scalar tensor on the device.

        Args:
            start: position in epochs where this step starts.
            end: position where it ends.
        """
        rate = self._rate.at(start, end, self._plateau.scale if self._plateau else 1.0)
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._scaler.step(self._optimizer)
        return norm

    def observe(self, value: float) -> None:
        """Tell the plateau schedule, where there is one, the value of an evaluation."""
        if self._plateau:
            self._plateau.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's and the plateau's state."""
        plateau = self._plateau.state_dict() if self._plateau else None
        return {"optimizer": self._optimizer.state_dict(), "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._optimizer.load_state_dict(state["optimizer"])
        if self._plateau:
            self._plateau.load_state_dict(state["plateau"])


def _optimizer(parameters: list[nn.Parameter], settings: OptimConfig) -> torch.optim.Optimizer:
    lr, decay = settings.lr, settings.weight_decay
    if settings.algorithm == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=settings.momentum)
    adam = torch.optim.AdamW if settings.algorithm == "adamw" else torch.optim.Adam
    return adam(parameters, lr=lr, weight_decay=decay, betas=settings.adam_betas)


class WeightAverage(Generic[Model]):
    """Keeps `averaged` an exponential moving average, in float32, of a model's weights.

    The decay is warmed up, min(decay, (1 + n) / (10 + n)) at step n (from 1), so that the random start is soon
    forgotten. Buffers are copied.

    Args:
        averaged: a copy of the model; its weights are overwritten.
        decay: share of the old average that a step keeps, in the long run.
    """

    def __init__(self, averaged: Model, decay: float) -> None:
        self.model = averaged.requires_grad_(False)
        self._decay = decay

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights of `model` after optimizer step number `step` (from 1)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
            for mine, its in zip(self.model.buffers(), model.buffers(), strict=True):
                mine.copy_(its)
