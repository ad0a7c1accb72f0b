"""How beta moves during training: a registry of pure functions of the position in epochs."""

from collections.abc import Callable

# (position in epochs, final beta, warm-up epochs) -> beta at that position
Schedule = Callable[[float, float, float], float]

SCHEDULES: dict[str, Schedule] = {}


def register_schedule(name: str) -> Callable[[Schedule], Schedule]:
    """Make a schedule selectable as `loss.beta_schedule: <name>`."""

    def register(schedule: Schedule) -> Schedule:
        SCHEDULES[name] = schedule
        return schedule

    return register


@register_schedule("constant")
def constant(position: float, beta: float, warmup_epochs: float) -> float:  # noqa: ARG001 - one signature for all
    """Return `beta` from the first step on."""
    return beta


@register_schedule("linear")
def linear(position: float, beta: float, warmup_epochs: float) -> float:
    """Rise from 0 at position 0 to `beta` at `warmup_epochs`, then stay: `beta * min(1, position / warmup_epochs)`.

    At the start of epoch e this is the sequence of an epoch-wise warm-up, `beta * e / warmup_epochs`.
    """
    if position >= warmup_epochs:
        return beta
    return beta * position / warmup_epochs
