"""What people call the runs of a study: an id or its beginning, a cell, a cell with a seed."""

from experiments.ledger import read_trials
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


def _names(label: str) -> tuple[str, str]:
    return label, label.rpartition(" ")[0]  # with its seed, and the cell alone
