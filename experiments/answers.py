"""What the numbers of a study say, in sentences that hold for any axis."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from experiments.columns import ACTIVE_UNITS, KL, Column, run_value
from experiments.comparability import is_comparable
from experiments.contrasts import Contrasts
from experiments.estimates import Estimate, estimate, spearman
from experiments.results import CellResult, StudyResults
from experiments.table import plain
from experiments.wording import difference_text, p_text

_COLLAPSED = "full"
_WEAKER = (("ignored", "the decoder ignores z"), ("partial", "a partial collapse"))
_MOST_NAMED = 20  # cells in one sentence


def answers(
    results: StudyResults, columns: Sequence[Column], tests: Contrasts, baseline: CellResult | None
) -> list[str]:
    """Return what the numbers say, the answer first, then what supports it; nothing before the first finished run.

    The collapse comes first where cells differ in it or the question is about it, else the strongest statement about
    the sweep's objective that holds.
    """
    if not results.measured:
        return []
    collapse, best = _collapse(results), _best(results, columns)
    difference = _difference(results, columns, tests, baseline)
    first, second = (collapse, difference) if _is_about_collapse(results) else (difference, collapse)
    return [sentence for sentence in (first, second, best, _trend(results)) if sentence]


def _is_about_collapse(results: StudyResults) -> bool:
    collapsed = [_share(cell, _COLLAPSED) + _share(cell, "ignored") for cell in results.measured]
    return "collaps" in results.question.lower() or len(set(collapsed)) > 1


def _difference(
    results: StudyResults, columns: Sequence[Column], tests: Contrasts, baseline: CellResult | None
) -> str | None:
    """The strongest statement about the baseline that holds, in the metric that the sweep is about."""
    column = _judged_by(results, columns)
    family = tests.families.get(column.key) if column else None
    if column is None or family is None or baseline is None:
        return None
    pairs = [(cell, tests.comparison(cell, column.key)) for cell in results.measured]
    tested = [(cell, comparison) for cell, comparison in pairs if comparison and comparison.p is not None]
    untested = [cell for cell, comparison in pairs if comparison and comparison.p is None]
    if not tested:
        return None
    sign = -1 if column.direction == "lower" else 1
    holding = [(cell, comparison) for cell, comparison in tested if comparison.holds]
    better = [(cell, comparison) for cell, comparison in holding if sign * comparison.difference > 0]
    cell, comparison = max(better or holding or tested, key=lambda pair: abs(pair[1].difference))
    place, size = _at(results, [cell]), difference_text(comparison, column, sign=1 if comparison.difference > 0 else -1)
    direction = "higher" if comparison.difference > 0 else "lower"
    sure = f"{p_text(comparison.p)}, n = {comparison.n}"
    beside, label = f"the baseline ({_at(results, [baseline])})", _label(column)
    left_out = f"; not tested: {_at(results, untested)}" if untested else ""
    count = f"{len(tested)} tested" if untested else str(len(tested))
    if better:
        more = f"; {len(better)} of {count} cells are better" if len(better) > 1 else ""
        return f"{_capital(label)} at {place} is {size} {direction} than that of {beside}, {sure}{more}{left_out}."
    if holding:
        worse = f"{len(holding)} of {count} {'is' if len(holding) == 1 else 'are'} worse"
        return f"No cell is shown to be better in {label} than {beside}; {worse}, {place} by {size}, {sure}{left_out}."
    largest = "the largest of those tested" if untested else "the largest"
    return (
        f"No difference in {label} to {beside} holds: {largest}, at {place}, is {size} {direction}, {sure}{left_out}."
    )


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


def _trend(results: StudyResults) -> str | None:
    """Rank correlation of the only axis, where it is numeric, with what every cell has of KL and active units."""
    axis = results.numeric_axis
    cells = results.measured
    if axis is None or len(cells) < 3 or not results.one_data_set:
        return None
    values = [float(cell.params[axis]) for cell in cells]
    words = []
    for name, key in (("KL", KL), ("active units", ACTIVE_UNITS)):
        if not all(_values(cell, key) for cell in cells):
            continue
        found = spearman(values, [_mean(cell, key).mean for cell in cells])
        words.append(f"{name} {'undefined (constant)' if found is None else f'{found:.3f}'}")
    return f"Spearman correlation of {axis} over {len(cells)} cells: with {', with '.join(words)}." if words else None


def _collapse(results: StudyResults) -> str:
    """Where the posterior collapses, fully or less, on every finished seed or on some."""
    cells = results.measured
    shares = [(cell, _share(cell, _COLLAPSED)) for cell in cells]
    every = [cell for cell, share in shares if share == 1]
    never = [cell for cell, share in shares if share == 0]
    some = [cell for cell, share in shares if 0 < share < 1]
    parts = []
    if len(never) == len(cells):
        parts.append(f"no {_seed(never)} collapses fully {_span(results, cells)}")
    elif len(every) == len(cells):
        parts.append(f"every {_seed(every)} collapses fully {_span(results, cells)}")
    else:
        if every:
            parts.append(f"every {_seed(every)} collapses at {_at(results, every)}")
        if some:
            parts.append(f"only some seeds collapse at {_at(results, some)}")
        if never:
            parts.append(_intact(results, [*every, *some], never))
    return f"{_capital('; '.join([*parts, *_less_than_full(results)]))}."


def _share(cell: CellResult, verdict: str) -> float:
    return cell.verdicts[verdict] / len(cell.done)


def _seed(cells: Sequence[CellResult]) -> str:
    """Return `seed`, or `finished seed` where not all of them have finished."""
    return "seed" if all(len(cell.done) == len(cell.runs) for cell in cells) else "finished seed"


def _less_than_full(results: StudyResults) -> list[str]:
    """Return where the posterior collapses in a weaker way."""
    found = []
    for verdict, words in _WEAKER:
        every = [cell for cell in results.measured if _share(cell, verdict) == 1]
        some = [cell for cell in results.measured if 0 < _share(cell, verdict) < 1]
        places = [f"at {_at(results, every)}"] if every else []
        places += [f"on some seeds at {_at(results, some)}"] if some else []
        if places:
            found.append(f"{words} {' and '.join(places)}")
    return found


def _intact(results: StudyResults, collapsed: list[CellResult], never: list[CellResult]) -> str:
    """The edge of the collapse where there is one, else the list of what is left."""
    axis = results.numeric_axis
    if axis is not None:
        bad, good = ([cell.params[axis] for cell in cells] for cells in (collapsed, never))
        if max(good) < min(bad):
            return f"the largest value without a full collapse is {_edge(results, axis, max(good), min(bad))}"
        if min(good) > max(bad):
            return f"the smallest value without a full collapse is {_edge(results, axis, min(good), max(bad))}"
    return f"no seed does at {_at(results, never)}"


def _edge(results: StudyResults, axis: str, intact: float, collapsed: float) -> str:
    """Return the last value without a collapse, and which of those before the first with one have not been measured."""
    between = sorted(_gaps(results, axis, (intact, collapsed)))
    return plain(intact) + (f" ({', '.join(plain(value) for value in between)} not measured)" if between else "")


def _best(results: StudyResults, columns: Sequence[Column]) -> str | None:
    """The cell with the best mean of the sweep's objective, measured on the test split."""
    column = _judged_by(results, columns)
    if column is None:
        return None
    cells = [cell for cell in results.measured if _values(cell, column.key)]
    if len(cells) < 2:
        return None
    choose: Callable[..., CellResult] = max if column.direction == "higher" else min
    key = column.key
    best = choose(cells, key=lambda cell: _mean(cell, key).mean)
    top = _mean(best, key)
    equal = [cell for cell in cells if _mean(cell, key).mean == top.mean]
    if len(equal) == len(cells):
        return f"The mean {_label(column)} is the same in all {len(cells)} cells, {top.mean:.4g}."
    word = "highest" if choose is max else "lowest"
    found = f"The {word} mean {_label(column)}, {top.mean:.4g}, is at {_at(results, equal)}"
    if len(equal) > 1 or top.half_width is None:
        return f"{found}{'' if len(equal) > 1 else ' (one seed, no interval)'}."
    others = [cell for cell in cells if cell is not best and _overlap(_mean(cell, key), top)]
    doubt = f"; its 95% interval meets those of {len(others)} of {len(cells) - 1} other cells" if others else ""
    return f"{found}{doubt}."


def _judged_by(results: StudyResults, columns: Sequence[Column]) -> Column | None:
    """Return the sweep's objective on the test split, or the first column shown by which cells may be ranked."""
    objective = results.objective["metric"].replace("val/", "test/")
    tested = [column for column in columns if column.is_tested and is_comparable(results, column.key)]
    for column in tested:
        if column.key == objective:
            return replace(column, direction="higher" if results.objective["direction"] == "maximize" else "lower")
    return next((column for column in tested if column.direction), None)


def _label(column: Column) -> str:
    return f"test {column.title}" if column.key.startswith("test/") else column.title


def _overlap(first: Estimate, second: Estimate) -> bool:
    """Return whether two intervals meet; a mean of one seed is taken as a point."""
    return abs(first.mean - second.mean) <= (first.half_width or 0.0) + (second.half_width or 0.0)


def _mean(cell: CellResult, key: str) -> Estimate:
    found = estimate(_values(cell, key))
    if found is None:
        raise ValueError(f"{cell.cell}: no finished run measured {key}")
    return found


def _values(cell: CellResult, key: str) -> list[float]:
    return [value for run in cell.done if (value := run_value(run, key)) is not None]


def _at(results: StudyResults, cells: Sequence[CellResult]) -> str:
    """Return `loss.beta = 3, 100` for one axis, what several axes have in common, or else the cells' names."""
    if len(cells) > _MOST_NAMED and len(results.space) < 2:
        return f"{len(cells)} cells"
    if not results.space or results.named or any(cell.params.keys() != results.space.keys() for cell in cells):
        return ", ".join(cell.cell for cell in cells)
    if len(results.space) == 1:
        return _axis_values(next(iter(results.space)), cells)
    regions = _regions(results, cells)
    return " and at ".join(regions) if len(regions) <= _MOST_NAMED else f"{len(cells)} cells"


def _regions(results: StudyResults, cells: Sequence[CellResult]) -> list[str]:
    """Return the cells as products of values: one, or one for those values of the first axis that have the same rest.

    An axis on which every measured cell of the others is among them is not limited: `loss.beta = 10, 30`.
    """
    found = _product(results.measured, cells)
    if found is not None:
        return [found]
    first, *others = results.space
    rests: dict[str, list[tuple[str, ...]]] = {}
    for cell in cells:
        rests.setdefault(plain(cell.params[first]), []).append(tuple(plain(cell.params[path]) for path in others))
    alike: dict[frozenset[tuple[str, ...]], list[CellResult]] = {}
    for cell in cells:
        alike.setdefault(frozenset(rests[plain(cell.params[first])]), []).append(cell)
    parts = []
    for group in alike.values():
        product = _product(results.measured, group)
        parts += [cell.cell for cell in group] if product is None else [product]
    return parts


def _product(measured: Sequence[CellResult], cells: Sequence[CellResult]) -> str | None:
    """Return which values of which axes alone pick the cells out of all that are measured; None where none do."""
    values = {path: {plain(cell.params[path]) for cell in cells} for path in cells[0].params}
    picked = [cell for cell in measured if all(plain(cell.params[path]) in some for path, some in values.items())]
    limited = [path for path, some in values.items() if any(plain(cell.params[path]) not in some for cell in measured)]
    if len(cells) < 2 or len(picked) != len(cells) or not limited:
        return None
    return " with ".join(_axis_values(path, cells) for path in limited)


def _axis_values(path: str, cells: Sequence[CellResult]) -> str:
    values = [cell.params[path] for cell in cells]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        values = sorted(values)
    return f"{path} = {', '.join(dict.fromkeys(plain(value) for value in values))}"


def _gaps(results: StudyResults, axis: str, measured: Sequence[float]) -> set[float]:
    """Return the values of the study's only axis within the range of those measured that no finished run stands for."""
    listed = results.space[axis] if results.sampler == "grid" else ()
    asked = [value for value in listed if isinstance(value, int | float)]  # others may not have been started yet
    low, high = min(measured), max(measured)
    known = {float(value) for value in (*asked, *(cell.params[axis] for cell in results.cells)) if low < value < high}
    return known - {float(value) for value in measured}


def _span(results: StudyResults, cells: Sequence[CellResult]) -> str:
    axis = results.numeric_axis
    values = [] if axis is None else [cell.params[axis] for cell in cells]
    if axis is not None and len(values) > 1 and not _gaps(results, axis, values):
        return f"at any {axis} from {plain(min(values))} to {plain(max(values))}"
    if len(results.space) > 1 and not results.named and len(cells) > 1:
        return f"in any of the {len(cells)} cells"
    return f"at {_at(results, cells)}" if results.space else "in the one cell of this study"
