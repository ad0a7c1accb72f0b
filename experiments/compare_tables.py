"""The tables of `vae-sweep compare`: runs, config, metrics with differences to the first run, circumstances."""

import math
from typing import Any

from experiments.circumstances import differing
from experiments.columns import column_of
from experiments.compare_runs import (
    ComparedRun,
    config_differences,
    same_likelihood,
    same_objective,
    same_test_images,
    seed_deviations,
)
from experiments.display import counted, duration
from experiments.grid import BETTER, WORSE, Grid, Word, words
from vae_core.config import field_paths

_NONE = "–"
_ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
_OF_LIKELIHOOD = ("elbo", "elbo_per_pixel", "reconstruction", "nll", "bits_per_dim", "scale")
_WITHOUT_ZERO = (*_OF_LIKELIHOOD, "objective", "active_units")  # a share of these says nothing
_WORTH_SAYING = ("commit", "torch", "cpu", "gpu", "device", "data fingerprint")  # even where all runs share it
_LONGEST_REASON = 80  # characters


def tables(runs: list[ComparedRun]) -> list[Grid]:
    """Return every table that has something to show, in the order in which they are read."""
    found = [_runs(runs), _config(runs), _tested(runs)]
    if any(run.result.state != "done" for run in runs) or len({run.result.epochs for run in runs}) > 1:
        found.append(_at_equal_epochs(runs))
    return [grid for grid in [*found, _circumstances(runs)] if grid is not None]


def _runs(runs: list[ComparedRun]) -> Grid:
    head = ("", "run and its id", "state", "verdict", "parameters", "training")
    return Grid("Runs", head, tuple(_run_row(run) for run in runs), names=3)


def _run_row(run: ComparedRun) -> tuple[Word, ...]:
    result = run.result
    state = Word(_state(run), "" if result.state == "done" else "bold red" if result.state == "failed" else "yellow")
    numbers = words(
        result.verdict or _NONE,
        _NONE if result.parameters is None else f"{result.parameters:,}",
        duration(result.seconds),
    )
    return (*words(run.letter, f"{run.found.name}\n{run.found.id}"), state, *numbers)


def _state(run: ComparedRun) -> str:
    """Return `done, 20 epochs, best 14`, or how far a run is that has not come to its end, and why."""
    result = run.result
    if result.state == "done":
        return f"done, {counted(result.epochs, 'epoch')}, best {result.best_epoch}"
    reason = f" ({result.failure.splitlines()[0][:_LONGEST_REASON]})" if result.failure else ""
    return f"{result.state}, epoch {result.epochs} of {run.config.get('train.epochs', '?')}{reason}"


def _config(runs: list[ComparedRun]) -> Grid | None:
    paths = config_differences(runs)
    total = len({path for run in runs for path in run.config})
    if not paths:
        return Grid("Config", ("the same in all runs",), (words(f"{total} fields"),))
    execution = {path for path, field in field_paths() if _is_execution_only(field.json_schema_extra)}
    rows = [words(_named(path, path in execution), *(_setting(run, path) for run in runs)) for path in paths]
    head = ("field", *(run.letter for run in runs))
    return Grid("Config", head, tuple(rows), f"The other {total - len(paths)} fields are the same.")


def _is_execution_only(extra: Any) -> bool:
    return isinstance(extra, dict) and bool(extra.get("execution_only"))


def _named(path: str, is_execution: bool) -> str:
    return f"{path} (changes no result)" if is_execution and not path.startswith("data.") else path


def _setting(run: ComparedRun, path: str) -> str:
    return str(run.config[path]) if path in run.config else "not set"


def _tested(runs: list[ComparedRun]) -> Grid | None:
    found = [dict(run.result.metrics) for run in runs]
    title = "Test metrics of the weights that validation selected"
    deviations, seeds = seed_deviations(runs[0])
    note = "Losses and KL in nats per image. One run each: a difference within the spread over seeds means nothing"
    note += f"; sd: over the {seeds} seeds of {runs[0].letter}'s cell." if deviations else "."
    return _metrics(title, runs, found, note, deviations)


def _at_equal_epochs(runs: list[ComparedRun]) -> Grid | None:
    """Return the validation metrics of the last epoch that every run has finished and evaluated."""
    common = set.intersection(*(set(run.validated) for run in runs))
    if not common:
        return None
    epoch = max(common)
    found = [
        {key: value for key, value in run.history.epochs[epoch].items() if key.startswith(("val/", "latent/"))}
        for run in runs
    ]
    return _metrics(f"Validation after epoch {epoch}, the last one that all have", runs, found, "", {})


def _metrics(
    title: str, runs: list[ComparedRun], found: list[dict[str, float]], note: str, deviations: dict[str, float]
) -> Grid | None:
    """Return a row per metric: its value in every run, then the differences to the first run's."""
    keys = list(dict.fromkeys(key for values in found for key in values))
    if not keys:
        return None
    first = runs[0].letter
    head = ["metric", *(run.letter for run in runs), *(f"{run.letter} − {first}" for run in runs[1:])]
    rows = []
    for key in keys:
        values = [values.get(key) for values in found]
        name = key.removeprefix("test/")  # which the title says
        row = [Word(f"{name}{_ARROWS[column_of(key).direction]}"), *(Word(_number(value)) for value in values)]
        row += [_difference(key, runs, values, position) for position in range(1, len(runs))]
        rows.append((*row, Word(_number(deviations.get(key), 3))) if deviations else tuple(row))
    return Grid(title, (*head, f"sd of {first}") if deviations else tuple(head), tuple(rows), note)


def _base(key: str) -> str:
    return key.partition("/")[2]


def _number(value: float | None, digits: int = 5) -> str:
    return _NONE if value is None else f"{value:.{digits}g}"


def _difference(key: str, runs: list[ComparedRun], values: list[float | None], position: int) -> Word:
    """Return `+0.12` and the share in percent below it, coloured where one way is better; a dash where they cannot be
    compared.
    """
    before, now = values[0], values[position]
    if before is None or now is None or not _comparable(key, runs[0], runs[position]):
        return Word(_NONE)
    change = now - before
    share = f"\n{100 * change / abs(before):+.3g}%" if before and _base(key) not in _WITHOUT_ZERO else ""
    direction = column_of(key).direction
    style = "" if direction is None or not change else BETTER if (change > 0) == (direction == "higher") else WORSE
    return Word(f"{change:+.4g}{share}" if math.isfinite(change) else _NONE, style)


def _comparable(key: str, first: ComparedRun, other: ComparedRun) -> bool:
    if not same_test_images(first, other):
        return False
    if _base(key) == "objective":
        return same_objective(first, other)
    return _base(key) not in _OF_LIKELIHOOD or same_likelihood(first, other)


def _circumstances(runs: list[ComparedRun]) -> Grid:
    several = [run.circumstances for run in runs]
    names = differing(several)
    shared = [name for name in _WORTH_SAYING if name in several[0] and name not in names]
    rows = [words(name, *(one.get(name, "unknown") for one in several)) for name in names]
    rest = f"The same: {', '.join(f'{name} {several[0][name]}' for name in shared)}." if shared else ""
    if not rows:
        return Grid("Provenance", ("code, packages, machine and data",), (words("no difference recorded"),), rest)
    return Grid("Provenance", ("", *(run.letter for run in runs)), tuple(rows), rest)
