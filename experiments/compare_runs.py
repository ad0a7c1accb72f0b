"""The runs that `vae-sweep compare` sets side by side, as their folders have them, and what makes them incomparable."""

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

from experiments.circumstances import circumstances
from experiments.history import RunHistory, held_runs, read_history
from experiments.ledger import read_trials
from experiments.run_result import RunResult, read_run
from experiments.run_search import FoundRun, find_run
from vae_core.errors import UserError
from vae_core.yaml_io import load_yaml

_LIKELIHOOD = ("evaluate.likelihood", "evaluate.scale_images")
_MOST = len(string.ascii_uppercase)


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        letter: A, B, ...: what the tables call it.
        found: its name and where it lies.
        config: dotted path -> value of the resolved config; a list is one value.
        result: test metrics, state, verdict.
        history: its epochs.
        circumstances: see `experiments.circumstances`.
    """

    letter: str
    found: FoundRun
    config: Mapping[str, Any]
    result: RunResult
    history: RunHistory
    circumstances: Mapping[str, str]

    @property
    def validated(self) -> list[int]:
        """Return the finished epochs that have `val/` metrics, ascending."""
        epochs = self.history.epochs
        return sorted(epoch for epoch in epochs if any(key.startswith("val/") for key in epochs[epoch]))


def compared_runs(root: Path, names: list[str]) -> list[ComparedRun]:
    """Find and read the runs.

    Raises:
        UserError: fewer than two, more than 26, one named twice, or a name that is unknown or ambiguous.
    """
    if not 2 <= len(names) <= _MOST:
        raise UserError(f"compare: takes 2 to {_MOST} runs; got {len(names)}: {', '.join(names)}")
    runs = [find_run(root, name) for name in names]
    for position, run in enumerate(runs):
        if run in runs[:position]:
            raise UserError(f"{names[position]!r} and {names[runs.index(run)]!r} are the same run, {run.name}")
    return [_read(letter, run) for letter, run in zip(string.ascii_uppercase, runs, strict=False)]


def _read(letter: str, found: FoundRun) -> ComparedRun:
    directory = found.directory
    if not directory.config_file.is_file():
        raise UserError(f"{found.name}: has not been planned yet ({directory.config_file} is missing)")
    return ComparedRun(
        letter,
        found,
        dict(_leaves(load_yaml(directory.config_file))),
        read_run(found.study, found.id, found.seed, found.id in held_runs(found.study)),
        read_history(directory),
        circumstances(found.study, directory),
    )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def config_differences(runs: list[ComparedRun]) -> list[str]:
    """Return the dotted paths that are not the same everywhere, in the config's order."""
    paths = dict.fromkeys(path for run in runs for path in run.config)
    return [path for path in paths if len({json.dumps(run.config.get(path, "-")) for run in runs}) > 1]


def same_data(first: ComparedRun, other: ComparedRun) -> bool:
    """Return whether both saw the same images in the same splits."""
    return first.circumstances.get("data fingerprint") == other.circumstances.get("data fingerprint")


def same_test_images(first: ComparedRun, other: ComparedRun) -> bool:
    """Return whether both are tested on the same images, whatever they were trained on."""
    known = first.circumstances.get("test images"), other.circumstances.get("test images")
    return same_data(first, other) or (None not in known and known[0] == known[1])


def same_likelihood(first: ComparedRun, other: ComparedRun) -> bool:
    """Return whether the ELBOs of both are nats of one likelihood and mean the same."""
    settings = all(first.config.get(path) == other.config.get(path) for path in _LIKELIHOOD)
    return settings and first.result.bound == other.result.bound


def same_objective(first: ComparedRun, other: ComparedRun) -> bool:
    """Return whether both minimise the same function."""
    names = {name for name in [*first.config, *other.config] if name.startswith("loss.")}
    return all(first.config.get(name) == other.config.get(name) for name in names)


def warnings(runs: list[ComparedRun]) -> list[str]:
    """Return what a reader must know before any number is compared with another, the gravest first."""
    first, *others = runs
    found = []
    for other in others:
        pair = f"{first.letter} and {other.letter}"
        if not same_data(first, other):
            same = same_test_images(first, other)
            effect = "their test images are the same" if same else "no test metric of theirs can be compared"
            found.append(f"{pair} saw DIFFERENT DATA ({_pair(first, other, 'data fingerprint')}); {effect}.")
        if not same_likelihood(first, other):
            found.append(f"{pair} have DIFFERENT EVALUATION LIKELIHOODS: {_likelihoods(first, other)}.")
        if first.config.get("evaluate.select") != other.config.get("evaluate.select"):
            found.append(f"The weights of {pair} were selected by different metrics (evaluate.select).")
    return found


def _pair(first: ComparedRun, other: ComparedRun, name: str) -> str:
    return " and ".join(run.circumstances.get(name, "unknown") for run in (first, other))


def _likelihoods(first: ComparedRun, other: ComparedRun) -> str:
    named = [f"{path} {first.config.get(path)} and {other.config.get(path)}" for path in _LIKELIHOOD]
    changed = [words for words, path in zip(named, _LIKELIHOOD, strict=True) if _differ(first, other, path)]
    if first.result.bound != other.result.bound:
        changed.append(f"the ELBO of one is {first.result.bound}, of the other {other.result.bound}")
    return f"{'; '.join(changed)}; their ELBOs and reconstruction terms cannot be compared"


def _differ(first: ComparedRun, other: ComparedRun, path: str) -> bool:
    return bool(first.config.get(path) != other.config.get(path))


def seed_deviations(run: ComparedRun) -> tuple[dict[str, float], int]:
    """Return metric -> sample standard deviation over the finished seeds of the run's cell, and their number."""
    study = run.found.study
    trials = [trial for trial in read_trials(study) if run.found.id in dict(trial.runs)]
    results = [read_run(study, name, seed, False) for name, seed in trials[0].runs] if trials else []
    done = [result for result in results if result.state == "done"]
    if len(done) < 2:
        return {}, len(done)
    keys = [key for key in done[0].metrics if all(key in result.metrics for result in done)]
    return {key: stdev(result.metrics[key] for result in done) for key in keys}, len(done)
