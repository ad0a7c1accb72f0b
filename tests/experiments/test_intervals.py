"""Interquartile means and probabilities of improvement: against SciPy and rliable, and their coverage."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.intervals import improvement_interval, iqm_interval

COVERAGE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "simulate_intervals.py"))


@pytest.fixture(params=[10, 13, 20])
def samples(request):
    rng = np.random.default_rng(request.param)
    return rng.normal(size=request.param).tolist(), rng.normal(0.5, 2, size=request.param).round(1).tolist()


def test_values_are_those_of_rliable(samples):
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    cell, baseline = (np.array(values)[:, None] for values in samples)
    assert iqm_interval(samples[0]).value == pytest.approx(metrics.aggregate_iqm(cell))
    theirs = metrics.probability_of_improvement(cell, baseline)
    assert improvement_interval(*samples, higher_is_better=True).value == pytest.approx(float(theirs))


def test_values_are_those_of_scipy(samples):
    cell, baseline = samples
    assert iqm_interval(cell).value == pytest.approx(stats.trim_mean(cell, 0.25))
    above = stats.mannwhitneyu(cell, baseline).statistic / len(cell) ** 2
    assert improvement_interval(cell, baseline, higher_is_better=True).value == pytest.approx(above)
    assert improvement_interval(cell, baseline, higher_is_better=False).value == pytest.approx(1 - above)


def test_the_error_of_the_interquartile_mean_is_that_of_scipys_trimmed_t_test(samples):
    values = np.array(samples[1])
    found = iqm_interval(values.tolist())
    shifted = stats.ttest_ind(values, values + 7, equal_var=False, trim=0.25)  # its error is sqrt(2) times that of one
    error = 7 / abs(shifted.statistic) / np.sqrt(2)
    kept = len(values) - 2 * (len(values) // 4)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, kept - 1) * error)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_the_improvement_interval_ends_where_the_share_is_t_standard_errors_away():
    cell, baseline = np.arange(10.0), np.arange(10.0) - 2.5
    found = improvement_interval(cell, baseline, higher_is_better=True)
    better = cell[:, None] > baseline
    of_sample = (better.mean(axis=1).var(ddof=1) + better.mean(axis=0).var(ddof=1)) / 10
    for edge in (found.low, found.high):
        spread = 1 + 9 * ((1 - edge) / (2 - edge) + edge / (1 + edge))
        error = np.sqrt(max(edge * (1 - edge) * spread / 100, of_sample))
        assert abs(found.value - edge) == pytest.approx(stats.t.ppf(0.975, 18) * error)


def test_a_clear_improvement_has_an_interval_too():
    found = improvement_interval([5.0] * 10, list(range(-10, 0)), higher_is_better=True)
    assert found.value == found.high == 1
    assert 0.6 < found.low < 0.9
    worse = improvement_interval([5.0] * 10, list(range(-10, 0)), higher_is_better=False)
    assert (worse.low, worse.high) == pytest.approx((0, 1 - found.low))


def test_under_ten_values_nothing_is_offered():
    assert iqm_interval([1.0] * 9) is None
    assert improvement_interval([1.0] * 9, [1.0] * 10, higher_is_better=True) is None


def test_bootstrap_levels_agree_with_scipys_bca():
    values = np.random.default_rng(1).lognormal(size=(1, 30))
    resampled = np.random.default_rng(2).integers(0, 30, (20_000, 30))
    means = np.sort(values[:, resampled].mean(axis=2), axis=1)
    ours = np.quantile(means[0], COVERAGE["_bca_levels"](values, means)[0])
    theirs = stats.bootstrap((values[0],), np.mean, n_resamples=20_000, method="BCa", rng=3).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], rel=0.03)


@pytest.mark.parametrize("population", ["normal", "t, 3 df", "log-normal, sigma 0.5"])
def test_the_interquartile_mean_is_covered(population):
    assert COVERAGE["iqm_coverage"](population, 10, 3000) >= 0.93


@pytest.mark.parametrize("shift", [0.0, 1.5, 2.5])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_probability_of_improvement_is_covered(shift, shared):
    assert COVERAGE["improvement_coverage"](shift, 1.0, shared, 10, 400) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [10, 11, 12, 15, 20, 30])
def test_intervals_are_covered_from_ten_seeds_on(seeds):
    assert COVERAGE["iqm_coverage"]("normal", seeds, 10_000) >= 0.93
    for ratio in (1.0, 10.0):
        for shift in (0.0, 0.75, 1.5, 2.5):
            assert COVERAGE["improvement_coverage"](shift, ratio, 0.0, seeds, 2000) >= 0.93


@pytest.mark.slow
def test_bootstrap_intervals_of_the_mean_are_not_worth_offering():
    for method in ("percentile", "BCa"):
        assert COVERAGE["mean_coverage"]("normal", 5, 10_000)[method] < 0.88
        assert COVERAGE["mean_coverage"]("normal", 10, 10_000)[method] < 0.93
