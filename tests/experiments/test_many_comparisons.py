"""Dunnett's and Tukey's distributions against SciPy's and printed tables."""

import numpy as np
import pytest
from scipy import stats

from experiments.many_comparisons import dunnett_critical, dunnett_p, tukey_p


@pytest.mark.parametrize(("comparisons", "df", "correlation"), [(1, 2, 0.5), (2, 4, 0.5), (6, 24, 0.5), (11, 3.7, 0.3)])
def test_dunnett_is_the_multivariate_t(comparisons, df, correlation):
    shape = np.full((comparisons, comparisons), correlation) + (1 - correlation) * np.eye(comparisons)
    for t in (1.0, 2.5, 4.0):
        inside = stats.multivariate_t(shape=shape, df=df).cdf(
            np.full(comparisons, t), lower_limit=np.full(comparisons, -t), maxpts=200_000, random_state=1
        )
        assert dunnett_p(t, comparisons, df, correlation) == pytest.approx(1 - inside, abs=1e-4)


@pytest.mark.parametrize(
    ("comparisons", "df", "critical"), [(1, 10, 2.23), (2, 10, 2.57), (5, 10, 2.99), (3, 20, 2.54)]
)
def test_critical_values_are_those_of_dunnetts_tables(comparisons, df, critical):
    assert float(dunnett_critical(comparisons, df)) == pytest.approx(critical, abs=0.006)


@pytest.mark.parametrize("comparisons", [1, 6, 11])
def test_p_at_the_critical_value_is_a_twentieth(comparisons):
    df = np.array([1, 1.5, 2, 4.3, 8, 24, 99.0, 5000.0])
    assert dunnett_p(dunnett_critical(comparisons, df), comparisons, df) == pytest.approx(0.05, abs=1e-4)


def test_one_comparison_is_student_t():
    t = np.array([0.0, 0.7, -2.3, 12.0])
    assert dunnett_p(t, 1, 3) == pytest.approx(2 * stats.t.sf(np.abs(t), 3), abs=1e-9)


def test_dunnett_agrees_with_scipy_on_one_way_data():
    rng = np.random.default_rng(3)
    groups = rng.normal(size=(5, 6)) + np.array([0, 0.4, 0.9, 1.6, 0])[:, None]
    theirs = stats.dunnett(*groups[1:], control=groups[0], rng=1).pvalue
    pooled = groups.var(axis=1, ddof=1).mean()
    t = (groups[1:].mean(axis=1) - groups[0].mean()) / np.sqrt(2 * pooled / 6)
    assert dunnett_p(t, 4, 25) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(("cells", "df"), [(2, 4), (3, 8), (7, 24), (12, 5.5)])
def test_tukey_is_the_studentized_range(cells, df):
    t = np.array([0.5, 2.0, 3.5])
    assert tukey_p(t, cells, df) == pytest.approx(stats.studentized_range.sf(np.sqrt(2) * t, cells, df), abs=1e-5)
