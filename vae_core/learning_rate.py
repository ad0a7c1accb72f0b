"""How the learning rate moves: a registry of pure functions of the position in epochs, warm-up, and the plateau."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_FIRST_SHARE = 0.01  # where an exponential warm-up begins
_ONE_CYCLE_START = 1 / 25  # of the peak; Smith and Topin 2018, with the figures that torch's OneCycleLR takes
_ONE_CYCLE_END = _ONE_CYCLE_START / 1e4


@dataclass(frozen=True)
class LearningRate:
    """The learning rate as a function of the position alone, so that a resumed run needs no state for it.

    Attributes:
        peak: `optim.lr`.
        floor: smallest value of `cosine`.
        schedule: a key of `LR_SCHEDULES`.
        epochs: length of the training.
        restart_epochs: length of the first cosine cycle; None: the whole training.
        restart_factor: length of each cosine cycle over the one before, 1 or more.
        rise_share: share of the training in which `one_cycle` rises.
        warmup: `linear` or `exponential`.
        warmup_epochs: epochs of warm-up.
    """

    peak: float
    floor: float
    schedule: str
    epochs: float
    restart_epochs: float | None = None
    restart_factor: float = 1.0
    rise_share: float = 0.3
    warmup: str = "linear"
    warmup_epochs: float = 0.0

    def at(self, start: float, end: float, scale: float = 1.0) -> float:
        """Return the rate of the optimizer step between positions `start` and `end` (epochs, 0 first).

        The schedule is read where the step starts, the warm-up where it ends, so that no step has the rate 0.
        `scale` is the plateau's factor.
        """
        return LR_SCHEDULES[self.schedule](self, start) * scale * self._warmed_up(end)

    def _warmed_up(self, position: float) -> float:
        if position >= self.warmup_epochs:
            return 1.0
        share = position / self.warmup_epochs
        return share if self.warmup == "linear" else _FIRST_SHARE ** (1 - share)


LrSchedule = Callable[[LearningRate, float], float]

LR_SCHEDULES: dict[str, LrSchedule] = {}


def register_lr_schedule(name: str) -> Callable[[LrSchedule], LrSchedule]:
    """Make a schedule `(settings, position in epochs) -> rate` selectable as `optim.lr_schedule: <name>`."""

    def register(schedule: LrSchedule) -> LrSchedule:
        LR_SCHEDULES[name] = schedule
        return schedule

    return register


@register_lr_schedule("constant")
@register_lr_schedule("plateau")
def _constant(rate: LearningRate, position: float) -> float:  # noqa: ARG001 - one signature for all
    """Stay at the peak; `plateau` lowers it through the scale of `Plateau`."""
    return rate.peak


@register_lr_schedule("cosine")
def _cosine(rate: LearningRate, position: float) -> float:
    """Fall from peak to floor along half a cosine, again and again; cycle k lasts `restart_factor ** k` first ones.

    Source: Loshchilov and Hutter 2017, "SGDR", whose T_mult may be fractional here.
    """
    length = rate.restart_epochs or rate.epochs
    while position >= length:
        position -= length
        length *= rate.restart_factor
    return rate.floor + (rate.peak - rate.floor) * (1 + math.cos(math.pi * position / length)) / 2


@register_lr_schedule("one_cycle")
def _one_cycle(rate: LearningRate, position: float) -> float:
    """Rise from peak / 25 to the peak, then fall to peak / 250,000, each along half a cosine.

    Source: Smith and Topin 2018, "Super-Convergence"; as torch's OneCycleLR, without its change of momentum.
    """
    rise = rate.rise_share * rate.epochs
    if position < rise:
        return rate.peak * _between(_ONE_CYCLE_START, 1.0, position / rise)
    return rate.peak * _between(1.0, _ONE_CYCLE_END, min(1.0, (position - rise) / (rate.epochs - rise)))


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


class Plateau:
    """Lowers a scale by `factor`, down to `least`, when a metric has not improved for over `patience` evaluations."""

    def __init__(self, *, factor: float, least: float, patience: int, higher_is_better: bool) -> None:
        self.scale = 1.0
        self._factor = factor
        self._least = least
        self._patience = patience
        self._sign = 1.0 if higher_is_better else -1.0
        self._best: float | None = None
        self._waited = 0

    def observe(self, value: float) -> None:
        """Take note of one evaluation."""
        if self._best is None or self._sign * value > self._sign * self._best:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self._patience:
            self.scale = max(self.scale * self._factor, self._least)
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and what it depends on."""
        return {"scale": self.scale, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.scale, self._best, self._waited = state["scale"], state["best"], state["waited"]
