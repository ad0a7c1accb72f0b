"""Coverage of intervals by simulation: of the mean, the interquartile mean and the probability of improvement.

    python benchmarks/simulate_intervals.py [--samples 10000]

Markdown tables for BENCHMARKS.md; a minute or two on one core.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from experiments.intervals import improvement_interval, iqm_interval

Array = NDArray[np.float64]


POPULATIONS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t, 3 df": lambda rng, shape: rng.standard_t(3, shape),
    "log-normal, sigma 0.5": lambda rng, shape: rng.lognormal(0.0, 0.5, shape),
}


def mean_coverage(name: str, seeds: int, samples: int) -> dict[str, float]:
    """Return how often intervals of the mean contain it: Student's t, percentile and BCa of 1,000 resamples."""
    rng = np.random.default_rng([seeds, samples])
    truth = {"normal": 0.0, "t, 3 df": 0.0, "log-normal, sigma 0.5": float(np.exp(0.125))}[name]
    values = POPULATIONS[name](rng, (samples, seeds))
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(seeds)
    often = rng.multinomial(seeds, np.full(seeds, 1 / seeds), 1000)  # (1000, n): how often a resample has each value
    means = np.sort(values @ often.T / seeds, axis=1)  # (samples, 1000)
    ends = {"percentile": np.tile([0.025, 0.975], (samples, 1)), "BCa": _bca_levels(values, means)}
    found = {"Student t": float(np.mean(np.abs(mean - truth) <= stats.t.ppf(0.975, seeds - 1) * error))}
    for method, levels in ends.items():
        low, high = np.take_along_axis(means, np.clip((levels * 1000).astype(int), 0, 999), axis=1).T
        found[method] = float(np.mean((low <= truth) & (truth <= high)))
    return found


def _bca_levels(values: Array, means: Array) -> Array:
    """Return the bias-corrected and accelerated levels (samples, 2) of Efron 1987."""
    centre = values.mean(axis=1, keepdims=True)
    bias = special.ndtri(np.clip(np.mean(means < centre, axis=1), 1e-3, 1 - 1e-3))[:, None]
    left_out = (centre - values) / (values.shape[1] - 1)
    acceleration = -np.sum(left_out**3, axis=1) / (6 * np.sum(left_out**2, axis=1) ** 1.5)
    moved = bias + special.ndtri([0.025, 0.975])
    return np.asarray(special.ndtr(bias + moved / (1 - acceleration[:, None] * moved)))


def iqm_coverage(name: str, seeds: int, samples: int) -> float:
    """Return how often the interval of the interquartile mean contains that of the population."""
    rng = np.random.default_rng([seeds, samples])
    middle = np.sort(POPULATIONS[name](rng, (2_000_000,)))[500_000:1_500_000]
    truth = float(middle.mean())
    found = [iqm_interval(values) for values in POPULATIONS[name](rng, (samples, seeds)).tolist()]
    return float(np.mean([interval is not None and interval.low <= truth <= interval.high for interval in found]))


def improvement_coverage(shift: float, ratio: float, shared: float, seeds: int, samples: int) -> float:
    """Return how often the interval of the probability of improvement contains it.

    Args:
        shift: of the cell, in standard deviations of the baseline.
        ratio: variance of the cell over that of the baseline.
        shared: of the baseline's variance, how much comes from the seed.
        seeds: of each.
        samples: pairs of cells.
    """
    rng = np.random.default_rng([seeds, samples, int(10 * shift)])
    seed = np.sqrt(shared) * rng.standard_normal((samples, seeds))
    baseline = seed + np.sqrt(1 - shared) * rng.standard_normal((samples, seeds))
    cell = shift + np.sqrt(ratio) * (seed + np.sqrt(1 - shared) * rng.standard_normal((samples, seeds)))
    truth = float(special.ndtr(shift / np.sqrt(1 + ratio)))
    found = [improvement_interval(a, b, True) for a, b in zip(cell.tolist(), baseline.tolist(), strict=True)]
    return float(np.mean([interval is not None and interval.low <= truth <= interval.high for interval in found]))


def _print_coverage(samples: int) -> None:
    print(f"\nCoverage of nominal 95% intervals, {samples:,} samples each\n")
    print("| population | n | mean: Student t | percentile bootstrap | BCa bootstrap | IQM: trimmed t |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in POPULATIONS:
        for seeds in (5, 10, 20):
            found = [f"{value:.3f}" for value in mean_coverage(name, seeds, samples).values()]
            iqm = f"{iqm_coverage(name, seeds, samples):.3f}" if seeds >= 10 else "not offered"
            print(f"| {name} | {seeds} | {' | '.join(found)} | {iqm} |", flush=True)
    print("\n| probability of improvement, n = 10 | independent seeds | half of the variance from shared seeds |")
    print("|---|---:|---:|")
    for ratio in (1.0, 10.0):
        for shift in (0.0, 0.75, 1.5, 2.5):
            found = [f"{improvement_coverage(shift, ratio, shared, 10, samples):.3f}" for shared in (0.0, 0.5)]
            print(f"| shift {shift:g} sd, variances {ratio:g}:1 | {' | '.join(found)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    _print_coverage(parser.parse_args().samples)


if __name__ == "__main__":
    main()
