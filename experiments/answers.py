"""What the numbers of a study say, in sentences that hold for any axis."""

from collections.abc import Callable, Sequence

from experiments.estimates import Estimate, estimate, spearman
from experiments.results import CellResult, StudyResults
from experiments.table import ACTIVE_UNITS, KL, plain

_COLLAPSED = "full"


def answers(results: StudyResults) -> list[str]:
    """Return the sentences that stand below the table; none before the first finished run."""
    if not results.measured:
        return []
    return [sentence for sentence in (_collapse(results), _best(results), _trend(results)) if sentence]


def comparable(results: StudyResults) -> bool:
    """Return whether the cells' ELBOs are nats of one likelihood on the same images, and mean the same."""
    one_likelihood = not any(results.is_swept(path) for path in ("evaluate.likelihood", "evaluate.scale_images"))
    return one_likelihood and results.one_data_set and len(results.bounds) <= 1


def _trend(results: StudyResults) -> str | None:
    """Rank correlation of the only axis, where it is numeric, with KL and active units over cells."""
    axis = results.numeric_axis
    cells = results.measured
    if axis is None or len(cells) < 3:
        return None
    values = [float(cell.params[axis]) for cell in cells]
    words = []
    for name, key in (("KL", KL), ("active units", ACTIVE_UNITS)):
        found = spearman(values, [_mean(cell, key).mean for cell in cells])
        words.append(f"{name} {'undefined (constant)' if found is None else f'{found:.3f}'}")
    return f"Spearman correlation of {axis} over {len(cells)} cells: with {', with '.join(words)}."


def _collapse(results: StudyResults) -> str:
    """Where the posterior collapses fully, on every seed or on some."""
    cells = results.measured
    every = [cell for cell in cells if cell.verdicts[_COLLAPSED] == len(cell.done)]
    never = [cell for cell in cells if cell.verdicts[_COLLAPSED] == 0]
    some = [cell for cell in cells if cell not in every and cell not in never]
    if len(never) == len(cells):
        return f"No seed collapses fully {_span(results, cells)}."
    if len(every) == len(cells):
        return f"Every seed collapses fully {_span(results, cells)}."
    parts = []
    if every:
        parts.append(f"every seed collapses at {_at(results, every)}")
    if some:
        parts.append(f"only some seeds collapse at {_at(results, some)}")
    if never:
        parts.append(_intact(results, [*every, *some], never))
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _intact(results: StudyResults, collapsed: list[CellResult], never: list[CellResult]) -> str:
    """The edge of the collapse where there is one, else the list of what is left."""
    axis = results.numeric_axis
    if axis is not None:
        bad, good = ([cell.params[axis] for cell in cells] for cells in (collapsed, never))
        if max(good) < min(bad):
            return f"the largest value without a full collapse is {plain(max(good))}"
        if min(good) > max(bad):
            return f"the smallest value without a full collapse is {plain(min(good))}"
    return f"no seed does at {_at(results, never)}"


def _best(results: StudyResults) -> str | None:
    """The cell with the best mean of the sweep's objective, measured on the test split."""
    key = results.objective["metric"].replace("val/", "test/")
    name = key.removeprefix("test/")
    relative = name in ("elbo", "reconstruction")
    own_scale = name == "objective"  # of each cell's own loss
    if not results.one_data_set or own_scale or (relative and not comparable(results)):
        return None
    cells = [cell for cell in results.measured if cell.values(key)]
    if len(cells) < 2:
        return None
    choose: Callable[..., CellResult] = max if results.objective["direction"] == "maximize" else min
    best = choose(cells, key=lambda cell: _mean(cell, key).mean)
    others = [cell for cell in cells if cell is not best and _overlap(_mean(cell, key), _mean(best, key))]
    doubt = f"; its 95% interval meets those of {len(others)} of {len(cells) - 1} other cells" if others else ""
    word = "highest" if choose is max else "lowest"
    label = name.upper() if name in ("elbo", "ssim", "mse", "lpips", "kl") else name
    return f"The {word} mean test {label}, {_mean(best, key).mean:.4g}, is at {_at(results, [best])}{doubt}."


def _overlap(first: Estimate, second: Estimate) -> bool:
    """Return whether two intervals meet; a mean of one seed is taken as a point."""
    return abs(first.mean - second.mean) <= (first.half_width or 0.0) + (second.half_width or 0.0)


def _mean(cell: CellResult, key: str) -> Estimate:
    found = estimate(cell.values(key))
    if found is None:
        raise ValueError(f"{cell.cell}: no finished run measured {key}")
    return found


def _at(results: StudyResults, cells: Sequence[CellResult]) -> str:
    """Return `loss.beta = 3, 100` for one axis, else the cells' names."""
    if len(results.space) != 1 or results.named:
        return ", ".join(cell.cell for cell in cells)
    axis = next(iter(results.space))
    values = [cell.params[axis] for cell in cells]
    ordered = sorted(values) if axis == results.numeric_axis else values
    return f"{axis} = {', '.join(plain(value) for value in ordered)}"


def _span(results: StudyResults, cells: Sequence[CellResult]) -> str:
    axis = results.numeric_axis
    if axis is not None and len(cells) > 1:
        values = [cell.params[axis] for cell in cells]
        return f"at any {axis} from {plain(min(values))} to {plain(max(values))}"
    return f"at {_at(results, cells)}" if results.space else "in the one cell of this study"
