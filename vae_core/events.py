"""What a training says as it goes, and what it ends with."""

from dataclasses import dataclass

from vae_core.diagnostics import Verdict


@dataclass(frozen=True)
class Step:
    """An optimizer step was taken; `step` counts from 1 over the run, `epoch` is the number of finished epochs."""

    step: int
    epoch: int
    images: int


@dataclass(frozen=True)
class Evaluation:
    """The validation split was measured after epoch number `epoch` (from 1)."""

    epoch: int
    step: int
    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    is_best: bool


@dataclass(frozen=True)
class Epoch:
    """Epoch number `epoch` (from 1) is finished; `metrics` holds train/, time/ and, where due, val/ and latent/."""

    epoch: int
    step: int
    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    seconds: float
    is_last: bool


@dataclass(frozen=True)
class Interrupted:
    """Training stopped between two optimizer steps because `request_stop` was called."""

    step: int
    epoch: int


Event = Step | Evaluation | Epoch | Interrupted


@dataclass(frozen=True)
class TestResult:
    """The val-selected weights measured on the test split."""

    metrics: dict[str, float]
    vectors: dict[str, list[float]]
    verdict: Verdict
    best_epoch: int
    best_value: float
    tags: dict[str, str]
