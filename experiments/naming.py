"""What people call the runs of a study: an id or its beginning, a cell, a cell with a seed."""

from experiments.ledger import read_trials
from experiments.results import CellResult, StudyResults
from experiments.table import plain
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError, nearest, suggestion


def labels(study: StudyDirectory) -> dict[str, str]:
    """Return run id -> `cell seed=N` of every run."""
    return {run: f"{trial.cell} seed={seed}" for trial in read_trials(study) for run, seed in trial.runs}


def chosen_runs(study: StudyDirectory, words: list[str]) -> list[str]:
    """Return the ids of the runs that the words name, each once.

    Raises:
        UserError: a word names none.
    """
    known = labels(study)
    names = dict.fromkeys(name for label in known.values() for name in _names(label))
    chosen: dict[str, None] = {}
    for word in words:
        found = [run for run, label in known.items() if (word and run.startswith(word)) or word in _names(label)]
        if not found:
            raise UserError(
                f"{study.path.name}: {word!r} names no run; {suggestion(word, [*names, *nearest(word, known)])}"
            )
        chosen |= dict.fromkeys(found)
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


def _names(label: str) -> tuple[str, str]:
    return label, label.rpartition(" ")[0]  # with its seed, and the cell alone
