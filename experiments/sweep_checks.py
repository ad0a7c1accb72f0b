"""What a sweep may ask: every axis, cell, baseline and objective is checked before anything is created."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from experiments.sweep_file import Range, SweepFile
from vae_core.config import field_paths, override, parse_config, path_mistake, value_at
from vae_core.errors import UserError, suggestion

if TYPE_CHECKING:
    from experiments.sweep import Sweep

_DATA_PLACES = ("data.path", "data.labels")  # what is read there counts, by its fingerprint
_CHANGES_NO_RESULT = {
    path
    for path, field in field_paths()
    if isinstance(field.json_schema_extra, dict)
    and field.json_schema_extra.get("execution_only")
    and path not in _DATA_PLACES
}


def check(sweep: "Sweep") -> None:
    """Refuse unknown paths, empty axes and any value that the config does not take.

    Raises:
        UserError: with all that is wrong of one kind.
    """
    mistakes = [f"{sweep.where}: space.{name}: {wrong}" for name in sweep.file.space if (wrong := path_mistake(name))]
    if "seed" in sweep.file.space or "seed" in sweep.file.set:
        mistakes.append(f"{sweep.where}: seed: is set by `seeds`, the same for every cell")
    if mistakes:
        raise UserError(mistakes)
    parse_config(sweep.tree, sweep.where)
    mistakes = [message for name in sweep.file.space for message in _axis_mistakes(sweep, name)]
    mistakes += _baseline_mistakes(sweep)
    mistakes += _objective_mistakes(sweep)
    if mistakes:
        raise UserError(mistakes)
    for params in sweep.grid() if sweep.file.sampler == "grid" else []:
        sweep.config(params, sweep.seeds[0])


def _axis_mistakes(sweep: "Sweep", name: str) -> Iterator[str]:
    axis = sweep.file.space[name]
    if isinstance(axis, list) and not axis:
        yield f"{sweep.where}: space.{name}: is an empty list; give at least one value"
    kinds = {path: field.annotation for path, field in field_paths()}
    if isinstance(axis, Range) and not _is_number(kinds[name]):
        yield f"{sweep.where}: space.{name}: a range needs a numeric field; give a list of values"
        return
    values = axis if isinstance(axis, list) else [axis.low, axis.high]
    for value in values:
        yield from _refusals(sweep.tree, name, value, f"{sweep.where}: space.{name}")
    if name in _CHANGES_NO_RESULT:
        yield f"{sweep.where}: space.{name}: changes how a run is executed, not what it learns; put it under set"
    elif isinstance(axis, list) and len(_distinct(sweep, name, axis)) < len(axis):
        yield f"{sweep.where}: space.{name}: names a value twice; got {values}"


def _distinct(sweep: "Sweep", name: str, values: list[Any]) -> set[str]:
    """Return the values of an axis as the config holds them: 1 and 1.0 are one; a refused value counts as itself."""
    found = set()
    for value in values:
        try:
            config = parse_config(override(sweep.tree, {name: value}), sweep.where)
        except UserError:
            found.add(json.dumps(value))
            continue
        found.add(json.dumps(value_at(config.model_dump(mode="json"), name)))
    return found


def _objective_mistakes(sweep: "Sweep") -> Iterator[str]:
    lpips = [sweep.base_config.evaluate.lpips] if "evaluate.lpips" not in sweep.file.space else []
    if sweep.file.objective.metric == "val/lpips" and lpips != ["required"]:
        yield (
            f"{sweep.where}: objective.metric: val/lpips needs evaluate.lpips: required under set, "
            "so that every run has the metric"
        )


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float, float | None, int | None)


def _baseline_mistakes(sweep: "Sweep") -> Iterator[str]:
    baseline = sweep.file.baseline if isinstance(sweep.file.baseline, dict) else {}
    for name, value in baseline.items():
        axis = sweep.axes.get(name)
        if axis is None:
            yield f"{sweep.where}: baseline.{name}: is not swept; {suggestion(name, sweep.axes)}"
        elif isinstance(axis, list) and value not in axis:
            yield f"{sweep.where}: baseline.{name}: {value!r} is not among the swept values {axis}"


def cell_mistakes(file: SweepFile, tree: Mapping[str, Any], name: str, where: str) -> Iterator[str]:
    """Yield what is wrong with the named cell `name` beside the base config `tree`."""
    place = f"{where}: cells.{name}"
    values = file.cells[name]
    wrong = {path: mistake for path in values if (mistake := path_mistake(path))}
    yield from (f"{place}.{path}: {mistake}" for path, mistake in wrong.items())
    if wrong:
        return
    for path in values:
        if path in file.space:
            yield f"{place}.{path}: is an axis of space as well; a path belongs to one of them"
        if path == "seed":
            yield f"{place}.seed: is set by `seeds`, the same for every cell"
        if path in _CHANGES_NO_RESULT:
            yield f"{place}.{path}: changes how a run is executed, not what it learns; put it under set"
    try:
        parse_config(override(tree, values), "")
    except UserError as error:
        yield from (f"{place}: {message.removeprefix(': ')}" for message in error.messages)


def set_mistakes(base: Mapping[str, Any], values: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
    """Return what the config says against the `values` of `set`; `places`: path -> where the user has written it."""
    together = _refused(override(base, values))  # fields may need one another: what another one of them cures is right
    return [
        f"{places[name]}: {_without_path(message, name)}"
        for name, value in values.items()
        for message in _refused(override(base, {name: value}))
        if message in together
    ]


def _refusals(tree: Mapping[str, Any], name: str, value: Any, place: str) -> list[str]:
    """Return what the config says against `value` for the field `name`, each message starting with `place`."""
    return [f"{place}: {_without_path(message, name)}" for message in _refused(override(tree, {name: value}))]


def _refused(tree: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the config `tree`, each message starting with `: `."""
    try:
        parse_config(tree, "")
    except UserError as error:
        return list(error.messages)
    return []


def _without_path(message: str, name: str) -> str:
    """Strip the path that the message repeats; a rule about several fields keeps its own."""
    return re.sub(
        rf"^: (?:{re.escape(name)}(?P<inside>[^:]*): )?",
        r"\g<inside> " if f"{name}." in message else "",
        message,
    ).strip()
