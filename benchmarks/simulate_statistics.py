"""Error rates and power of the comparisons in tables, by simulation; a Markdown table for BENCHMARKS.md.

    python benchmarks/simulate_statistics.py [--tables 10000] [--ratio 10]

Some minutes on one core. What a report does is compared with what it could do instead.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from experiments.block_model import (
    BASELINE,
    BASELINE_FEW,
    PAIRS,
    PAIRS_FEW,
    BlockDesign,
    BlockFit,
    Indices,
    Weights,
    fit_blocks,
    pair_variance,
)
from experiments.many_comparisons import dunnett_critical, tukey_p

Array = NDArray[np.float64]

ALPHA = 0.05
SEEDS = (3, 5, 10)
CELLS = tuple(range(2, 13))
WILD = (1.0, 10.0, 100.0)  # variance of one cell beside which power is measured


def scenarios(cells: int, ratio: float) -> dict[str, Array]:
    """Return variances (K,) by name; the first cell is the baseline."""
    low, high = 1.0, ratio
    half = cells // 2
    found = {
        "equal": [low] * cells,
        "one cell high": [low] * (cells - 1) + [high],
        "baseline high": [high] + [low] * (cells - 1),
        "half high, baseline low": [low] * (cells - half) + [high] * half,
        "half high, baseline high": [high] * (cells - half) + [low] * half,
        "all but the baseline high": [low] + [high] * (cells - 1),
        "one cell low": [high] * (cells - 1) + [low],
    }
    different = {tuple(variances): name for name, variances in reversed(found.items())}  # of two alike, the first name
    return {name: np.array(variances) for variances, name in reversed(different.items())}


def draw(variances: Array, seeds: int, tables: int, rng: np.random.Generator, effect: float = 0.0) -> Array:
    """Return values (B, K, n) with an effect of the seeds, and `effect` on the last cell."""
    shape = (tables, len(variances), seeds)
    values = rng.standard_normal(shape) * np.sqrt(variances)[:, None] + 2 * rng.standard_normal((tables, 1, seeds))
    values[:, -1] += effect
    return values


def report(values: Array) -> NDArray[np.bool_]:
    """Return which of the comparisons with the baseline (B, K - 1) hold in a report."""
    cells = values.shape[1]
    if cells == 2:
        return paired(values)
    second = np.arange(1, cells)
    fit, t, df = _in_blocks(values, np.zeros_like(second), second, BASELINE_FEW, BASELINE)
    all_alike = fit.like[:, 1:].all(axis=1)[:, None]
    return t >= np.where(all_alike, dunnett_critical(cells - 1, df), dunnett_critical(cells - 1, df, 0.0))


def _in_blocks(
    values: Array, first: Indices, second: Indices, few: Weights, enough: Weights
) -> tuple[BlockFit, Array, Array]:
    """Return the fit, and |t| and degrees of freedom (B, P) of the pairs."""
    _, cells, seeds = values.shape
    fit = fit_blocks(values, np.ones((cells, seeds), dtype=bool))
    variance, df = pair_variance(values, fit, first, second, np.ones(len(first), dtype=bool), few, enough)
    means = values.mean(axis=2)
    return fit, np.abs(means[:, second] - means[:, first]) / np.sqrt(variance / seeds), df


def pooled(values: Array) -> NDArray[np.bool_]:
    """Dunnett's test with the block model's pooled variance."""
    _, cells, seeds = values.shape
    design = BlockDesign(np.ones((cells, seeds), dtype=bool))
    variance = np.sum(design.residuals(values) ** 2, axis=(1, 2)) / design.df
    t = np.abs(_differences(values).mean(axis=2)) / np.sqrt(2 * variance / seeds)[:, None]
    return t >= dunnett_critical(cells - 1, design.df)


def paired(values: Array) -> NDArray[np.bool_]:
    """Paired t tests with Holm's correction."""
    differences = _differences(values)
    seeds = values.shape[2]
    t = differences.mean(axis=2) / (differences.std(axis=2, ddof=1) / np.sqrt(seeds))
    return _holm(2 * special.stdtr(seeds - 1, -np.abs(t)))


def levene_first(values: Array) -> NDArray[np.bool_]:
    """The pooled test, but Welch's tests with Holm's correction where Levene's test of the residuals is below 0.05."""
    residuals = values - values.mean(axis=1, keepdims=True)
    deviation = np.abs(residuals - np.median(residuals, axis=2, keepdims=True))
    _, cells, seeds = values.shape
    between = seeds * deviation.mean(axis=2).var(axis=1, ddof=1)
    within = deviation.var(axis=2, ddof=1).mean(axis=1)
    p = stats.f.sf(between / within, cells - 1, cells * (seeds - 1))
    return np.where((p <= ALPHA)[:, None], _welch(values), pooled(values))


def _welch(values: Array) -> NDArray[np.bool_]:
    seeds = values.shape[2]
    parts = values.var(axis=2, ddof=1) / seeds
    error = parts[:, 1:] + parts[:, :1]
    df = error**2 / ((parts[:, 1:] ** 2 + parts[:, :1] ** 2) / (seeds - 1))
    return _holm(2 * special.stdtr(df, -np.abs(_differences(values).mean(axis=2)) / np.sqrt(error)))


def _differences(values: Array) -> Array:
    return values[:, 1:] - values[:, :1]


def _holm(p: Array) -> NDArray[np.bool_]:
    order = np.argsort(p, axis=1)
    steps = np.maximum.accumulate(np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1), axis=1)
    rejected = np.empty_like(p, dtype=bool)
    np.put_along_axis(rejected, order, steps <= ALPHA, axis=1)
    return rejected


PROCEDURES: dict[str, Callable[[Array], NDArray[np.bool_]]] = {
    "report": report,
    "pooled, Dunnett": pooled,
    "Levene, then Welch with Holm": levene_first,
    "paired t with Holm": paired,
}


def marks(values: Array) -> NDArray[np.bool_]:
    """Return (B,): whether a report marks any cell of the column best."""
    cells = values.shape[1]
    if cells == 2:
        return paired(values).any(axis=1)
    first, second = np.triu_indices(cells, 1)
    _, t, df = _in_blocks(values, first, second, PAIRS_FEW, PAIRS)
    p = 2 * special.stdtr(df, -t)
    clearest = np.argmin(p, axis=1)[:, None]
    t, df = (np.take_along_axis(found, clearest, axis=1)[:, 0] for found in (t, df))
    marked = p.min(axis=1) <= ALPHA  # Tukey's p is never smaller
    marked[marked] = tukey_p(t[marked], cells, df[marked]) <= ALPHA
    return marked


@dataclass(frozen=True)
class Rate:
    """The share of false positives among `tables` tables of one kind."""

    cells: int
    seeds: int
    scenario: str
    rate: float
    tables: int

    @property
    def too_high(self) -> bool:
        """Whether it is above 0.05 by more than two standard errors."""
        return self.rate > ALPHA + 2 * float(np.sqrt(ALPHA * (1 - ALPHA) / self.tables))


def false_positives(
    holds: Callable[[Array], NDArray[np.bool_]],
    tables: int,
    ratio: float,
    cells: tuple[int, ...] = CELLS,
) -> Iterator[Rate]:
    """Yield the rate of tables without a true difference in which anything holds, for every kind of table."""
    for n in SEEDS:
        for k in cells:
            for place, (name, variances) in enumerate(scenarios(k, ratio).items()):
                rng = np.random.default_rng([n, k, place])
                found = holds(draw(variances, n, tables, rng)).reshape(tables, -1).any(axis=1)
                yield Rate(k, n, name, float(found.mean()), tables)


def power(
    holds: Callable[[Array], NDArray[np.bool_]], tables: int, wild: float = 1.0, seeds: int = 5, cells: int = 7
) -> float:
    """Return how often an effect of 2.5 standard deviations on one cell is found, beside one of variance `wild`."""
    variances = np.ones(cells)
    variances[cells // 2] = wild
    values = draw(variances, seeds, tables, np.random.default_rng([seeds, cells]), effect=2.5)
    return float(holds(values)[:, -1].mean())


def _print_rates(tables: int, ratio: float) -> None:
    print(f"\nLargest false-positive rate over 2 to 12 cells and scenarios, variances {ratio:g}:1, {tables:,} tables\n")
    print("| procedure | 3 seeds | 5 seeds | 10 seeds | above 0.05 + 2 SE | power | beside 10:1 | beside 100:1 |")
    print("|---|---|---|---|---:|---:|---:|---:|")
    for name, holds in {**PROCEDURES, "any mark of best": marks}.items():
        start = time.perf_counter()
        rates = list(false_positives(holds, tables // 4 if holds is marks else tables, ratio))
        shown = " | ".join(_worst([rate for rate in rates if rate.seeds == seeds]) for seeds in SEEDS)
        found = " | | " if holds is marks else " | ".join(f"{power(holds, 4 * tables, wild):.3f}" for wild in WILD)
        print(f"| {name} | {shown} | {sum(rate.too_high for rate in rates)} of {len(rates)} | {found} |", flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def _worst(rates: list[Rate]) -> str:
    worst = max(rates, key=lambda rate: rate.rate)
    return f"{worst.rate:.3f} ({worst.cells} cells, {worst.scenario})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--ratio", type=float, nargs="+", default=[10.0])
    arguments = parser.parse_args()
    for ratio in arguments.ratio:
        _print_rates(arguments.tables, ratio)


if __name__ == "__main__":
    main()
