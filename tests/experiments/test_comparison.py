"""Comparisons with a baseline: against SciPy and statsmodels, and their error rates by simulation."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.block_model import BASELINE, BASELINE_FEW
from experiments.comparison import best_cells, compare_cells
from experiments.many_comparisons import dunnett_p
from experiments.pair_tests import Column, pair_tests, sign_flip

SIMULATION = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "simulate_statistics.py"))


def column(table):
    """Name the rows of (K, S) `table`; NaN stands for a missing seed."""
    return {
        f"c{k}": {seed: float(value) for seed, value in enumerate(row) if not np.isnan(value)}
        for k, row in enumerate(table)
    }


def noise(cells, seeds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(cells, seeds)) + 3 * rng.normal(size=(1, seeds))


def compared(table):
    return compare_cells(column(table), "c0")


def test_two_cells_are_the_paired_t_test():
    table = noise(2, 5) + np.array([[0], [1]])
    theirs = stats.ttest_rel(table[1], table[0])
    low, high = theirs.confidence_interval(0.95)
    family = compared(table)
    ours = family.by_cell["c1"]
    assert (ours.p, ours.low, ours.high) == pytest.approx((theirs.pvalue, low, high))
    assert ours.difference == pytest.approx(table[1].mean() - table[0].mean())
    assert family.method == "paired t on common seeds"


def test_two_seeds_are_paired_t_tests_with_bonferronis_correction():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    table = noise(4, 2) + np.array([[0], [1], [20], [40]])
    theirs = multitest.multipletests(stats.ttest_rel(table[1:], table[:1], axis=1).pvalue, method="bonferroni")[1]
    family = compared(table)
    assert [found.p for found in family.by_cell.values()] == pytest.approx(theirs)
    assert family.method == "paired t on common seeds, Bonferroni"


def test_cells_of_like_spread_are_dunnetts_test_of_the_least_squares_fit():
    smf = pytest.importorskip("statsmodels.formula.api", reason="statsmodels is not installed")
    import pandas as pd

    table = noise(5, 6)
    table[[0, 3]] = table.mean(axis=0) + 0.1 * (table[[0, 3]] - table.mean(axis=0)) + np.array([[0], [1.4]])
    cell, seed = np.indices(table.shape)
    long = pd.DataFrame({"y": table.ravel(), "cell": cell.ravel(), "seed": seed.ravel()})
    ols = smf.ols("y ~ C(cell) + C(seed)", long).fit()
    ours = compared(table).by_cell["c3"]
    t = ols.tvalues["C(cell)[T.3]"]
    assert ours.difference == pytest.approx(ols.params["C(cell)[T.3]"])
    assert ours.p == pytest.approx(float(dunnett_p(t, 4, ols.df_resid)))
    hedges = 1 - 3 / (4 * ols.df_resid - 1)
    assert ours.effect == pytest.approx(hedges * ours.difference / np.sqrt(ols.mse_resid), rel=1e-3)


def test_what_seeds_add_to_all_cells_changes_nothing():
    table = noise(6, 5) + np.arange(6)[:, None] / 2
    shifted = compared(table + 100 * np.arange(5)).by_cell
    for cell, found in compared(table).by_cell.items():
        assert found.p == pytest.approx(shifted[cell].p, rel=1e-6)
        assert found.effect == pytest.approx(shifted[cell].effect, rel=1e-6)


def test_the_interval_excludes_zero_where_the_difference_holds():
    held = 0
    for seed in range(60):
        cells, seeds = 2 + seed % 6, 2 + seed % 5
        for found in compared(noise(cells, seeds, seed) + np.linspace(0, 3, cells)[:, None]).by_cell.values():
            assert found.holds == (found.low > 0 or found.high < 0)
            assert found.low < found.difference < found.high
            held += found.holds
    assert held > 20


@pytest.mark.parametrize("seeds", [6, 9])
def test_sign_flips_agree_with_scipys_permutation_test(seeds):
    differences = np.random.default_rng(seeds).normal(size=seeds) + 0.6
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(differences) == pytest.approx(theirs.pvalue)


def test_hopeless_sign_flip_tests_are_not_made_but_named():
    family = compared(noise(3, 5))
    assert {found.sign_flip_p for found in family.by_cell.values()} == {None}
    assert "exact sign-flip tests cannot be significant with 5 seeds (smallest p 0.0625)" in family.notes
    assert all(found.sign_flip_p is not None for found in compared(noise(3, 6)).by_cell.values())
    assert sign_flip(np.ones(20)) == 2 / 2**20
    assert sign_flip(np.ones(21)) is None


def test_missing_seeds_are_compared_on_the_common_ones():
    table = noise(6, 5)
    table[1, 0] = table[2, :2] = table[3, :4] = table[4, :3] = np.nan
    table[5, 2] = np.inf
    family = compared(table)
    assert [found.n for found in family.by_cell.values()] == [4, 3, 1, 2, 4]
    assert family.by_cell["c2"].difference == pytest.approx((table[2, 2:] - table[0, 2:]).mean())
    assert family.by_cell["c3"].p is None
    assert family.by_cell["c3"].low is None
    assert "c2 is compared on the 3 seeds that it shares with c0" in family.notes
    assert family.by_cell["c4"].p is None
    assert "not tested with one or two common seeds: c3, c4" in family.notes
    assert "1 value(s) of c5 are not finite and left out" in family.notes
    values = column(table)
    values["elsewhere"] = {17: 1.0}
    family = compare_cells(values, "c0")
    assert "elsewhere" not in family.by_cell
    assert "elsewhere shares no seed with c0: not compared" in family.notes


def test_differences_on_other_seeds_are_less_correlated():
    table = noise(4, 6)
    table[1, 4:] = table[2, :2] = np.nan
    values = Column.of(column(table))
    first, second = np.zeros(3, dtype=int), np.arange(1, 4)
    tests = pair_tests(values, values.fit(), first, second, BASELINE_FEW, BASELINE)
    family = compared(table)
    for k, found in enumerate(family.by_cell.values()):  # c1 and c2 share two of their four seeds
        assert found.p == pytest.approx(float(dunnett_p(tests.t[k], 3, tests.df[k], 0.25)))
        assert found.p > float(dunnett_p(tests.t[k], 3, tests.df[k], 0.5))


def test_numbers_without_spread_are_not_tested():
    family = compared(np.tile([[3.1], [3.1], [1e7]], (1, 5)) + 0.1)
    assert [(found.p, found.effect, found.holds) for found in family.by_cell.values()] == [(None, None, False)] * 2
    assert "not tested, the same on every seed: c1, c2" in family.notes
    assert family.method == "not tested"


def test_unequal_spread_is_named_with_levenes_p():
    table = np.random.default_rng(8).normal(size=(6, 10)) * np.array([1, 1, 1, 2.2, 2.2, 2.2])[:, None]
    residuals = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    p = stats.levene(*residuals, center="median").pvalue
    assert p < 0.05
    assert f"the spread over seeds differs between cells (Levene p = {p:.2g})" in compared(table).notes
    assert not any("spread" in note for note in compared(noise(4, 10)).notes)


def test_a_wild_cell_is_compared_by_its_own_differences_and_hides_nothing():
    table = noise(5, 6) + np.array([[0], [0], [4], [0], [0]])
    table[4] = 60 * np.random.default_rng(2).normal(size=6)
    calm, family = compared(table[:4]), compared(table)
    assert "c4 scatters over seeds far more than the other cells: compared by differences of their own (paired)" in (
        family.notes
    )
    values = Column.of(column(table[:4]))
    tests = pair_tests(values, values.fit(), np.zeros(3, dtype=int), np.arange(1, 4), BASELINE_FEW, BASELINE)
    for k, cell in enumerate(("c1", "c2", "c3")):
        found = family.by_cell[cell]
        assert found.effect == pytest.approx(calm.by_cell[cell].effect)
        assert found.p == pytest.approx(float(dunnett_p(tests.t[k], 4, tests.df[k], 0.0)))
        assert found.holds == calm.by_cell[cell].holds == (cell == "c2")
    wild = family.by_cell["c4"]
    theirs = stats.ttest_rel(table[4], table[0])
    assert wild.p == pytest.approx(float(dunnett_p(theirs.statistic, 4, 5, 0.0)))
    sd = (table[4] - table[0]).std(ddof=1) / 2**0.5
    assert wild.effect == pytest.approx(wild.difference / sd * (1 - 3 / (4 * 5 - 1)), rel=2e-3)


def test_the_method_says_what_was_done_where_the_baseline_itself_scatters():
    table = noise(5, 6)
    table[0] *= 60
    family = compared(table)
    assert family.method.startswith("paired t on common seeds, corrected as Dunnett's test does it")
    assert compared(noise(5, 6)).method.startswith("randomised blocks")
    for k in range(1, 5):
        t = stats.ttest_rel(table[k], table[0]).statistic
        assert family.by_cell[f"c{k}"].p == pytest.approx(float(dunnett_p(t, 4, 5, 0.0)), abs=1e-4)


def test_differences_called_hidden_are_corrected_for_all_that_were_chosen_alike():
    """With a cell of two seeds in the family, what two comparisons would have shown is not enough."""
    values = {
        "base": {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0},
        "near": {0: 1.0, 1: 0.6, 2: 1.3, 3: 0.5},
        "wide": {0: 2.0, 1: -2.5, 2: 2.3, 3: -2.0},
    }
    p = stats.ttest_1samp(list(values["near"].values()), 0).pvalue
    assert 2 * p < 0.05 < 3 * p

    def hidden(cells):
        return [note for note in compare_cells(cells, "base").notes if "hides differences" in note]

    [note] = hidden(values)
    assert f"near (p = {2 * p:.2g})" in note
    assert hidden(values | {"few": {0: 5.0, 1: 5.1}}) == []


def test_a_cell_that_runs_away_hides_nothing():
    table = noise(5, 5) * 0.02 + np.array([[5], [4], [3], [2], [0]])
    table[4] = [1e11, 3e12, 1e9, 1e13, 2e11]
    family = compared(table)
    assert [found.holds for found in family.by_cell.values()] == [True, True, True, False]
    assert family.by_cell["c1"].effect == pytest.approx(compared(table[:4]).by_cell["c1"].effect)


def test_beside_a_wild_baseline_all_differences_are_their_own():
    table = noise(5, 6)
    table[0] = 60 * np.random.default_rng(2).normal(size=6)
    family = compared(table)
    assert any(note.startswith("c0 scatters over seeds far more") for note in family.notes)
    for k, found in enumerate(family.by_cell.values(), start=1):  # they share most of their noise
        assert found.p == pytest.approx(float(dunnett_p(stats.ttest_rel(table[k], table[0]).statistic, 4, 5, 0.5)))


def test_a_constant_cell_beside_constants_and_scattered_ones_is_tested():
    units = np.tile([[32.0], [32.0], [32.0], [17.0], [12.0], [0.0]], (1, 5))
    units[3] += [-7, 6, 1, -3, 4]
    units[4] += [-2, 3, 0, -1, 1]
    found = compared(units).by_cell
    assert found["c5"].holds
    assert found["c3"].holds
    assert not found["c1"].holds


@pytest.mark.parametrize("values", [{"a": {}}, {"a": {0: 1.0}}, {"a": {0: 1.0}, "b": {}}])
def test_a_column_with_nothing_to_compare(values):
    assert compare_cells(values, "a").by_cell == {}
    assert best_cells(values, higher_is_better=True) == set()


def test_the_best_cells_are_those_that_none_beats():
    table = noise(5, 5) * 0.2 + np.array([[0], [3], [0.5], [3.1], [-4]])
    assert best_cells(column(table), higher_is_better=True) == {"c1", "c3"}
    assert best_cells(column(table), higher_is_better=False) == {"c4"}


def test_nothing_is_best_where_nothing_holds():
    assert best_cells(column(noise(6, 5)), higher_is_better=True) == set()


def test_a_cell_of_one_seed_is_not_marked_and_where_it_may_be_the_best_nothing_is():
    table = noise(4, 5) * 0.2 + np.array([[0], [3], [0], [2]])
    table[3, 1:] = np.nan
    assert best_cells(column(table), higher_is_better=True) == {"c1"}
    table[3] += 7
    assert best_cells(column(table), higher_is_better=True) == set()


def test_of_eighty_cells_the_far_ones_hold():
    table = column(noise(80, 5) + np.arange(80)[:, None] / 10)
    assert compare_cells(table, "c0").by_cell["c79"].holds
    assert "c79" in best_cells(table, higher_is_better=True)


def test_the_simulated_procedure_is_the_one_of_reports():
    rng = np.random.default_rng(5)
    for cells, seeds in ((2, 5), (3, 3), (4, 4), (7, 5), (5, 10)):
        tables = SIMULATION["draw"](np.linspace(1, 4, cells), seeds, 12, rng, effect=4.0)
        holds, marked = SIMULATION["report"](tables), SIMULATION["marks"](tables)
        for table, expected, mark in zip(tables, holds, marked, strict=True):
            assert [found.holds for found in compared(table).by_cell.values()] == expected.tolist()
            assert bool(best_cells(column(table), higher_is_better=True)) == mark


def test_the_simulated_alternatives_agree_with_scipy_and_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    tables = SIMULATION["draw"](np.array([1, 1, 0.1, 20.0]), 6, 4, np.random.default_rng(6), effect=4.0)
    for table, paired, welch in zip(tables, SIMULATION["paired"](tables), SIMULATION["_welch"](tables), strict=True):
        p = stats.ttest_rel(table[1:], table[:1], axis=1).pvalue
        assert paired.tolist() == multitest.multipletests(p, method="holm")[0].tolist()
        p = [stats.ttest_ind(row, table[0], equal_var=False).pvalue for row in table[1:]]
        assert welch.tolist() == multitest.multipletests(p, method="holm")[0].tolist()
        residuals = table - table.mean(axis=0)
        if stats.levene(*residuals).pvalue <= 0.05:
            assert SIMULATION["levene_first"](table[None])[0].tolist() == welch.tolist()


def too_high(tables, cells, procedure):
    rates = SIMULATION["false_positives"](SIMULATION[procedure], tables, 10.0, cells)
    return [rate for rate in rates if rate.too_high]


def test_few_false_positives_and_enough_power():
    assert too_high(3000, (3, 7), "report") == []
    assert len(too_high(3000, (7,), "pooled")) > 5  # what a plain pooled variance would do
    assert SIMULATION["power"](SIMULATION["report"], 20_000) > 0.75
    assert SIMULATION["power"](SIMULATION["report"], 20_000, 100.0) > 0.69  # one cell of ten times their spread


@pytest.mark.slow
@pytest.mark.parametrize("cells", [(2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12)])
def test_false_positives_of_every_kind_of_table(cells):
    assert too_high(10_000, cells, "report") == []
    assert too_high(2000, cells, "marks") == []


@pytest.mark.slow
@pytest.mark.parametrize(("cells", "seeds", "missing"), [(4, 5, 3), (7, 5, 6), (12, 5, 10), (7, 10, 20)])
def test_false_positives_with_missing_seeds(cells, seeds, missing):
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(1000):
        table = rng.normal(size=(cells, seeds)) + rng.normal(size=(1, seeds))
        table.ravel()[rng.choice(cells * seeds, missing, replace=False)] = np.nan
        held += any(found.holds for found in compared(table).by_cell.values())
    assert held / 1000 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.slow
def test_student_t_intervals_cover_95_percent_at_five_seeds():
    from experiments.estimates import estimate

    samples = np.random.default_rng(9).normal(size=(20_000, 5))
    found = [estimate(sample) for sample in samples.tolist()]
    assert 0.94 <= np.mean([abs(one.mean) <= one.half_width for one in found]) <= 0.96


def test_a_difference_that_other_cells_hide_is_named():
    """Where most cells scatter much, the pooled spread is large; what it hides is said, and not called significant."""
    noise = np.random.default_rng(0).normal(size=(5, 5))
    values = {
        "base": dict(enumerate(0.0126 + 0.0001 * noise[0])),
        "clear": dict(enumerate(0.0159 + 0.0001 * noise[1])),
        **{f"wild {k}": dict(enumerate(0.0140 + 0.0060 * noise[k])) for k in (2, 3, 4)},
    }
    family = compare_cells(values, "base")
    p = 4 * stats.ttest_rel(list(values["clear"].values()), list(values["base"].values())).pvalue
    assert not family.by_cell["clear"].holds
    [note] = [note for note in family.notes if "hides differences" in note]
    assert f"clear (p = {p:.2g})" in note
    assert "wild" not in note
    calm = compare_cells({cell: own for cell, own in values.items() if cell not in ("wild 3", "wild 4")}, "base")
    assert calm.by_cell["clear"].holds
    assert not any("hides" in note for note in calm.notes)
