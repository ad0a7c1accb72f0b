"""Finding runs among all studies of a root by what people call them; imports nothing heavy."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.history import read_info
from experiments.ledger import read_trials
from tracking.replay import run_name
from tracking.run_directory import RunDirectory, StudyDirectory
from vae_core.errors import UserError, nearest, suggestion

_LISTED = 10  # more candidates than these are not read


@dataclass(frozen=True)
class FoundRun:
    """A run and where it lies; `other_name` is what MLflow calls it."""

    study: StudyDirectory
    id: str
    cell: str
    seed: int
    other_name: str

    @property
    def directory(self) -> RunDirectory:
        """Return the run's folder."""
        return self.study.run(self.id)

    @property
    def name(self) -> str:
        """Return `study/cell seed=N`."""
        return f"{self.study.path.name}/{self.cell} seed={self.seed}"


def find_run(root: Path, word: str) -> FoundRun:
    """Return the run that a word names.

    Args:
        root: folder of the studies.
        word: a run id or its beginning, a cell, a cell with its seed (`loss.beta=4 seed=1`), MLflow's name, each with
            or without `study/` before it, or the path of a run's folder. Of a dotted path the last name is enough
            (`beta=4`), and numbers may be written in any way.

    Raises:
        UserError: it names no run, or several.
    """
    if _is_run_folder(word):
        return _in_folder(Path(word).absolute())
    runs = list(_all_runs(root))
    if not runs:
        raise UserError(f"--root {root}: holds no run yet; run a sweep first, for example: vae-sweep run beta")
    found = runs_named(runs, word)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(f"{run.study.path.name}/{run.id} ({run.cell} seed={run.seed})" for run in found[:_LISTED])
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UserError(f"{word!r} names {len(found)} runs; write one of them as STUDY/ID: {listed}{more}")
    names = [run.name for run in runs] + [run.id for run in runs]
    close = nearest(word, names) or nearest(f"{runs[0].study.path.name}/{word}", names)
    hint = suggestion(word, close or sorted({run.study.path.name for run in runs}))
    raise UserError(f"--root {root}: {word!r} names no run; {hint if close else f'studies there: {hint}'}")


def _is_run_folder(word: str) -> bool:
    with suppress(OSError, ValueError):  # too long for a path, or no text at all
        return (Path(word) / "run.json").is_file()
    return False


def _in_folder(folder: Path) -> FoundRun:
    info = read_info(RunDirectory(folder))
    study = StudyDirectory(folder.parents[1])
    cell, seed = info["cell"], info["seed"]
    return FoundRun(study, folder.name, cell, seed, run_name(cell, info["params"], seed))


def _all_runs(root: Path) -> Iterator[FoundRun]:
    for sweep in sorted(root.absolute().glob("*/sweep.yaml")):
        yield from runs_of(StudyDirectory(sweep.parent))


def runs_of(study: StudyDirectory) -> list[FoundRun]:
    """Return every run of a study once."""
    known: dict[str, FoundRun] = {}
    for trial in read_trials(study):
        for run, seed in trial.runs:
            known.setdefault(run, FoundRun(study, run, trial.cell, seed, run_name(trial.cell, trial.params, seed)))
    return list(known.values())


def runs_named(runs: Sequence[FoundRun], word: str) -> list[FoundRun]:
    """Return the runs that a word fits best: by id or cell and seed, else by cell alone, else by an id's beginning."""
    found: dict[int, list[FoundRun]] = {}
    for run in runs:
        study = run.study.path.name
        for rest in {word, word.removeprefix(f"{study}/")} if word.startswith(f"{study}/") else {word}:
            rank = _rank(run, rest)
            if rank is not None and run not in found.setdefault(rank, []):
                found[rank].append(run)
    return found[min(found)] if found else []


def _rank(run: FoundRun, word: str) -> int | None:
    plain = _plain(word)
    if word == run.id or plain in (_plain(f"{run.cell} seed={run.seed}"), _plain(run.other_name)):
        return 0
    if plain == _plain(run.cell):
        return 1
    return 2 if word and run.id.startswith(word) else None


def _plain(name: str) -> str:
    """Return a name in which `loss.beta=4` and `beta=4.0` are one."""
    return " ".join(_plain_part(part) for part in name.split())


def _plain_part(part: str) -> str:
    path, equals, value = part.partition("=")
    if not equals:
        return part
    with suppress(ValueError):
        value = repr(float(value))
    return f"{path.rpartition('.')[2]}={value}"
