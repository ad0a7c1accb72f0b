"""Plain random numbers out of a keyed generator."""

import math

import torch


def happens(key: torch.Generator, probability: float) -> bool:
    """Return True with this probability."""
    return _unit(key) < probability


def uniform(key: torch.Generator, low: float, high: float) -> float:
    """Return a number, uniform in [low, high)."""
    return low + (high - low) * _unit(key)


def log_uniform(key: torch.Generator, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform between those of `low` and `high`."""
    return math.exp(uniform(key, math.log(low), math.log(high)))


def whole(key: torch.Generator, low: int, high: int) -> int:
    """Return a whole number, uniform in low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=key))


def _unit(key: torch.Generator) -> float:
    return float(torch.rand((), generator=key))
