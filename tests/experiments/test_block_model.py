"""The randomised-block model against statsmodels, and the variances of single cells against their definition."""

import numpy as np
import pandas as pd
import pytest

from experiments.block_model import BASELINE, BlockDesign, difference_variance

CELLS, SEEDS = 5, 6


def values(rng):
    return rng.normal(size=(CELLS, SEEDS)) + rng.normal(size=(1, SEEDS)) * 3 + np.arange(CELLS)[:, None]


def present_without(*missing):
    present = np.ones((CELLS, SEEDS), dtype=bool)
    for place in missing:
        present[place] = False
    return present


@pytest.mark.parametrize("present", [present_without(), present_without((0, 1), (2, 3), (2, 4), (4, 0))])
def test_the_pooled_variance_is_that_of_ordinary_least_squares(present):
    smf = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is not installed")
    table = values(np.random.default_rng(1))
    cell, seed = np.nonzero(present)
    ols = smf.ols("y ~ C(cell) + C(seed)", pd.DataFrame({"y": table[present], "cell": cell, "seed": seed})).fit()
    fit = BlockDesign(present).fit(table[None, present])
    assert fit.df == ols.df_resid
    assert fit.pooled[0] == pytest.approx(ols.mse_resid)
    assert fit.residuals[0] == pytest.approx(ols.resid.to_numpy())


def test_a_cells_own_variance_is_that_of_its_distance_from_the_other_cells():
    table = values(np.random.default_rng(2))
    fit = BlockDesign(present_without()).fit(table.reshape(1, -1))
    for cell in range(CELLS):
        others = np.delete(table, cell, axis=0).mean(axis=0)
        assert fit.own[0, cell] == pytest.approx((table[cell] - others).var(ddof=1))
    assert fit.own_df.tolist() == [SEEDS - 1] * CELLS


def test_own_variances_are_about_right_with_missing_seeds():
    present = present_without((0, 1), (2, 3), (2, 4), (4, 0))
    tables = np.random.default_rng(3).normal(size=(4000, CELLS, SEEDS))
    fit = BlockDesign(present).fit(tables[:, present])
    assert fit.pooled.mean() == pytest.approx(1, abs=0.02)
    assert fit.own.mean(axis=0) == pytest.approx(np.full(CELLS, 1.25), abs=0.08)  # 1 + 1 / (number of other cells)


def test_cells_of_small_spread_share_the_pooled_variance_and_its_degrees_of_freedom():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(CELLS, SEEDS)) * np.array([0.1, 0.1, 1, 1, 5])[:, None]
    fit = BlockDesign(present_without()).fit(table.reshape(1, -1))
    variance, df = difference_variance(fit, np.array([0, 0]), np.array([1, 4]), BASELINE)
    assert variance[0, 0] == pytest.approx(2 * fit.pooled[0])
    assert df[0, 0] == fit.df
    assert variance[0, 1] == pytest.approx(fit.pooled[0] + 0.45 * fit.own[0, 4] + 0.55 * fit.pooled[0])
    assert df[0, 1] < df[0, 0]


def test_lone_cells_and_seeds_leave_no_variance():
    fit = BlockDesign(np.eye(3, dtype=bool)).fit(np.array([[1.0, 2.0, 5.0]]))
    assert fit.df == 0
    assert fit.own.tolist() == [[0, 0, 0]]
