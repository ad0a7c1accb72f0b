"""Means over seeds against SciPy, and the sentences that a study's numbers are put into."""

import numpy as np
import pytest
from scipy import stats
from support.study_builder import StudyBuilder, beta_study

from experiments.ablation import tabulate
from experiments.estimates import Estimate, digits, estimate, spearman
from experiments.references import References
from experiments.results import collect


def answers(results, study=None, **options):
    """Return the sentences below a study's table."""
    return list(tabulate(study, results, References(), **options).answers)


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 3.5, 1.25], [-10.0, -9.0, -8.5, -3.0, 2.0]])
def test_the_interval_is_students_t(values):
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))

    found = estimate(values)

    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9)
    assert found.n == len(values)


def test_one_seed_has_no_interval_and_none_has_no_estimate():
    assert estimate([4.0]) == Estimate(4.0, None, 1)
    assert estimate([]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(-123.456, 1.234, 2), ("-123.5", "1.2")),
        (Estimate(0.012342, 0.00067, 2), ("0.01234", "0.00067")),
        (Estimate(1234.5, 345.6, 2), ("1234", "346")),
        (Estimate(0.5, 0.0000001, 2), ("0.50000", "0.00000")),
        (Estimate(0.5, 0.0, 3), ("0.500", "0.000")),
        (Estimate(0.5, None, 1), ("0.500", None)),
        (Estimate(0.02, 1.5, 2), ("0.0", "1.5")),
        (Estimate(4.2e-7, 1.04e-8, 2), ("4.20e-07", "1.0e-08")),
        (Estimate(8.9e-16, None, 1), ("0.000", None)),
        (Estimate(-8e-6, 3.1e-7, 2), ("-8.00e-06", "3.1e-07")),
        (Estimate(1e-7, 5e-6, 2), ("1e-07", "5.0e-06")),
        (Estimate(4.2e-7, 0.0, 3), ("4.2e-07", "0")),
        (Estimate(4.2e-7, None, 1), ("4.2e-07", None)),
        (Estimate(4e-6, 1e-300, 2), ("4.000e-06", "1.0e-300")),
        (Estimate(0.0004, None, 1), ("0.00040", None)),
        (Estimate(0.0, None, 1), ("0.000", None)),
    ],
)
def test_numbers_are_rounded_to_two_significant_digits_of_their_interval(value, text):
    assert digits(value, usual=3, most=5) == text


def test_spearman_counts_ties_at_their_mean_rank():
    axis, units = [0.03, 0.1, 0.3, 1.0, 100.0], [16.0, 16.0, 12.5, 9.0, 0.0]
    ranks = stats.rankdata(axis), stats.rankdata(units)

    assert spearman(axis, units) == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-12)
    assert spearman(axis, [1.0] * 5) is None
    assert spearman([1.0, 2.0], [2.0, 1.0]) is None


def test_a_numeric_axis_is_answered_with_the_edge_of_the_collapse_and_its_correlations(tmp_path):
    builder = beta_study(tmp_path / "study")

    assert answers(collect(builder.study)) == [
        "Every seed collapses at loss.beta = 100; the largest value without a full collapse is 1.",
        "The highest mean test ELBO, -7.5, is at loss.beta = 1; its 95% interval meets those of 1 of 2 other cells.",
        "Spearman correlation of loss.beta over 3 cells: with KL -1.000, with active units -1.000.",
    ]


def collapses(tmp_path, path, verdicts, **options):
    """Return the first sentence about an axis whose values have these verdicts of their seeds."""
    builder = StudyBuilder(tmp_path / "study", {path: list(verdicts)}, **options)
    for value, names in verdicts.items():
        for run, name in zip(builder.cell(**{path.replace(".", "__"): value}), names.split(), strict=True):
            builder.done(run, verdict=name)
    return answers(collect(builder.study))[0]


@pytest.mark.parametrize(
    ("path", "verdicts", "sentence"),
    [
        (
            "optim.lr",
            {0.1: "full full", 0.2: "none none"},
            "Every seed collapses at optim.lr = 0.1; the smallest value without a full collapse is 0.2.",
        ),
        (
            "loss.beta",
            {1: "none none", 2: "full none", 3: "full full"},
            (
                "Every seed collapses at loss.beta = 3; only some seeds collapse at loss.beta = 2; "
                "the largest value without a full collapse is 1."
            ),
        ),
        (
            "loss.beta",
            {1: "none none", 2: "full full", 3: "none partial"},
            (
                "Every seed collapses at loss.beta = 2; no seed does at loss.beta = 1, 3; "
                "a partial collapse on some seeds at loss.beta = 3."
            ),
        ),
        ("loss.beta", {1: "none none", 3: "none none"}, "No seed collapses fully at any loss.beta from 1 to 3."),
        ("loss.beta", {1: "full full", 3: "full full"}, "Every seed collapses fully at any loss.beta from 1 to 3."),
        (
            "model.block",
            {"resnet": "none none", "plain": "full full"},
            "Every seed collapses at model.block = plain; no seed does at model.block = resnet.",
        ),
        (
            "model.block",
            {"resnet": "full none", "plain": "none none"},
            "Only some seeds collapse at model.block = resnet; no seed does at model.block = plain.",
        ),
    ],
)
def test_the_answer_holds_for_any_axis(tmp_path, path, verdicts, sentence):
    assert collapses(tmp_path, path, verdicts) == sentence


@pytest.mark.parametrize(
    ("asked", "left_open", "sentence"),
    [
        ([0.1, 1, 10], 1, "No seed collapses fully at loss.beta = 0.1, 10."),
        ([0.1, 1, 10, 100], 100, "No seed collapses fully at any loss.beta from 0.1 to 10."),
        ([0.1, None, 10], None, "No seed collapses fully at any loss.beta from 0.1 to 10."),
        ([0.1, 1, 3, 10], None, "No seed collapses fully at loss.beta = 0.1, 1, 10."),
    ],
)
def test_a_range_is_named_only_where_every_value_in_it_was_measured(tmp_path, asked, left_open, sentence):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": asked})
    for beta in asked:
        if beta in (3, None):
            continue  # a cell that has not been started
        for run in builder.cell(loss__beta=beta):
            if beta == left_open:
                builder.failed(run)
            else:
                builder.done(run)

    assert answers(collect(builder.study))[0] == sentence


@pytest.mark.parametrize(
    ("collapsed", "sentence"),
    [
        (100, "Every seed collapses at loss.beta = 100; the largest value without a full collapse is 1"),
        (1, "Every seed collapses at loss.beta = 1; the smallest value without a full collapse is 100"),
    ],
)
def test_the_edge_of_the_collapse_names_the_values_beside_it_that_were_not_measured(tmp_path, collapsed, sentence):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 10, 30, 100, 1000]}, seeds=(0,))
    for beta in (1, 100):
        builder.done(*builder.cell(loss__beta=beta), verdict="full" if beta == collapsed else "none")
    builder.failed(*builder.cell(loss__beta=10))  # 30 and 1000 have not been started

    assert answers(collect(builder.study))[0] == f"{sentence} (10, 30 not measured)."


def test_cells_of_different_images_have_no_correlation(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"data.count": [30, 60, 90]}, seeds=(0,))
    for count in (30, 60, 90):
        builder.fingerprint = f"{count:016x}"
        builder.done(*builder.cell(data__count=count), kl=count)

    assert not any("Spearman" in sentence for sentence in answers(collect(builder.study)))


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"test/kl"}, "Spearman correlation of loss.beta over 3 cells: with active units 1.000."),
        ({"test/kl", "test/active_units"}, None),
    ],
)
def test_a_metric_that_a_cell_lacks_has_no_correlation(tmp_path, missing, words):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 2, 3]}, seeds=(0,))
    for beta in (1, 2, 3):
        builder.done(builder.cell(loss__beta=beta)[0], kl=beta, active_units=beta)
    results = collect(builder.study)
    for key in missing:
        del results.cells[1].runs[0].metrics[key]

    assert next((sentence for sentence in answers(results) if "Spearman" in sentence), None) == words


def two_axes(path, collapsed):
    """Return the sentences about two axes; `collapsed`: the (beta, dims) whose posterior collapses."""
    builder = StudyBuilder(path, {"loss.beta": [1.0, 3.0, 9.0], "model.latent_dim": [2, 4, 8]}, seeds=(0,))
    for beta in (1.0, 3.0, 9.0):
        for dims in (2, 4, 8):
            (run,) = builder.cell(loss__beta=beta, model__latent_dim=dims)
            builder.done(run, verdict="full" if (beta, dims) in collapsed else "none", elbo=-beta - dims)
    return answers(collect(builder.study))


@pytest.mark.parametrize(
    ("collapsed", "sentence"),
    [
        (
            [(3.0, 2), (3.0, 4), (3.0, 8), (9.0, 2), (9.0, 4), (9.0, 8)],
            "Every seed collapses at loss.beta = 3, 9; no seed does at loss.beta = 1.",
        ),
        (
            [(9.0, 2), (9.0, 4)],
            (
                "Every seed collapses at loss.beta = 9 with model.latent_dim = 2, 4; "
                "no seed does at loss.beta = 1, 3 and at loss.beta=9.0 model.latent_dim=8."
            ),
        ),
        (
            [(1.0, 4), (3.0, 4), (9.0, 4)],
            "Every seed collapses at model.latent_dim = 4; no seed does at model.latent_dim = 2, 8.",
        ),
        ([], "No seed collapses fully in any of the 9 cells."),
    ],
)
def test_what_cells_of_two_axes_have_in_common_is_said_and_there_is_no_rank_correlation(tmp_path, collapsed, sentence):
    found = two_axes(tmp_path / "study", collapsed)
    assert sentence in found
    assert "The highest mean test ELBO, -3, is at loss.beta=1.0 model.latent_dim=2 (one seed, no interval)." in found
    assert not any("Spearman" in one for one in found)


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (
            {1: "none none", 2: "ignored ignored", 3: "partial none"},
            (
                "No seed collapses fully at any loss.beta from 1 to 3; the decoder ignores z at loss.beta = 2; "
                "a partial collapse on some seeds at loss.beta = 3."
            ),
        ),
        (
            {1: "partial partial", 2: "ignored none", 3: "full full"},
            (
                "Every seed collapses at loss.beta = 3; the largest value without a full collapse is 2; the decoder "
                "ignores z on some seeds at loss.beta = 2; a partial collapse at loss.beta = 1."
            ),
        ),
    ],
)
def test_weaker_collapses_are_named_beside_the_full_one(tmp_path, verdicts, sentence):
    assert collapses(tmp_path, "loss.beta", verdicts) == sentence


def test_seeds_that_have_not_finished_are_not_spoken_for(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 3]}, seeds=(0, 1))
    builder.done(builder.cell(loss__beta=1)[0])
    for run in builder.cell(loss__beta=3):
        builder.done(run, verdict="full")

    assert answers(collect(builder.study))[0] == (
        "Every seed collapses at loss.beta = 3; the largest value without a full collapse is 1."
    )
    builder.cell(loss__beta=5)
    builder.done(builder.study.run_ids()[-1], verdict="full")
    assert answers(collect(builder.study))[0].startswith("Every finished seed collapses at loss.beta = 3, 5; ")


def three_betas(tmp_path, third, seeds):
    """Return the sentences about betas of 1, 2 and 3 whose ELBOs differ; the last has only some of five seeds."""
    builder = StudyBuilder(
        tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0, 4.0]}, seeds=range(5), baseline={"loss.beta": 1.0}
    )
    for beta, gain in ((1.0, 0.0), (2.0, 0.1), (4.0, 0.05), (3.0, third)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)[: seeds if beta == 3 else 5]):
            builder.done(run, elbo=-15 + gain + seed + 0.3 * ((seed * beta) % 3))
    return answers(collect(builder.study))


def test_cells_that_were_not_tested_are_named_beside_those_that_were(tmp_path):
    found = three_betas(tmp_path, 10.0, 2)
    [sentence] = [one for one in found if "baseline" in one]
    assert "holds: the largest of those tested, at loss.beta = " in sentence
    assert sentence.endswith("; not tested: loss.beta = 3.")
    assert any(one.startswith("The highest mean test ELBO") and "loss.beta = 3" in one for one in found)


@pytest.mark.parametrize(
    ("elbos", "words"),
    [
        ({1: [-3, -3], 2: [-3, -3]}, "The mean test ELBO is the same in all 2 cells, -3."),
        ({1: [-3, -1], 2: [-2, -2], 3: [-9, -9]}, "The highest mean test ELBO, -2, is at loss.beta = 1, 2."),
        ({1: [-3], 2: [-2]}, "The highest mean test ELBO, -2, is at loss.beta = 2 (one seed, no interval)."),
    ],
)
def test_ties_and_single_seeds_are_said(tmp_path, elbos, words):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": list(elbos)})
    for beta, values in elbos.items():
        for run, elbo in zip(builder.cell(loss__beta=beta), values, strict=False):
            builder.done(run, elbo=elbo)
    assert words in answers(collect(builder.study))


def test_the_best_cell_is_that_of_the_sweeps_objective(tmp_path):
    builder = beta_study(tmp_path / "study", objective=("val/mse", "minimize"))

    assert answers(collect(builder.study))[1].startswith("The lowest mean test MSE, 0.00405, is at loss.beta = 0.1")


def test_a_constant_number_of_active_units_has_no_correlation(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 2, 3]}, seeds=(0,))
    for beta in (1, 2, 3):
        builder.done(builder.cell(loss__beta=beta)[0], kl=beta, active_units=3)

    assert "with KL 1.000, with active units undefined (constant)" in answers(collect(builder.study))[-1]


def test_a_study_of_one_cell_without_axes_has_a_table_and_a_verdict(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {}, seeds=(0,))
    builder.done(builder.cell()[0])

    assert answers(collect(builder.study)) == ["No seed collapses fully in the one cell of this study."]
