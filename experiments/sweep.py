"""A sweep: one question, a base config, a search space and seeds, all checked before anything is created."""

import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from experiments.slurm_profiles import with_profile
from experiments.study_files import read_sweep
from experiments.sweep_checks import cell_mistakes, check, set_mistakes
from experiments.sweep_file import Axis, LauncherConfig, Objective, Range, SweepFile
from slurm.redaction import HIDDEN, is_secret_name, redacted
from slurm.settings import SlurmSettings
from vae_core.config import (
    RunConfig,
    load_base,
    override,
    parse_config,
    path_mistake,
    validation_messages,
    value_at,
)
from vae_core.errors import UserError, suggestion
from vae_core.yaml_io import dump_yaml, load_yaml, parse_yaml

_PLACES = ("data.path", "data.labels", "data.cache_dir", "loss.perceptual.path")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Sweep:
    """A sweep whose every cell has been checked.

    Attributes:
        name: the study's name.
        question: the file's first comment line.
        where: the file, for messages.
        file: its keys.
        tree: the base config with `set` applied, as a nested mapping.
    """

    name: str
    question: str
    where: str
    file: SweepFile
    tree: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """Return the seeds of every cell."""
        return list(range(self.file.seeds)) if isinstance(self.file.seeds, int) else list(self.file.seeds)

    @property
    def base_config(self) -> RunConfig:
        """Return the config that the cells change."""
        return parse_config(self.tree, self.where)

    @property
    def axes(self) -> dict[str, Axis]:
        """Return what is swept: the values that the named cells give each of their paths, then `space`."""
        named: dict[str, Axis] = {}
        for values in self.file.cells.values():
            for path, value in values.items():
                choices = named.setdefault(path, [])
                if isinstance(choices, list) and value not in choices:
                    choices.append(value)
        return named | self.file.space

    def grid(self) -> list[dict[str, Any]]:
        """Return the swept values of every cell, the last axis varying fastest; one empty cell without any axis."""
        axes = {path: axis for path, axis in self.file.space.items() if isinstance(axis, list)}
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        named = list(self.file.cells.values()) or [{}]
        return [cell | point for cell in named for point in points]

    def cell_name(self, params: Mapping[str, Any]) -> str:
        """Return the words that name a cell: `+gradient`, `loss.beta=0.1 model.latent_dim=8`, or both."""
        for name, values in self.file.cells.items():
            if all(params.get(path) == value for path, value in values.items()):
                rest = {path: value for path, value in params.items() if path not in values}
                return f"{name} {cell_name(rest)}" if rest else name
        return cell_name(params)

    def config(self, params: Mapping[str, Any], seed: int) -> RunConfig:
        """Return the config of one run: the swept values `params` on the base, with `seed`."""
        return parse_config(override(self.tree, {**params, "seed": seed}), self.where)

    def launched(self, kind: str | None, workers: int | None) -> "Sweep":
        """Return the sweep with its launcher replaced by what the command line says; None: as it is."""
        launcher = self.file.launcher
        changes: dict[str, Any] = {} if kind is None else {"kind": kind}
        if workers is not None:
            changes["workers"] = workers
            parallel = math.ceil(workers / launcher.slurm.slots)
            changes["slurm"] = launcher.slurm.model_copy(update={"array_parallelism": parallel})
        return replace(self, file=self.file.model_copy(update={"launcher": launcher.model_copy(update=changes)}))

    def resolved(self) -> dict[str, Any]:
        """Return the sweep as written to the study's folder: complete, with no reference to other files."""
        keys = self.file.model_dump(mode="json", exclude={"base", "set"})
        launcher = keys["launcher"]
        launcher["profiles"] = {name: _without_secrets(profile) for name, profile in launcher["profiles"].items()}
        launcher["slurm"] = _without_secrets(launcher["slurm"])
        config = self.base_config.model_dump(mode="json")
        axes = {path: axis if isinstance(axis, list) else axis.model_dump() for path, axis in self.axes.items()}
        return {"name": self.name, "question": self.question, **keys, "axes": axes, "config": config}


def cell_name(params: Mapping[str, Any]) -> str:
    """Return the words that name a cell: `loss.beta=0.1 model.latent_dim=8`."""
    return " ".join(f"{path}={plain_value(value)}" for path, value in params.items()) or "base"


def _without_secrets(settings: dict[str, Any]) -> dict[str, Any]:
    """Return SLURM settings as others may read them."""
    named = {
        section: {name: _without_secret(name, value) for name, value in settings[section].items()}
        for section in ("environment", "extra")
    }
    lines = {name: [redacted(line) for line in settings[name]] for name in ("setup", "venv") if settings[name]}
    return settings | named | lines


def _without_secret(name: str, value: str | bool | int) -> str | bool | int:
    if is_secret_name(name):
        return HIDDEN
    return redacted(value) if isinstance(value, str) else value


def plain_value(value: Any) -> bool | int | float | str:
    """Return a swept value as Optuna and MLflow can hold it: lists and mappings become JSON text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def shipped_sweeps() -> list[str]:
    """Return the names of the sweeps that come with the package."""
    folder = resources.files("sweeps")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_sweep(sweep: str, changes: list[str], study: str | None = None) -> Sweep:
    """Read and check a sweep.

    Args:
        sweep: path of a sweep file, or the name of a shipped one.
        changes: `--set` options, `path=value`; a path of the config, `seeds`, `trials`, or `space.<path>`.
        study: the study's name; default: the file's.

    Raises:
        UserError: every mistake found, each with file and dotted path.
    """
    path = _find(sweep)
    keys = load_yaml(path)
    if not isinstance(keys, dict):
        raise UserError(f"{path}: must be a mapping with the keys {', '.join(SweepFile.model_fields)}")
    options = _parse_options(changes)
    file = _parse_keys(_apply_options(keys, options, str(path)), str(path))
    file = file.model_copy(update={"launcher": with_profile(file.launcher, str(path))})
    tree = _base_tree(file, path, options)
    file = _complete_cells(file, tree, str(path))
    result = Sweep(_study_name(study or path.stem), _question(path), str(path), file, tree)
    check(result)
    return result


def single_run(base: str, changes: list[str], study: str | None = None) -> Sweep:
    """Return the sweep of one cell and one seed that `vae-sweep train` runs."""
    options = _parse_options(changes)
    fixed = {path: value for path, value in options.items() if path != "seed"}
    keys = {"base": base, "set": fixed, "seeds": [options.get("seed", 0)], "launcher": {"kind": "inline"}}
    file = _parse_keys(keys, "--set")
    tree = _base_tree(file, Path(base), options)
    name = study or f"train-{Path(base).stem}"
    result = Sweep(_study_name(name), f"One training of {base}", base, file, tree)
    check(result)
    return result


def stored_sweep(resolved: Path) -> Sweep:
    """Read back what `Sweep.resolved` wrote into a study's folder."""
    keys = read_sweep(resolved)
    tree = keys.pop("config")
    name, question = keys.pop("name", resolved.parent.name), keys.pop("question")
    keys.pop("axes", None)  # for readers of the file
    file = _parse_keys({"base": "stored", **keys}, str(resolved))
    return Sweep(name, question, str(resolved), file, tree)


def resolved_text(sweep: Sweep) -> str:
    """Return the study's `sweep.yaml`: the question as a comment, then every key."""
    return f"# {sweep.question}\n{dump_yaml(sweep.resolved())}"


def _find(sweep: str) -> Path:
    path = Path(sweep)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError(f"{sweep}: no such sweep file; shipped sweeps: {', '.join(shipped_sweeps())}")
        return path
    if sweep not in shipped_sweeps():
        raise UserError(f"{sweep}: neither a file nor a shipped sweep; {suggestion(sweep, shipped_sweeps())}")
    return Path(str(resources.files("sweeps") / f"{sweep}.yaml"))


def _question(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else path.stem


def _study_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(f"--study: {name!r} cannot name a folder; use letters, digits, '.', '_' and '-'")
    return name


def _parse_options(changes: list[str]) -> dict[str, Any]:
    values = {}
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise UserError(f"--set {change}: must look like path=value, for example loss.beta=4")
        values[path] = parse_yaml(text, f"--set {path}")
    return values


def _apply_options(keys: dict[str, Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    keys = {"set": {}, "space": {}, "cells": {}, "baseline": {}, "launcher": {}, **keys}
    for name in ("set", "space", "cells", "launcher"):
        if not isinstance(keys[name], dict):
            raise UserError(f"{where}: {name}: should be a mapping; got {keys[name]!r}")
    for path, value in options.items():
        if path in SweepFile.model_fields:
            keys[path] = value
        elif path.startswith("space."):
            axis = path.removeprefix("space.")
            keys["space"] = {**keys["space"], axis: value}
            baseline = keys.get("baseline")
            if isinstance(value, list) and isinstance(baseline, dict) and baseline.get(axis) not in value:
                keys.pop("baseline", None)  # the file's baseline is none of the values asked for
        elif path.startswith("launcher."):
            keys["launcher"] = override(keys["launcher"], {path.removeprefix("launcher."): value})
        elif path in keys["space"]:
            raise UserError(
                f"--set {path}: this sweep varies {path}; write --set 'space.{path}=[...]' to change its values"
            )
        elif any(isinstance(values, dict) and path in values for values in keys["cells"].values()):
            raise UserError(f"--set {path}: cells of this sweep set {path}; change them in a copy of the sweep file")
        else:
            keys["set"] = {**keys["set"], path: value}
    return keys


def _parse_keys(keys: dict[str, Any], where: str) -> SweepFile:
    try:
        return SweepFile.model_validate(keys)
    except ValidationError as error:
        raise UserError(validation_messages(error, where, _valid_keys)) from error


def _valid_keys(loc: tuple[str | int, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "objective": Objective,
        "launcher": LauncherConfig,
        "space": Range,
    }
    model = sections.get(str(loc[0])) if loc else SweepFile
    if loc[:1] == ("launcher",) and len(loc) > 1:
        model = SlurmSettings
    return list(model.model_fields) if model else []


def _base_tree(file: SweepFile, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with `set` applied and the data paths made absolute."""
    places = {name: f"--set {name}" if name in options else f"{path}: set.{name}" for name in file.set}
    mistakes = [f"{places[name]}: {wrong}" for name in file.set if (wrong := path_mistake(name))]
    if mistakes:
        raise UserError(mistakes)
    base = load_base(file.base, f"{path}: base", path.parent)
    parse_config(base, file.base)
    tree = override(base, file.set)
    mistakes = set_mistakes(base, file.set, places)
    if mistakes:
        raise UserError(mistakes)
    for name in _PLACES:
        value = _written_at(tree, name)
        if isinstance(value, str):
            tree = override(tree, {name: str(Path(value).expanduser().absolute())})
    return tree


def _written_at(tree: Any, path: str) -> Any:
    """Return what an unchecked tree has at a dotted path, None where it has nothing."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _complete_cells(file: SweepFile, tree: Mapping[str, Any], where: str) -> SweepFile:
    """Give every named cell a value for each path that any of them changes: what it leaves out is the base's.

    Raises:
        UserError: a path or value that the config refuses, a path that is also in `space`, two equal cells, or a
            baseline that names none of them.
    """
    mistakes = [message for name in file.cells for message in cell_mistakes(file, tree, name, where)]
    if isinstance(file.baseline, str) and file.baseline not in file.cells:
        mistakes.append(f"{where}: baseline: no named cell {file.baseline!r}; {suggestion(file.baseline, file.cells)}")
    if mistakes:
        raise UserError(mistakes)
    paths = dict.fromkeys(path for values in file.cells.values() for path in values)
    cells = {}
    for name, values in file.cells.items():
        config = parse_config(override(tree, values), where).model_dump(mode="json")
        cells[name] = {path: value_at(config, path) for path in paths}
        twin = next((other for other in cells if other != name and cells[other] == cells[name]), None)
        if twin is not None:
            raise UserError(f"{where}: cells.{name}: is the same as cells.{twin}; leave one out")
    baseline = cells[file.baseline] if isinstance(file.baseline, str) else file.baseline
    return file.model_copy(update={"cells": cells, "baseline": baseline})
