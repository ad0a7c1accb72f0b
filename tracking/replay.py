"""What a run's history says to a view: its metric rows, its files, its tags."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracking.journal import read_journal
from tracking.run_directory import ChainLine, RunDirectory


@dataclass(frozen=True)
class MetricRow:
    """One measured value: epoch metrics have step = epoch, test metrics step = best epoch."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class Upload:
    """A file of the run directory and the folder ("" is the top) in which a view shows it."""

    path: Path
    folder: str

    @property
    def name(self) -> str:
        """Where the view shows the file."""
        return f"{self.folder}/{self.path.name}".lstrip("/")


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
    """Yield every measured value of the history, in order."""
    for item in chain:
        line = item.line
        if line.kind in ("epoch", "result"):
            step = line.fields["epoch"] if line.kind == "epoch" else line.fields["best_epoch"]
            for key, value in line.fields["metrics"].items():
                yield MetricRow(key, float(value), step, line.time_ms)


def uploads(run: RunDirectory, chain: Sequence[ChainLine]) -> Iterator[Upload]:
    """Yield the files that the history names: the config, figures, weights and tables."""
    yield Upload(run.config_file, "")
    for item in chain:
        folder = run.attempt(item.attempt).path
        if item.line.kind == "figures":
            for name in item.line.fields["files"]:
                yield Upload(folder / name, "figures")
        elif item.line.kind == "result":
            for name in item.line.fields["artifacts"].values():
                yield Upload(folder / name, "checkpoints" if name.endswith(".pt") else "")


def run_tags(chain: Sequence[ChainLine]) -> dict[str, str]:
    """Return what the history says of the run in words: newest attempt, its own tags, verdict, failure."""
    tags: dict[str, str] = {}
    for item in chain:
        fields = item.line.fields
        if item.line.kind == "attempt":
            tags |= {"attempt": str(item.attempt)} | {name: word(value) for name, value in fields["tags"].items()}
            if fields.get("job"):
                tags |= {"slurm_job": fields["job"], "node": fields["host"]}
        elif item.line.kind == "result":
            tags["verdict"] = fields["verdict"]["name"]
            tags["verdict_because"] = fields["verdict"]["because"]
        elif item.line.kind == "end" and fields["status"] == "failed":
            tags["failure"] = f"{fields['failure']}: {fields['reason']}"
    return tags


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


def run_name(params: Mapping[str, Any], seed: int) -> str:
    """Return a run's name for people, such as `loss.beta=4.0 seed=1`."""
    return " ".join([*(f"{path}={word(value)}" for path, value in params.items()), f"seed={seed}"])


def words(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as views show them, None left out."""
    return {name: word(value) for name, value in values.items() if value is not None}


def word(value: object) -> str:
    """Return a value as views show it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
