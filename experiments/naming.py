"""What people call the runs of a study, and what tables call its cells."""

from experiments.ledger import read_trials
from experiments.results import CellResult, StudyResults
from experiments.run_search import runs_named, runs_of
from experiments.table import plain
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError, nearest, suggestion


def labels(study: StudyDirectory) -> dict[str, str]:
    """Return run id -> `cell seed=N` of every run."""
    return {run: f"{trial.cell} seed={seed}" for trial in read_trials(study) for run, seed in trial.runs}


def chosen_runs(study: StudyDirectory, words: list[str]) -> list[str]:
    """Return the ids of the runs that the words name, each once; a word may name several (a cell, a beginning).

    Raises:
        UserError: a word names none.
    """
    known = runs_of(study)
    chosen: dict[str, None] = {}
    for word in words:
        found = runs_named(known, word)
        if not found:
            names = dict.fromkeys(name for run in known for name in (run.cell, f"{run.cell} seed={run.seed}"))
            hint = suggestion(word, [*names, *nearest(word, [run.id for run in known])])
            raise UserError(f"{study.path.name}: {word!r} names no run; {hint}")
        chosen |= dict.fromkeys(run.id for run in found)
    return list(chosen)


def short_label(results: StudyResults, cell: CellResult, separator: str = ", ") -> str:
    """Return a cell's name without what goes without saying: `beta = 4` for `loss.beta=4.0`."""
    if results.named or not results.space:
        return cell.cell
    names = [path.rpartition(".")[2] for path in results.space]
    if len(set(names)) < len(names):
        names = list(results.space)
    pairs = zip(names, results.space, strict=True)
    return separator.join(f"{name} = {plain(cell.params.get(path))}" for name, path in pairs)
