"""The columns of an ablation table: which numbers, in which unit, and which way is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from experiments.results import StudyResults
from experiments.run_result import RunResult
from vae_core.errors import UserError, nearest

ELBO, RECONSTRUCTION, KL, ACTIVE_UNITS = "test/elbo", "test/reconstruction", "test/kl", "test/active_units"
SSIM, LPIPS, MSE, PCA_MSE = "test/ssim", "test/lpips", "test/mse", "pca_au/mse"
MUTUAL_INFORMATION, ROUGHNESS = "test/mutual_information", "train/roughness"
PARAMETERS, MINUTES, GPU_HOURS = "run/parameters", "run/minutes", "run/gpu_hours"

Direction = Literal["higher", "lower"]
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True)
class Column:
    """One metric's column.

    Attributes:
        key: the metric's key.
        title: for people, without an arrow.
        unit: "" where the number has none.
        direction: which way is better; None where neither is.
        decimals: of a number without an interval.
        most: decimals that are never exceeded.
        is_cost: differs between equal runs (times), so no test and no file that equal runs share holds it.
    """

    key: str
    title: str
    unit: str
    direction: Direction | None
    decimals: int
    most: int
    is_cost: bool = False

    @property
    def head(self) -> str:
        """Return the title with an arrow, as a table's head shows it."""
        return f"{self.title}{_ARROWS[self.direction]}"

    @property
    def is_tested(self) -> bool:
        """Return whether cells are compared in it: a metric of the selected weights, no cost and no reference."""
        return self.key.partition("/")[0] in ("test", "val", "train", "latent")


_NATS, _SQUARED = "nats per image", "squared pixel units (pixels 0 to 1)"
CATALOGUE = (
    Column(ELBO, "ELBO", _NATS, "higher", 1, 3),
    Column(RECONSTRUCTION, "reconstruction", _NATS, "lower", 1, 3),
    Column(KL, "KL", _NATS, None, 2, 3),
    Column(SSIM, "SSIM", "", "higher", 3, 4),
    Column(LPIPS, "LPIPS", "", "lower", 3, 4),
    Column(MSE, "MSE", _SQUARED, "lower", 5, 5),
    Column(PCA_MSE, "PCA(AU) MSE", _SQUARED, None, 5, 5),
    Column(ACTIVE_UNITS, "AU", "dimensions", None, 1, 1),
    Column(MUTUAL_INFORMATION, "MI", "nats", None, 2, 3),
    Column(ROUGHNESS, "roughness", _NATS, "lower", 2, 3),
    Column(PARAMETERS, "parameters", "weights", None, 0, 0),
    Column(MINUTES, "time", "min", None, 1, 3, is_cost=True),
    Column(GPU_HOURS, "GPU-hours", "h", None, 2, 3, is_cost=True),
)
_DIRECTIONS: Mapping[str, Direction] = {
    **dict.fromkeys(("elbo", "elbo_per_pixel", "ssim", "accuracy", "elbo_clean", "elbo_augmented"), "higher"),
    **dict.fromkeys(("reconstruction", "mse", "lpips", "objective", "roughness", "dead_codes"), "lower"),
}


def columns(results: StudyResults, metrics: Sequence[str] | None = None) -> tuple[Column, ...]:
    """Return the columns named by `metrics`, by default those of the catalogue that say something in this study.

    Raises:
        UserError: a name that no finished run has a number for.
    """
    if metrics:
        return tuple(_named(results, name) for name in dict.fromkeys(metrics))
    silent = _silent(results)
    return tuple(column for column in CATALOGUE if column.key not in silent)


def run_value(run: RunResult, key: str) -> float | None:
    """Return a finished run's number; None where it has none.

    Args:
        run: a finished run.
        key: `test/...` of the selected weights, `val/...` and `latent/...` of the epoch they were selected at, or
            one of the catalogue's own.
    """
    if key == PARAMETERS:
        return run.parameters
    if key == MINUTES:
        return run.seconds / 60
    if key == GPU_HOURS:
        return run.gpu_hours
    return run.metrics.get(key, run.selected.get(key))


def known_keys(results: StudyResults) -> list[str]:
    """Return the keys that a finished run has a number for, the catalogue's first."""
    done = [run for run in results.runs if run.state == "done"]
    if not done:
        return []
    measured = {key for run in done for key in (*run.metrics, *run.selected)}
    own = [column.key for column in CATALOGUE if not column.is_tested or column.key in measured]
    return [*own, *sorted(measured - set(own))]


def has_roughness(results: StudyResults) -> bool:
    """Return whether the roughness of learning curves is a question of this study."""
    return results.is_swept("train.effective_batch")


def _silent(results: StudyResults) -> set[str]:
    """Return the keys of the columns that no run has a number for, or that say the same of all of them."""
    done = [run for run in results.runs if run.state == "done"]
    measured = {key for run in done for key in run.metrics}
    hidden = {LPIPS, MUTUAL_INFORMATION} - measured
    if not has_roughness(results):
        hidden.add(ROUGHNESS)
    if len({run.parameters for run in done}) <= 1:
        hidden.add(PARAMETERS)
    if not any(run.gpu_hours for run in results.runs):
        hidden.add(GPU_HOURS)
    if not done:
        hidden.add(MINUTES)
    return hidden


def _named(results: StudyResults, name: str) -> Column:
    keys = known_keys(results)
    key = name if name in keys else f"test/{name}"
    if key not in keys:
        close = nearest(name, [*keys, *(key.partition("/")[2] for key in keys)])
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        hint = f"{meant}valid: {', '.join(keys)}" if keys else "no run is finished yet"
        raise UserError(f"--metric {name}: {results.name} has no such metric; {hint}")
    return column_of(key)


def column_of(key: str) -> Column:
    """Return a metric's column: the catalogue's, or one that looks like its twin under `test/`."""
    found = next((column for column in CATALOGUE if column.key == key), None)
    if found is not None:
        return found
    group, _, short = key.partition("/")
    twin = next((column for column in CATALOGUE if column.key == f"test/{short}"), None)
    base = twin or Column(key, short, "", _DIRECTIONS.get(short), 4, 8)
    return replace(base, key=key, title=base.title if group == "test" else f"{group} {base.title}")
