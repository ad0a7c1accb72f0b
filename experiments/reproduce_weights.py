"""Whether two runs ended with the same selected weights."""

import pickle
from pathlib import Path

from experiments.history import RunHistory
from tracking.run_directory import RunDirectory


def weights_words(original: RunDirectory, before: RunHistory, repeated: RunDirectory, now: RunHistory) -> str | None:
    """Return a sentence on the selected weights of both; None where one of them has none to look at."""
    paths = [_best(run, history) for run, history in ((original, before), (repeated, now))]
    if paths[0] is None or paths[1] is None:
        return None
    try:
        largest = _largest_difference(paths[0], paths[1])
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        return f"The selected weights could not be compared ({type(error).__name__})."
    if largest is None:
        return "The selected weights are of two different networks."
    return (
        f"The selected weights differ by at most {largest:.2g}."
        if largest
        else "The selected weights are the same, bit for bit."
    )


def _best(run: RunDirectory, history: RunHistory) -> Path | None:
    if history.result is None or "best.pt" not in history.result["artifacts"]:
        return None
    path = run.attempt(history.result_attempt or 0).path / history.result["artifacts"]["best.pt"]
    return path if path.is_file() else None


def _largest_difference(first: Path, second: Path) -> float | None:
    """Return the largest difference between two weights; None: their names or shapes are not the same."""
    import torch

    left, right = (torch.load(path, map_location="cpu", weights_only=True) for path in (first, second))
    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in (left, right)]
    if shapes[0] != shapes[1]:
        return None
    return max(
        (float((left[name].double() - right[name].double()).abs().max()) for name in left if left[name].numel()),
        default=0.0,
    )
