"""What several axes did to one metric: importance of each axis, and every cell as a line through all axes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.ablation import Ablation
from experiments.columns import MSE
from experiments.comparability import DIFFERENT_IMAGES
from experiments.machine import usable_cores
from experiments.other_process import called_elsewhere
from experiments.page.importances import ped_anova
from experiments.page.parts import FigureGroup, LeftOut, Numbers, Panel, Series, all_series, finite
from experiments.page.svg import ACCENT, INK, MUTED, SURFACE, inline_svg, new_axes, page_style, sequential
from experiments.results import StudyResults
from experiments.table import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST_CELLS = 10  # PED-ANOVA wants five cells above its target quantile; below this that is most of the study
_FEWEST_ABOVE = 5
_LOG_SPAN = 50
_MOST_LINES = 200
_MOST_TICKS = 8

_IMPORTANCE = "Parameter importance"

_Scored = tuple[Series, float]


@contextmanager
def importance(ablation: Ablation, prefix: str, *, same_elbo: bool) -> Iterator[Callable[[], FigureGroup | LeftOut]]:
    """Yield what draws how much each axis matters for reaching the best cells, by PED-ANOVA.

    Where there is a core for it, another process computes that from now on: it takes seconds to load what it needs.
    """
    metric, higher = _metric(ablation.results, same_elbo)
    scored = _scored(ablation, metric)
    if why := _no_importance(ablation.results, scored):
        yield lambda: LeftOut(_IMPORTANCE, why)
        return
    quantile = max(0.1, _FEWEST_ABOVE / len(scored))
    points = [(dict(series.cell.params), value) for series, value in scored]
    arguments = (dict(ablation.results.space), points, quantile, higher)
    here = nullcontext(partial(ped_anova, *arguments))
    with called_elsewhere(ped_anova, *arguments) if usable_cores() > 1 else here as shares:
        yield lambda: _drawn_importance(shares(), f"{prefix}-importance", metric, quantile)


def _no_importance(results: StudyResults, scored: Sequence[_Scored]) -> str | None:
    """Return why the importance of axes is not estimated."""
    if len(results.space) < 2:
        return "there is one axis only"
    if results.named:
        return "named cells change several fields at once, so their axes do not vary freely"
    if not results.one_data_set:
        return DIFFERENT_IMAGES
    if len(scored) < _FEWEST_CELLS:
        return f"{len(scored)} cells have a result, and the estimate needs {_FEWEST_CELLS}"
    if len({value for _, value in scored}) < 2:
        return "the metric is the same in every cell"
    return None


def _drawn_importance(shares: Mapping[str, float], key: str, metric: str, quantile: float) -> FigureGroup | LeftOut:
    if not shares:
        return LeftOut(_IMPORTANCE, "the estimate is not finite for any axis")
    with page_style(key):
        figure, axes = new_axes(5.0, 0.9 + 0.36 * len(shares))
        axes.barh(range(len(shares)), list(shares.values()), color=ACCENT, height=0.6)
        for place, share in enumerate(shares.values()):
            axes.annotate(
                f"{share:.0%}", (share, place), xytext=(4, 0), textcoords="offset points", va="center", color=INK
            )
        axes.set_yticks(range(len(shares)), list(shares))
        axes.set(xlim=(0, 1.12 * max(shares.values()) or 1.0), ylim=(len(shares) - 0.5, -0.5))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        words = "; ".join(f"{name}: {share:.0%}" for name, share in shares.items())
        svg = inline_svg(figure, key, f"Importance of each axis: {words}.")
    lead = (
        f"Share of each axis in reaching the best {quantile:.0%} of cells by mean {metric} (PED-ANOVA, Optuna). "
        "It says which axis matters near the best values, not in which direction, and knows nothing of seeds' spread."
    )
    return FigureGroup("importance", _IMPORTANCE, lead, (Panel(f"Importance for {metric}", svg),))


def _metric(results: StudyResults, same_elbo: bool) -> tuple[str, bool]:
    """Return the test metric that stands for the sweep's objective, and whether higher is better."""
    key = results.objective["metric"].replace("val/", "test/")
    relative = key in ("test/elbo", "test/reconstruction", "test/objective", "test/elbo_per_pixel")
    measured = any(key in run.metrics for run in results.runs)
    if not measured or (relative and not same_elbo) or key == "test/objective":
        return MSE, False
    return key, results.objective["direction"] == "maximize"


def _scored(ablation: Ablation, metric: str) -> list[_Scored]:
    found = []
    for series in all_series(ablation):
        values = [value for run in series.cell.done if (value := finite(run.metrics, metric)) is not None]
        if values and all(path in series.cell.params for path in ablation.results.space):
            found.append((series, float(np.mean(values))))
    return found


def parallel_coordinates(ablation: Ablation, prefix: str, *, same_elbo: bool) -> FigureGroup | LeftOut:
    """Draw every cell as a line through its values on all axes to its mean of the sweep's metric."""
    title = "Parallel coordinates"
    results = ablation.results
    if len(results.space) < 2:
        return LeftOut(title, "there is one axis only")
    if not results.one_data_set:
        return LeftOut(title, DIFFERENT_IMAGES)
    metric, higher = _metric(results, same_elbo)
    scored = sorted(_scored(ablation, metric), key=lambda item: item[1] if higher else -item[1])[-_MOST_LINES:]
    if len(scored) < 2:
        return LeftOut(title, "fewer than two cells have a result on every axis")
    key = f"{prefix}-parallel"
    with page_style(key):
        figure, axes = new_axes(max(5.0, 1.4 * (len(results.space) + 1)), 3.6)
        _draw_lines(axes, results, scored, metric, higher=higher)
        svg = inline_svg(figure, key, f"Each cell as a line through its swept values to its mean {metric}.")
    best = scored[::-1][:10]
    rows = tuple((series.label, f"{value:.4g}") for series, value in best)
    lead = f"One line per cell through its values to its mean {metric}; brighter lines are better and drawn on top." + (
        f" The {_MOST_LINES} best cells." if len(ablation.results.measured) > _MOST_LINES else ""
    )
    numbers = Numbers(("cell (the ten best)", metric), rows)
    return FigureGroup(
        "parallel", title, lead, (Panel(f"All axes and {metric}", svg),), (), numbers, len(results.space) > 3
    )


def _draw_lines(axes: "Axes", results: StudyResults, scored: Sequence[_Scored], metric: str, *, higher: bool) -> None:
    columns = [_places([series.cell.params[path] for series, _ in scored]) for path in results.space]
    columns.append(_places([value for _, value in scored]))
    ranks = np.argsort(np.argsort([value if higher else -value for _, value in scored], kind="stable"), kind="stable")
    for line, rank in enumerate(ranks):
        heights = [places[line] for places, _ in columns]
        axes.plot(range(len(columns)), heights, color=sequential(rank / max(1, len(scored) - 1)), alpha=0.85,
                  linewidth=1.4, zorder=2 + rank / len(scored))  # fmt: skip
    box = {"facecolor": SURFACE, "edgecolor": "none", "pad": 0.6}
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color=MUTED, linewidth=1, zorder=1)
        for height, text in ticks:
            axes.annotate(text, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center",
                          color=INK, zorder=9, bbox=box)  # fmt: skip
    axes.set_xticks(range(len(columns)), [*(path.rpartition(".")[2] for path in results.space), f"{metric}"])
    axes.set(yticks=[], xlim=(-0.1, len(columns) - 0.55), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where values stand on an axis from 0 to 1, and its ticks (place, text)."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        names = list(dict.fromkeys(plain(value) for value in values))
        at = {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}
        return [at[plain(value)] for value in values], [(place, name) for name, place in at.items()]
    is_log = min(numbers) > 0 and max(numbers) > _LOG_SPAN * min(numbers)
    scaled = np.log(numbers) if is_log else np.asarray(numbers, dtype=np.float64)
    low, span = float(scaled.min()), float(np.ptp(scaled)) or 1.0
    places = [float(place) for place in (scaled - low) / span]
    distinct = dict(sorted(zip(places, numbers, strict=True)))
    if len(distinct) <= _MOST_TICKS:
        return places, [(place, plain(value)) for place, value in distinct.items()]
    ends = [low + span * step / 4 for step in range(5)]
    return places, [(step / 4, f"{math.exp(end) if is_log else end:.3g}") for step, end in enumerate(ends)]
