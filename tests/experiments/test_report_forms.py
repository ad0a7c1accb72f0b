"""What a report shows beside means and tests, and its forms: columns, costs, runs of unequal length, matrices, JSON."""

import csv
import io
import json

import pytest
from support.study_builder import StudyBuilder, beta_study

from experiments.ablation import tabulate
from experiments.references import ReferenceRow, References
from experiments.report import Report
from experiments.results import collect
from vae_core.errors import UserError

REFERENCES = References((ReferenceRow("mean image", None, {"test/mse": 0.04, "test/ssim": 0.2}),))


def table_of(builder, **options):
    return tabulate(builder.study, collect(builder.study), REFERENCES, **options)


def titles(table):
    return [column.title for column in table.columns]


def of_runs(tmp_path, runs, name="study", **options):
    """Return a study of one cell per keyword set of `done`, one seed each."""
    builder = StudyBuilder(tmp_path / name, {"loss.beta": list(range(len(runs)))}, seeds=(0,), **options)
    for beta, facts in enumerate(runs):
        builder.done(builder.cell(loss__beta=beta)[0], **facts)
    return builder


def test_columns_appear_where_they_say_something(tmp_path):
    plain = table_of(of_runs(tmp_path, [{}, {}], "plain"))
    assert titles(plain) == ["ELBO", "reconstruction", "KL", "SSIM", "MSE", "PCA(AU) MSE", "AU", "time"]
    assert "Every model has 1,234 parameters." in plain.caption

    on_gpus = table_of(of_runs(tmp_path, [{"gpus": 1.0, "lpips": 0.2, "mutual_information": 3.0}], "gpus"))
    assert titles(on_gpus)[4:5] == ["LPIPS"]
    assert {"MI", "GPU-hours"} < set(titles(on_gpus))
    assert on_gpus.rows[0].entries["run/gpu_hours"].mean > 0


def test_models_of_different_size_have_a_column_of_parameters(tmp_path):
    table = table_of(of_runs(tmp_path, [{}, {"parameters": 9_999_999}]))

    assert [row.entries["run/parameters"].text for row in table.cells] == ["1,234", "9,999,999"]
    assert not any("parameters." in line for line in table.caption)


def test_equal_studies_of_different_cost_leave_the_same_table(tmp_path):
    quick = Report((table_of(of_runs(tmp_path / "a", [{}, {}])),))
    slow = Report((table_of(of_runs(tmp_path / "b", [{"gpus": 2.0, "epochs": 2}, {}])),))

    assert quick.to_markdown(with_costs=False) == slow.to_markdown(with_costs=False)
    assert "GPU-hours" not in slow.to_markdown(with_costs=False)
    assert "time" in slow.to_markdown()
    assert "Cost: 6.0 s of training in 2 runs" in slow.to_markdown()


def test_metrics_asked_for_are_the_columns_under_their_full_or_short_names(tmp_path):
    builder = of_runs(tmp_path, [{"scale": 0.1}, {"scale": 0.3}])
    table = table_of(builder, metrics=["scale", "test/ssim", "val/ssim"])

    assert [column.key for column in table.columns] == ["test/scale", "test/ssim", "val/ssim"]
    assert [column.head for column in table.columns] == ["scale", "SSIM ↑", "val SSIM ↑"]
    assert table.rows[0].entries["val/ssim"].mean == pytest.approx(0.2)
    assert "val SSIM: of the validation split, by which the weights were selected: optimistic." in table.caption
    assert table.reference_rows[0].entries["test/ssim"].text == "0.200"


def test_an_unknown_metric_is_refused_with_those_there_are(tmp_path):
    message = r"--metric test/sim: study has no such metric; did you mean test/ssim.* valid: test/elbo, .*val/ssim"
    with pytest.raises(UserError, match=message):
        table_of(of_runs(tmp_path, [{}]), metrics=["test/sim"])
    with pytest.raises(UserError, match="no run is finished yet"):
        table_of(StudyBuilder(tmp_path / "empty", {"loss.beta": [1]}), metrics=["ssim"])


def test_failed_and_pruned_runs_stand_beside_the_name_and_are_counted_in_the_cost(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, seeds=(0, 1, 2))
    first, second, third = builder.cell(loss__beta=1.0)
    builder.done(first)
    builder.failed(second)
    builder.pruned(third)
    table = table_of(builder)

    assert table.rows[0].notes == ("1 failed", "1 pruned")
    assert "| loss.beta=1.0 (1 failed, 1 pruned) |" in Report((table,)).to_markdown()
    assert "3.0 s of it in failed and pruned ones" in table.costs[0]


def test_runs_of_unequal_length_are_also_compared_at_their_largest_common_epoch(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]}, seeds=(0, 1))
    for beta, lengths in ((1.0, (6, 4)), (2.0, (5, 3))):
        for run, epochs in zip(builder.cell(loss__beta=beta), lengths, strict=True):
            if epochs == 3:
                builder.pruned(run, epochs=3)
            else:
                builder.done(run, epochs=epochs)
    table = table_of(builder)

    assert table.equal_epochs.epoch == 3
    assert [row.entries["val/ssim"].mean for row in table.equal_epochs.rows] == pytest.approx([0.3, 0.3])
    assert [row.seeds for row in table.equal_epochs.rows] == ["2", "2"]
    text = Report((table,)).to_markdown()
    assert "| at epoch 3 | val ELBO ↑ | val SSIM ↑ | n |" in text
    assert "validation metrics of the weights at epoch 3, the largest at which all 4 finished and pruned runs" in text
    assert "Finished runs differ in length: 4 to 6 epochs" in text
    assert "at epoch 3" in Report((table,)).to_latex()


def test_runs_of_one_length_have_no_further_comparison(tmp_path):
    table = table_of(of_runs(tmp_path, [{}, {}]))

    assert table.equal_epochs is None
    assert not any("differ in length" in line for line in table.caption)


def test_two_axes_are_a_matrix_with_the_first_axis_down(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"model.latent_dim": [8, 4], "model.block": ["b", "a"]}, seeds=(0,))
    for dims in (8, 4):
        for block in ("b", "a"):
            if (dims, block) != (4, "a"):
                run = builder.cell(model__latent_dim=dims, model__block=block)[0]
                builder.done(run, ssim=dims / 100 + (block == "a"))
    table = table_of(builder)

    (matrix,) = [matrix for matrix in table.matrices if matrix.column.key == "test/ssim"]
    assert (matrix.row_axis, matrix.row_values) == ("model.latent_dim", ("4", "8"))
    assert (matrix.column_axis, matrix.column_values) == ("model.block", ("b", "a"))
    means = [[entry and entry.mean for entry in entries] for entries in matrix.entries]
    assert means == [[0.04, None], [0.08, 1.08]]
    assert "| SSIM ↑: model.latent_dim \\ model.block | b | a |" in Report((table,)).to_markdown()


def test_a_matrix_tells_true_from_one(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"model.cbam": [True, 1, None], "loss.beta": [1, 2]}, seeds=(0,))
    for place, value in enumerate((True, 1, None)):
        for beta in (1, 2):
            builder.done(builder.cell(model__cbam=value, loss__beta=beta)[0], ssim=0.1 * place)
    (ssim,) = [one for one in table_of(builder).matrices if one.column.key == "test/ssim"]

    assert ssim.row_values == ("True", "1", "None")
    assert [[entry.mean for entry in entries] for entries in ssim.entries] == [[0.0] * 2, [0.1] * 2, [0.2] * 2]


def test_one_axis_is_no_matrix(tmp_path):
    assert table_of(beta_study(tmp_path / "study")).matrices == ()


def test_json_is_versioned_and_has_every_number_at_full_precision(tmp_path):
    builder = of_runs(tmp_path, [{"ssim": 1 / 3}, {"ssim": 0.1}], baseline={"loss.beta": 0})
    (study,) = json.loads(Report((table_of(builder),)).to_json())["studies"]

    assert study["rows"][0]["entries"]["test/ssim"]["mean"] == 1 / 3
    assert study["rows"][1]["entries"]["test/ssim"]["comparison"]["p"] is None
    assert study["rows"][2]["kind"] == "reference"
    assert study["rows"][2]["entries"]["test/elbo"]["mean"] is None
    assert study["baseline"] == "loss.beta=0"
    assert study["runs"][0]["metrics"]["test/ssim"] == 1 / 3
    assert {row["notes"][0] for row in study["rows"] if row["notes"]} == {"baseline"}


def test_json_says_more_from_ten_seeds_on(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [0, 1]}, seeds=tuple(range(10)), baseline={"loss.beta": 0})
    for beta in (0, 1):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, ssim=0.1 * seed + 0.45 * beta, lpips=0.2)
    (study,) = json.loads(Report((table_of(builder),)).to_json())["studies"]
    baseline, cell, reference = (row["many_seeds"] for row in study["rows"][:3])
    assert baseline["test/ssim"]["iqm"]["value"] == pytest.approx(0.45)
    assert baseline["test/ssim"]["probability_of_improvement"] is None
    assert cell["test/ssim"]["iqm"]["n"] == 10
    better = cell["test/ssim"]["probability_of_improvement"]
    assert better["value"] == sum(a + 4.5 > b for a in range(10) for b in range(10)) / 100
    assert better["low"] < better["value"] < better["high"]
    assert cell["test/kl"]["probability_of_improvement"] is None  # neither way is better
    assert reference == {}
    assert "run/minutes" not in cell


def test_json_keeps_the_keys_of_its_version(tmp_path):
    tree = json.loads(Report((table_of(beta_study(tmp_path / "study")),)).to_json())

    assert (tree["schema"], tree["version"]) == ("vae-sweep-report", 1)
    assert set(tree["studies"][0]) == {
        *("name", "question", "objective", "sampler", "axes", "seeds", "planned_cells", "runs_by_state", "baseline"),
        *("answers", "caption", "methods", "costs", "columns", "rows", "matrices", "equal_epochs", "runs"),
    }
    row = tree["studies"][0]["rows"][0]
    assert set(row) == {
        *("kind", "name", "trial", "params", "notes", "verdicts", "finished_runs", "planned_runs", "entries"),
        "many_seeds",
    }
    assert set(row["entries"]["test/elbo"]) == {"mean", "half_width", "n", "text", "best", "comparison"}
    comparison = {"difference", "low", "high", "effect", "p", "sign_flip_p", "n", "holds"}
    assert set(row["entries"]["test/elbo"]["comparison"]) == comparison


def test_numbers_that_json_has_no_word_for_are_null(tmp_path):
    table = table_of(of_runs(tmp_path, [{}]))
    table.rows[0].cell.runs[0].metrics["test/ssim"] = float("nan")

    (study,) = json.loads(Report((table,)).to_json())["studies"]

    assert study["runs"][0]["metrics"]["test/ssim"] is None


def test_several_studies_are_one_report(tmp_path):
    first = table_of(beta_study(tmp_path / "first"))
    second = table_of(of_runs(tmp_path, [{"accuracy": 0.5}], "second"))
    report = Report((first, second))

    assert report.to_markdown().count("\n# ") + 1 == 2
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["study"] for row in rows] == ["first"] * 4 + ["second"] * 2
    assert (rows[0]["test/accuracy mean"], rows[4]["test/accuracy mean"]) == ("", "0.5")
    runs = list(csv.DictReader(io.StringIO(report.runs_csv())))
    assert len(runs) == 7
    assert [study["name"] for study in json.loads(report.to_json())["studies"]] == ["first", "second"]
    assert report.to_latex().count(r"\label{tab:first}") == report.to_latex().count(r"\label{tab:second}") == 1
