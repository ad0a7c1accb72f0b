"""What a run's history says to a view: its metric rows, its files, its tags."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracking.images import image_name, thumbnail_name
from tracking.journal import read_journal
from tracking.run_directory import ChainLine, RunDirectory

_SHOWN_OF_A_SERIES = 4
_REPEATED = "test/scale"  # val/scale of the same epoch
_NUMBERED = re.compile(r"(\w+)/.*_(\d+)")


@dataclass(frozen=True)
class MetricRow:
    """One measured value: epoch metrics have step = epoch, test metrics step = best epoch."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class Upload:
    """A file of the run directory and the name under which a view shows it; `is_thumbnail`: scaled down, as WebP."""

    path: Path
    name: str
    is_thumbnail: bool = False


def covered(chain: Sequence[ChainLine]) -> Sequence[ChainLine]:
    """Return the part of a history that no crash can undo any more.

    That is what the older of the two newest checkpoints covers (the next attempt starts from it where the
    newest is damaged), or everything once the run is done. Where an attempt goes on from an earlier one, the
    earlier part ends with the checkpoint that it started from.
    """
    marks = []
    start = 0
    for index, item in enumerate(chain):
        if item.line.kind == "end" and item.line.fields["status"] == "done":
            return chain
        if item.line.n == 0:
            start = index
            if index > 0:
                marks.append(index)
        elif item.line.kind == "checkpoint":
            marks.append(start + item.line.fields["covers"] + 1)
    return chain[: marks[-2]] if len(marks) >= 2 else []


def metric_rows(chain: Sequence[ChainLine]) -> Iterator[MetricRow]:
    """Yield every measured value of the history, in order.

    Of a numbered series the first four of the val split (`latent/kl_group_0`, ...), and nothing that is there under
    another name, so that no run has 60 keys: views get slow with many, and the journal has them all.
    """
    for item in chain:
        line = item.line
        if line.kind in ("epoch", "result"):
            step = line.fields["epoch"] if line.kind == "epoch" else line.fields["best_epoch"]
            for key, value in (line.fields["metrics"] | line.fields.get("system", {})).items():
                if key == _REPEATED:
                    continue
                member = _NUMBERED.fullmatch(key)
                if member is None or (member[1] == "latent" and int(member[2]) < _SHOWN_OF_A_SERIES):
                    yield MetricRow(key, float(value), step, line.time_ms)


def uploads(run: RunDirectory, chain: Sequence[ChainLine]) -> Iterator[Upload]:
    """Yield the files that the history names: the config, where each attempt ran, figures, weights and tables."""
    yield Upload(run.config_file, "config.yaml")
    for item in chain:
        folder = run.attempt(item.attempt).path
        fields = item.line.fields
        if item.line.kind == "attempt" and fields.get("provenance"):
            yield Upload(folder / fields["provenance"], f"provenance/attempt_{item.attempt}.json")
        elif item.line.kind == "figures":
            for name in fields["files"]:
                key = re.sub(r"_\d+$", "", Path(name).stem)
                image = image_name(run.id, key, fields["epoch"], item.line.time_ms)
                yield Upload(folder / name, image)
                yield Upload(folder / name, thumbnail_name(image), is_thumbnail=True)
        elif item.line.kind == "result":
            for name in fields["artifacts"].values():
                yield Upload(folder / name, f"{'checkpoints/' if name.endswith('.pt') else ''}{Path(name).name}")


def run_tags(chain: Sequence[ChainLine]) -> dict[str, str]:
    """Return what the history says of the run in words: newest attempt, its place and tags, verdict, failure."""
    tags: dict[str, str] = {}
    for item in chain:
        fields = item.line.fields
        if item.line.kind == "attempt":
            tags = {"attempt": str(item.attempt)} | words(fields["tags"]) | _place(fields)
        elif item.line.kind == "result":
            tags["verdict"] = fields["verdict"]["name"]
            tags["verdict_because"] = fields["verdict"]["because"]
        elif item.line.kind == "end" and fields["status"] == "failed":
            tags["failure"] = f"{fields['failure']}: {fields['reason']}"
    return tags


def _place(attempt: Mapping[str, Any]) -> dict[str, str]:
    """Return where an attempt runs, as far as its first line says so."""
    machine = attempt.get("machine") or {}
    place = words({"host": attempt.get("host"), "device": attempt.get("device")})
    place |= words({name: machine.get(name) for name in ("device_name", "driver")})
    return place | ({"slurm_job": attempt["job"], "node": attempt["host"]} if attempt.get("job") else {})


def gpu_hours(run: RunDirectory) -> float:
    """Return the GPU-hours of all attempts of a run, lost ones included, each until its newest journal line.

    A worker that shares a GPU with others counts for its share; a run without a GPU has 0.
    """
    hours = 0.0
    for number in run.attempts():
        lines = read_journal(run.attempt(number).journal_file)
        if lines and lines[0].kind == "attempt":
            hours += (lines[0].fields.get("gpus") or 0.0) * (lines[-1].time_ms - lines[0].time_ms) / 3_600_000
    return hours


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return dotted path -> its last part where no other path ends with it, else the whole path."""
    known = list(paths)
    last = [path.rpartition(".")[2] for path in known]
    return {path: name if last.count(name) == 1 else path for path, name in zip(known, last, strict=True)}


def short_cell(cell: str, params: Mapping[str, Any]) -> str:
    """Return a cell's name with its axes called by their short names: `beta=4.0` for `loss.beta=4.0`."""
    for path, name in short_names(params).items():
        cell = re.sub(rf"(?<!\S){re.escape(path)}=", f"{name}=", cell)
    return cell


def run_name(cell: str, params: Mapping[str, Any], seed: int) -> str:
    """Return a run's name for people, such as `beta=4.0 seed=1`."""
    return f"{short_cell(cell, params)} seed={seed}" if params else f"seed={seed}"


def words(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as views show them, None left out."""
    return {name: word(value) for name, value in values.items() if value is not None}


def word(value: object) -> str:
    """Return a value as views show it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
