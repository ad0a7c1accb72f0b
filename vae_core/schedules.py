"""How beta moves during training: a registry of pure functions of the position in epochs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SIGMOID_SLOPE = 10.0  # of the logistic curve, per warm-up


@dataclass(frozen=True)
class BetaCurve:
    """What a schedule is drawn with.

    Attributes:
        beta: the final coefficient of the KL.
        warmup_epochs: length of the rise, in epochs; 0 starts at the end of it.
        epochs: length of the training.
        cycles: cyclical only, M in the source.
        ramp_share: cyclical only, R in the source: share of a cycle in which beta rises.
    """

    beta: float
    warmup_epochs: float = 0.0
    epochs: int = 1
    cycles: int = 4
    ramp_share: float = 0.5

    def risen(self, position: float) -> float:
        """Return the share of the warm-up that is over at `position`, 0 to 1."""
        return position / self.warmup_epochs if position < self.warmup_epochs else 1.0


# (position in epochs, curve) -> beta at that position
Schedule = Callable[[float, BetaCurve], float]

SCHEDULES: dict[str, Schedule] = {}


def register_schedule(name: str) -> Callable[[Schedule], Schedule]:
    """Make a schedule selectable as `loss.beta_schedule: <name>`."""

    def register(schedule: Schedule) -> Schedule:
        SCHEDULES[name] = schedule
        return schedule

    return register


@register_schedule("constant")
def constant(position: float, curve: BetaCurve) -> float:  # noqa: ARG001 - one signature for all
    """Return `beta` from the first step on."""
    return curve.beta


@register_schedule("linear")
def linear(position: float, curve: BetaCurve) -> float:
    """Rise from 0 at position 0 to `beta` at `warmup_epochs`, then stay: `beta * min(1, position / warmup_epochs)`.

    At the start of epoch e this is the sequence of an epoch-wise warm-up, `beta * e / warmup_epochs`.
    """
    return curve.beta * curve.risen(position)


@register_schedule("linear_exponential")
def linear_exponential(position: float, curve: BetaCurve) -> float:
    """Rise linearly from 0 to `beta / 2` over the warm-up, then approach `beta` exponentially.

    After the warm-up `beta * (1 - 0.5 exp(-3 p))`, p being the share of the remaining epochs that is over; at
    the end of the training 0.975 beta.
    """
    if position < curve.warmup_epochs:
        return 0.5 * curve.beta * curve.risen(position)
    rest = curve.epochs - curve.warmup_epochs
    progress = min(1.0, (position - curve.warmup_epochs) / rest) if rest > 0 else 1.0
    return curve.beta * (1 - 0.5 * math.exp(-3 * progress))


@register_schedule("cosine")
def cosine(position: float, curve: BetaCurve) -> float:
    """Rise along half a cosine: `beta * (1 - cos(pi p)) / 2`, p being the share of the warm-up that is over."""
    return curve.beta * 0.5 * (1 - math.cos(math.pi * curve.risen(position)))


@register_schedule("sigmoid")
def sigmoid(position: float, curve: BetaCurve) -> float:
    """Rise along a logistic curve, steepest at half of the warm-up, stretched to run from 0 to `beta` exactly.

    `beta * (s(p) - s(0)) / (s(1) - s(0))` with s(p) = 1 / (1 + exp(-10 (p - 1/2))). After Bowman et al. 2016.
    """

    def logistic(share: float) -> float:
        return 1 / (1 + math.exp(-_SIGMOID_SLOPE * (share - 0.5)))

    start, end = logistic(0.0), logistic(1.0)
    return curve.beta * (logistic(curve.risen(position)) - start) / (end - start)


@register_schedule("cyclical")
def cyclical(position: float, curve: BetaCurve) -> float:
    """Rise from 0 to `beta` in the first `ramp_share` of each of `cycles` equal cycles, and stay for its rest.

    Source: Fu et al. 2019, "Cyclical Annealing Schedule", their defaults M = 4 and R = 0.5.
    """
    if position >= curve.epochs:
        return curve.beta
    in_cycle = (position * curve.cycles / curve.epochs) % 1.0
    return curve.beta * min(1.0, in_cycle / curve.ramp_share)


def phase_at(position: float, lengths: Sequence[float]) -> int:
    """Return which phase `position` (in epochs) lies in, from 0; the last one has no end.

    Args:
        position: in epochs.
        lengths: epochs of each phase, in order; at least one.
    """
    end = 0.0
    for number, length in enumerate(lengths[:-1]):
        end += length
        if position < end:
            return number
    return len(lengths) - 1
