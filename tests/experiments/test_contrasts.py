"""What a report says of differences: the tests of a table, its marks, the sentence, and what is left uncompared."""

import csv
import io

import pytest
from rich.console import Console
from scipy import stats
from support.study_builder import FINGERPRINT, StudyBuilder

from experiments.ablation import tabulate
from experiments.comparison import best_cells
from experiments.references import References
from experiments.report import Report
from experiments.results import collect
from tracking.files import write_json
from vae_core.errors import UserError

SEEDS = (0, 1, 2, 3, 4)
NOISE = (0.0, 0.01, -0.012, 0.006, -0.004)
OWN = (0.001, -0.002, 0.0015, -0.0007, 0.0004)


def table_of(builder, **options):
    return tabulate(builder.study, collect(builder.study), References(), **options)


def betas(tmp_path, means, *, baseline=1.0, **options):
    """Return a study of SSIMs around these means (beta -> mean), with noise that seeds share and noise of their own."""
    marked = {} if baseline is None else {"loss.beta": baseline}
    objective = ("val/ssim", "maximize")
    builder = StudyBuilder(
        tmp_path / "study", {"loss.beta": list(means)}, seeds=SEEDS, baseline=marked, objective=objective, **options
    )
    for place, (beta, mean) in enumerate(means.items()):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            own = OWN[(seed + place) % len(OWN)]
            builder.done(run, ssim=mean + NOISE[seed] + own, mse=0.01 - 0.001 * own, elbo=-20 + own, kl=5 + own)
    return builder


def entry(table, beta, key="test/ssim"):
    (row,) = [row for row in table.cells if row.cell.params["loss.beta"] == beta]
    return row.entries[key]


def test_mutual_information_at_its_limit_is_not_compared(tmp_path):
    """ln 90 = 4.5: above 3.5 nats it may be larger than what is measured."""
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0]}, baseline={"loss.beta": 2.0})
    write_json(builder.study.path / "data.json", {"fingerprint": FINGERPRINT, "splits": {"test": {"images": 90}}})
    for beta, information in ((1.0, 4.0), (2.0, 3.0), (3.0, 1.0)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, mutual_information=information + 0.01 * seed * beta)

    compared = {beta: entry(table_of(builder), beta, "test/mutual_information").comparison for beta in (1.0, 3.0)}
    assert compared[1.0] is None
    assert compared[3.0].holds
    assert any("it may be larger) and not compared at loss.beta=1.0." in line for line in table_of(builder).caption)
    of_saturated = table_of(builder, baseline="loss.beta=1.0")
    assert entry(of_saturated, 3.0, "test/mutual_information").comparison is None
    assert entry(of_saturated, 3.0, "test/elbo") is not None


def test_runs_that_took_no_time_cost_nothing_and_names_keep_their_spelling(tmp_path):
    builder = betas(tmp_path, {1.0: 0.5, 2.0: 0.5, 3.0: 0.5})
    builder.cell(loss__beta=4.0)
    found = table_of(builder)
    assert found.costs == ("Cost: 45 s of training in 15 runs. Time is that of finished epochs.",)

    wild = StudyBuilder(
        tmp_path / "wild", {"loss.beta": [1.0, 2.0, 3.0, 4.0]}, seeds=SEEDS, baseline={"loss.beta": 1.0}
    )
    for beta in (1.0, 2.0, 3.0, 4.0):
        for seed, run in enumerate(wild.cell(loss__beta=beta)):
            noise = (50 if beta == 4.0 else 1) * OWN[(seed + int(beta)) % len(OWN)]
            wild.done(run, **dict.fromkeys(("elbo", "reconstruction", "kl", "ssim", "mse", "active_units"), 5 + noise))
    assert any(line.startswith("loss.beta=4.0 scatters over seeds far more") for line in table_of(wild).methods)


def csv_rows(table):
    return list(csv.DictReader(io.StringIO(Report((table,)).to_csv())))


def test_two_cells_are_compared_by_a_paired_t_test_on_their_common_seeds(tmp_path):
    table = table_of(betas(tmp_path, {1.0: 0.5, 0.1: 0.6}))
    values = [cell.values("test/ssim") for cell in table.results.cells]
    expected = stats.ttest_rel(values[1], values[0])
    interval = expected.confidence_interval()

    found = entry(table, 0.1).comparison

    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found.n == 5
    row = csv_rows(table)[1]
    assert float(row["test/ssim difference"]) == pytest.approx(0.1, abs=0.01)
    assert float(row["test/ssim p"]) == found.p
    assert (row["test/ssim common_seeds"], row["test/ssim best"]) == ("5", "True")
    assert csv_rows(table)[0]["test/ssim p"] == ""


def test_the_answer_is_the_largest_difference_that_holds_with_interval_and_p(tmp_path):
    table = table_of(betas(tmp_path, {0.1: 0.6, 1.0: 0.5, 10.0: 0.4}))

    assert table.answers[0].startswith("Test SSIM at loss.beta = 0.1 is 0.10")
    assert "higher than that of the baseline (loss.beta = 1), p < 0.001, n = 5." in table.answers[0]


def test_where_cells_are_only_worse_the_answer_says_that_none_is_shown_to_be_better(tmp_path):
    table = table_of(betas(tmp_path, {0.1: 0.4, 1.0: 0.5, 10.0: 0.3}))

    assert table.answers[0].startswith("No cell is shown to be better in test SSIM than the baseline (loss.beta = 1);")
    assert "2 of 2 are worse, loss.beta = 10 by 0.20" in table.answers[0]


def test_where_no_difference_holds_the_answer_says_so_with_the_largest(tmp_path):
    table = table_of(betas(tmp_path, {0.1: 0.5, 1.0: 0.5}))

    assert table.answers[0].startswith("No difference in test SSIM to the baseline (loss.beta = 1) holds: the largest")
    assert not entry(table, 0.1).best


def test_a_lower_error_is_better(tmp_path):
    builder = StudyBuilder(
        tmp_path / "study",
        {"loss.beta": [1.0, 2.0]},
        seeds=SEEDS,
        baseline={"loss.beta": 1.0},
        objective=("val/mse", "minimize"),
    )
    for beta, mse in ((1.0, 0.02), (2.0, 0.01)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, mse=mse + 0.001 * NOISE[seed] + 0.01 * OWN[(seed + int(beta)) % 5])
    table = table_of(builder)

    assert table.answers[0].startswith("Test MSE at loss.beta = 2 is 0.010")
    assert "lower than that of the baseline" in table.answers[0]
    assert [entry(table, beta, "test/mse").best for beta in (1.0, 2.0)] == [False, True]


def test_marks_stand_for_differences_that_hold_in_every_form(tmp_path):
    report = Report((table_of(betas(tmp_path, {0.1: 0.6, 1.0: 0.5})),))
    text = entry(report.tables[0], 0.1).text

    assert f"| **{text}** * |" in report.to_markdown()
    assert r"{\boldmath$" + text.replace("±", r"\pm") + "$}$^{*}$" in report.to_latex()
    (row,) = [line for line in report.to_markdown().splitlines() if line.startswith("| loss.beta=0.1 | +")]
    assert "p < 0.001" in row or "p = " in row
    assert "d = " in row


def test_on_a_terminal_the_asterisk_stands_beside_the_mean_and_shifts_no_other(tmp_path):
    report = Report((table_of(betas(tmp_path, {0.1: 0.6, 1.0: 0.5}), metrics=["ssim"]),))
    console = Console(width=150, file=io.StringIO())
    console.print(report.to_console())
    lines = console.file.getvalue().splitlines()
    (starred,) = [line for line in lines if line.startswith("  loss.beta=0.1")]
    (plain,) = [line for line in lines if line.startswith("  loss.beta=1.0")]
    mean = entry(report.tables[0], 1.0).text.partition(" ")[0]

    assert "*" in starred
    assert "*" not in plain
    assert starred[plain.index(mean) + len(mean)] == "*"
    words = "Only in the other forms (--open, --format md, -o DIR): differences to the baseline with intervals,"
    assert words in " ".join(console.file.getvalue().split())


def test_a_study_without_a_baseline_is_not_compared_and_says_how_to_name_one(tmp_path):
    builder = betas(tmp_path, {0.1: 0.6, 1.0: 0.5}, baseline=None)
    table = table_of(builder)

    assert table.baseline is None
    assert all(entry(table, beta).comparison is None for beta in (0.1, 1.0))
    assert "name one with --baseline CELL" in " ".join(table.methods)
    assert "difference to the baseline" not in Report((table,)).to_markdown()

    named = table_of(builder, baseline="loss.beta=0.1")
    assert named.baseline.params == {"loss.beta": 0.1}
    assert entry(named, 1.0).comparison.holds
    assert [row.notes for row in named.cells] == [("baseline",), ()]


def test_another_baseline_takes_the_place_of_the_sweeps(tmp_path):
    table = table_of(betas(tmp_path, {0.1: 0.6, 1.0: 0.5}), baseline="loss.beta=0.10")

    assert [row.notes for row in table.cells] == [("baseline",), ()]
    assert [row["baseline"] for row in csv_rows(table)] == ["True", "False"]


def test_a_baseline_that_is_no_cell_or_several_is_refused_with_those_that_are(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 2], "model.latent_dim": [4, 8]})
    for beta in (1, 2):
        for dims in (4, 8):
            builder.cell(loss__beta=beta, model__latent_dim=dims)

    with pytest.raises(
        UserError, match=r"--baseline 7: study has no such cell; valid: 'loss.beta=1 model.latent_dim=4'"
    ):
        table_of(builder, baseline="7")
    with pytest.raises(UserError, match=r"2 cells of study are called so; valid: 'loss.beta=1 model.latent_dim=4', "):
        table_of(builder, baseline="loss.beta=1")
    assert table_of(builder, baseline="model.latent_dim=8 loss.beta=1").baseline.trial == 1


def test_a_sweep_whose_baseline_is_several_cells_is_not_compared(tmp_path):
    space = {"loss.beta": [1, 2], "model.latent_dim": [4, 8]}
    builder = StudyBuilder(tmp_path / "study", space, baseline={"loss.beta": 1})
    for beta in (1, 2):
        for dims in (4, 8):
            for run in builder.cell(loss__beta=beta, model__latent_dim=dims):
                builder.done(run)
    table = table_of(builder)

    assert table.baseline is None
    assert "the sweep's baseline is 2 cells; choose one with --baseline CELL" in " ".join(table.methods)


def test_a_baseline_without_finished_runs_is_named_as_the_reason(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 2, 3]}, baseline={"loss.beta": 1})
    builder.cell(loss__beta=1)
    for beta in (2, 3):
        for run in builder.cell(loss__beta=beta):
            builder.done(run)

    assert "the baseline, loss.beta=1, has no finished run" in " ".join(table_of(builder).methods)


def test_a_baseline_that_did_not_measure_a_column_is_named_as_the_reason(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 2, 3]}, baseline={"loss.beta": 1})
    for beta in (1, 2, 3):
        for run in builder.cell(loss__beta=beta):
            measured = {"iwae": 1.0} if beta == 1 else {"fid": float(beta)}
            builder.done(run, **measured)

    alone = table_of(builder, metrics=["fid"]).methods
    assert alone[0] == "No comparisons: the baseline, loss.beta=1, has no number for fid."
    assert (
        "Not compared: fid, of which the baseline has no number." in table_of(builder, metrics=["fid", "ssim"]).methods
    )
    own = table_of(builder, metrics=["iwae"]).methods
    assert own[0] == "No comparisons with the baseline: no other cell has a number for iwae."


def test_numbers_of_different_images_or_likelihoods_are_neither_tested_nor_marked(tmp_path):
    images = StudyBuilder(tmp_path / "images", {"data.width": [16, 32]}, seeds=SEEDS, baseline={"data.width": 16})
    for width, fingerprint in ((16, FINGERPRINT), (32, "0" * 16)):
        images.fingerprint = fingerprint
        for seed, run in enumerate(images.cell(data__width=width)):
            images.done(run, ssim=width / 100 + OWN[seed])
    path = "evaluate.likelihood"
    nats = StudyBuilder(tmp_path / "nats", {path: ["gaussian", "laplace"]}, seeds=SEEDS, baseline={path: "gaussian"})
    for number, likelihood in enumerate(("gaussian", "laplace")):
        for seed, run in enumerate(nats.cell(evaluate__likelihood=likelihood)):
            nats.done(run, elbo=number + OWN[seed], ssim=0.2 * number + OWN[seed] + 0.01 * OWN[seed - number])

    assert table_of(images).compared == []
    assert not any(entry.best for row in table_of(images).rows for entry in row.entries.values())
    compared = {column.key for column in table_of(nats).compared}
    assert "test/ssim" in compared
    assert not {"test/elbo", "test/reconstruction"} & compared


def test_a_search_of_many_cells_is_not_tested_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.contrasts.MOST_CELLS", 1)
    monkeypatch.setattr("experiments.methods.MOST_CELLS", 1)
    table = table_of(betas(tmp_path, {0.1: 0.6, 1.0: 0.5}))

    assert table.compared == []
    assert table.methods == ("No tests: 2 cells are a search, not an ablation (more than 1).",)


def test_marks_that_would_hit_most_cells_are_left_out(tmp_path):
    table = table_of(betas(tmp_path, {0.1: 0.5, 0.2: 0.5, 0.3: 0.5, 1.0: 0.3}))

    assert not any(row.entries["test/ssim"].best for row in table.rows)


NEAR_MISS = (  # Tukey, over all pairs, tells neither of the first two from the other; Dunnett does
    (0.1, -0.1, 0.6, 0.1, -0.5),
    (-1.8, -0.9, -1.3, -2.9, -3.5),
    (-4.6, -4.0, -6.3, -4.2, -5.2),
    (-4.7, -4.5, -4.3, -3.6, -3.0),
    (-4.1, -2.6, -4.7, -3.6, -3.1),
    (-3.9, -4.7, -4.9, -4.5, -3.8),
)


@pytest.mark.parametrize("baseline", [0, 1])
@pytest.mark.parametrize(("key", "sign"), [("test/elbo", 1), ("test/mse", -1)])
def test_what_a_comparison_with_the_baseline_shows_to_be_worse_is_not_marked_best(tmp_path, baseline, key, sign):
    values = {str(beta): dict(enumerate(sign * value for value in row)) for beta, row in enumerate(NEAR_MISS)}
    assert best_cells(values, sign > 0) == {"0", "1"}
    space = {"loss.beta": list(range(len(NEAR_MISS)))}
    builder = StudyBuilder(tmp_path / "study", space, seeds=SEEDS, baseline={"loss.beta": baseline})
    for beta, row in values.items():
        for seed, run in enumerate(builder.cell(loss__beta=int(beta))):
            builder.done(run, **{key: row[seed]})
    table = table_of(builder)

    assert entry(table, 1 - baseline, key).comparison.holds
    assert [row.entries[key].best for row in table.cells] == [True, *[False] * 5]
