"""The randomised-block model against statsmodels, and the variances of single cells against their definition."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.block_model import BASELINE, BlockDesign, Trust, difference_variance, fit_blocks

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
    fit = fit_blocks(table[None], present)
    assert fit.df[0] == ols.df_resid
    assert fit.pooled[0] == pytest.approx(ols.mse_resid)
    assert BlockDesign(present).residuals(table[None])[0][present] == pytest.approx(ols.resid.to_numpy())


def test_a_cells_own_variance_is_that_of_its_distance_from_the_other_cells():
    table = values(np.random.default_rng(2))
    fit = fit_blocks(table[None], present_without())
    for cell in range(CELLS):
        others = np.delete(table, cell, axis=0).mean(axis=0)
        assert fit.own[0, cell] == pytest.approx((table[cell] - others).var(ddof=1))
    assert fit.own_df.tolist() == [[SEEDS - 1] * CELLS]


def test_own_variances_are_about_right_with_missing_seeds():
    present = present_without((0, 1), (2, 3), (2, 4), (4, 0))
    tables = np.random.default_rng(3).normal(size=(4000, CELLS, SEEDS))
    fit = fit_blocks(tables, present)
    assert fit.pooled.mean() == pytest.approx(1, abs=0.02)
    assert fit.own.mean(axis=0) == pytest.approx(np.full(CELLS, 1.25), abs=0.08)  # 1 + 1 / (number of other cells)


def test_cells_of_small_spread_share_the_pooled_variance_and_its_degrees_of_freedom():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(CELLS, SEEDS)) * np.array([0.7, 0.7, 1, 1, 1.7])[:, None]
    fit = fit_blocks(table[None], present_without())
    assert fit.like.all()
    variance, df = difference_variance(fit, np.array([0, 0]), np.array([1, 4]), BASELINE)
    assert variance[0, 0] == pytest.approx(2 * fit.pooled[0])
    assert df[0, 0] == fit.df[0]
    times = fit.own[0, 4] / fit.pooled[0]
    assert 1.5 < times < 6
    weight = 0.5 + 0.5 * (times - 1.5) / 4.5
    assert variance[0, 1] == pytest.approx(fit.pooled[0] + weight * fit.own[0, 4] + (1 - weight) * fit.pooled[0])
    assert df[0, 1] < df[0, 0]


def test_a_variance_is_believed_the_more_the_larger_it_is():
    weight = Trust(0.5, 2.0, 4.0).weight(np.array([1.0, 4.0, 6.0, 8.0, 80.0]), np.array(2.0))
    assert weight.tolist() == [0.5, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("present", [present_without(), present_without((0, 1), (2, 3), (2, 4))])
def test_a_cell_leaves_the_pool_where_the_f_test_of_its_sum_of_squares_says_so(present):
    smf = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is not installed")
    table = values(np.random.default_rng(5))
    others = np.delete(np.arange(CELLS), 4)
    cell, seed = np.nonzero(present)

    def p_of(scaled):
        rows = pd.DataFrame({"y": scaled[present], "cell": cell, "seed": seed})
        every, without = (
            smf.ols("y ~ C(cell) + C(seed)", chosen).fit() for chosen in (rows, rows[rows["cell"].isin(others)])
        )
        df = every.df_resid - without.df_resid
        return stats.f.sf((every.ssr - without.ssr) / df / without.mse_resid, df, without.df_resid) * CELLS

    stayed = left = 0
    for factor in np.geomspace(1.5, 8, 25):
        scaled = table.copy()
        scaled[4] = table[others].mean(axis=0) + factor * (table[4] - table[others].mean(axis=0))
        fit = fit_blocks(scaled[None], present)
        assert fit.like[0].tolist() == [True] * 4 + [p_of(scaled) > 0.005]
        stayed, left = stayed + fit.like[0, 4], left + (not fit.like[0, 4])
        if not fit.like[0, 4]:
            alone = fit_blocks(np.where(np.arange(CELLS)[:, None] == 4, np.nan, scaled)[None], present & (cell_rows(4)))
            assert fit.pooled[0] == pytest.approx(alone.pooled[0])
            assert fit.df[0] == alone.df[0]
    assert stayed > 2
    assert left > 2


def cell_rows(left_out):
    return np.arange(CELLS)[:, None] != left_out


def test_cells_leave_one_after_the_other_and_at_least_half_stays():
    rng = np.random.default_rng(6)
    for wild in range(CELLS):
        spread = np.where(np.arange(CELLS) < wild, 10.0 ** np.arange(3, 3 + CELLS), 1.0)
        fit = fit_blocks(rng.normal(size=(1, CELLS, SEEDS)) * spread[:, None], present_without())
        assert int(np.sum(~fit.like)) == min(wild, 2)


def test_beside_constants_no_cell_is_wild():
    table = np.full((CELLS, SEEDS), 32.0)
    table[4] = [12, 20, 18, 25, 9, 30]
    fit = fit_blocks(table[None], present_without())
    assert fit.like.all()
    assert fit.pooled[0] > 0


def test_a_cell_of_astronomic_spread_leaves_too():
    table = np.random.default_rng(8).normal(size=(CELLS, SEEDS)) * 0.02 + np.arange(CELLS)[:, None]
    table[4] *= np.array([1e11, 3e11, -2e11, 5e11, 1e12, -4e11])
    fit = fit_blocks(table[None], present_without())
    assert fit.like[0].tolist() == [True] * 4 + [False]
    assert fit.pooled[0] == pytest.approx(fit_blocks(table[None, :4], present_without()[:4]).pooled[0])


def test_of_two_hundred_cells_of_all_spreads_the_calm_ones_stay():
    rng = np.random.default_rng(9)
    table = rng.normal(size=(1, 200, 10)) * np.exp(3 * rng.normal(size=(200, 1)))
    present = rng.random((200, 10)) < 0.9
    like = fit_blocks(table, present).like[0]
    spread = np.nanstd(np.where(present, table[0], np.nan), axis=1)
    assert 50 < int(np.sum(~like)) <= 100
    assert np.median(spread[like]) < np.median(spread[~like]) / 10


def test_columns_are_fitted_each_for_itself():
    tables = np.random.default_rng(7).normal(size=(40, CELLS, SEEDS))
    tables[::2, 1] *= 20
    tables[::3, 3] *= 30
    together = fit_blocks(tables, present_without())
    assert 10 < int(np.sum(~together.like)) < 80
    for k, table in enumerate(tables):
        alone = fit_blocks(table[None], present_without())
        assert alone.like[0].tolist() == together.like[k].tolist()
        assert alone.pooled[0] == pytest.approx(together.pooled[k])
        assert alone.own[0] == pytest.approx(together.own[k])
        assert alone.df[0] == together.df[k]


def test_lone_cells_and_seeds_leave_no_variance():
    fit = fit_blocks(np.where(np.eye(3) > 0, [[1.0, 2.0, 5.0]], np.nan)[None], np.eye(3, dtype=bool))
    assert fit.df[0] == 0
    assert fit.own.tolist() == [[0, 0, 0]]
