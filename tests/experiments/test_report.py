"""The ablation table: its numbers against SciPy, its sentences, and what it says of missing runs."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from support.study_builder import CONFIG, FINGERPRINT, StudyBuilder, beta_study

from experiments.ablation import tabulate
from experiments.markdown_table import escaped
from experiments.references import ReferenceRow, References
from experiments.report import Report, build
from experiments.results import collect

REFERENCES = References(
    (
        ReferenceRow("mean image", None, {"test/elbo": -50.0, "test/mse": 0.04, "test/ssim": 0.2, "test/kl": 0.0}),
        ReferenceRow("PCA, 4 components", 4, {"test/mse": 0.005, "test/ssim": 0.6}),
    ),
    (0.04, 0.03, 0.02, 0.01, 0.005),
)


def report_of(builder, references=REFERENCES, **options):
    return Report((tabulate(builder.study, collect(builder.study), references, **options),))


def shown(report, width=110):
    console = Console(width=width, file=io.StringIO())
    console.print(report.to_console())
    return console.file.getvalue()


def markdown_rows(report, place=0):
    """Return a table of the Markdown, the main one by default."""
    tables = [part for part in report.to_markdown().split("\n\n") if part.startswith("|")]
    lines = tables[place].splitlines() if tables else []
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(found[0], row, strict=True)) for row in found[2:]]


def csv_rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_roughness_is_a_column_where_the_size_of_the_batches_is_swept(tmp_path):
    batches = StudyBuilder(tmp_path / "batches", {"train.effective_batch": [8, 16]})
    for size, roughness in ((8, 2.0), (16, 1.0)):
        for run in batches.cell(train__effective_batch=size):
            batches.done(run, **{"train/roughness": roughness})
    rows = markdown_rows(report_of(batches))
    assert [row["roughness ↓"] for row in rows] == ["2.00 ± 0.00", "1.00 ± 0.00", "–", "–"]
    assert "roughness: standard deviation of the second difference" in report_of(batches).to_markdown()

    betas = report_of(beta_study(tmp_path / "beta"))
    assert "roughness" not in betas.to_markdown()


def test_the_roughness_of_different_objectives_is_not_ranked(tmp_path):
    both = StudyBuilder(tmp_path / "both", {"train.effective_batch": [8, 16], "loss.beta": [1.0, 2.0]})
    for size in (8, 16):
        for beta in (1.0, 2.0):
            for run in both.cell(train__effective_batch=size, loss__beta=beta):
                both.done(run, **{"train/roughness": size * beta})
    assert "roughness (not comparable)" in markdown_rows(report_of(both))[0]


def test_every_cell_and_reference_is_a_row_of_means_and_intervals(tmp_path):
    rows = markdown_rows(report_of(beta_study(tmp_path / "beta")))

    assert [row["cell"] for row in rows] == [
        "loss.beta=0.1",
        "loss.beta=1.0 (baseline)",
        "loss.beta=100.0",
        "mean image",
        "PCA, 4 components",
    ]
    half_width = stats.t.ppf(0.975, 1) * np.std([-10, -9], ddof=1) / np.sqrt(2)
    assert rows[0]["ELBO ↑"] == f"-9.5 ± {half_width:.1f}"
    assert rows[2]["verdict"] == "full 2/2"
    assert rows[0]["n"] == "2"
    assert rows[0]["AU"] == "4 ± 0"
    assert rows[3]["ELBO ↑"] == "-50.0"
    assert rows[4]["MSE ↓"] == "0.00500"
    assert rows[4]["ELBO ↑"] == rows[4]["verdict"] == "–"


def test_pca_has_as_many_components_as_each_runs_active_units(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]})
    for runs, units in ((builder.cell(loss__beta=1.0), (4, 2)), (builder.cell(loss__beta=2.0), (0, 1))):
        for run, count in zip(runs, units, strict=True):
            builder.done(run, active_units=count)

    rows = csv_rows(report_of(builder).to_csv())

    assert float(rows[0]["pca_au/mse mean"]) == pytest.approx((0.005 + 0.02) / 2)
    assert float(rows[1]["pca_au/mse mean"]) == pytest.approx((0.04 + 0.03) / 2)
    assert rows[2]["pca_au/mse mean"] == ""


@pytest.mark.parametrize(
    ("path", "values"), [("model.family", ["vae", "ae", "vq"]), ("model.bottleneck", ["vector", "spatial"])]
)
def test_pca_does_not_stand_beside_codes_of_another_size(tmp_path, path, values):
    builder = StudyBuilder(tmp_path / "study", {path: values})
    for value in values:
        for run in builder.cell(**{path.replace(".", "__"): value}):
            builder.done(run)
    report = report_of(builder)
    assert [row["PCA(AU) MSE"] for row in markdown_rows(report)[: len(values)]] == ["0.01000", "–", "–"][: len(values)]
    assert "as the cell's runs have active units; none beside ae, vq and spatial latents" in report.to_markdown()
    assert "none beside" not in report_of(beta_study(tmp_path / "beta")).to_markdown()


def test_pca_of_the_base_data_does_not_stand_beside_cells_of_other_data(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"data.width": [16, 32]})
    for width, fingerprint in ((16, FINGERPRINT), (32, "0" * 16)):
        builder.fingerprint = fingerprint
        for run in builder.cell(data__width=width):
            builder.done(run)

    report = report_of(builder)

    assert [row["PCA(AU) MSE"] for row in markdown_rows(report)[:2]] == ["0.01000", "–"]
    assert "Cells see different images or splits" in report.to_markdown()
    assert "highest mean" not in report.to_markdown()


def test_csv_has_full_precision_and_one_row_per_cell_and_per_run(tmp_path):
    report = report_of(beta_study(tmp_path / "study"))
    cells, runs = csv_rows(report.to_csv()), csv_rows(report.runs_csv())

    assert [row["kind"] for row in cells] == ["cell"] * 3 + ["reference"] * 2
    values = [float(row["test/mse"]) for row in runs if row["loss.beta"] == "0.1"]
    assert values == [0.004, 0.0041]
    assert float(cells[0]["test/mse mean"]) == pytest.approx(np.mean(values), rel=1e-12)
    assert float(cells[0]["test/mse half_width"]) == pytest.approx(
        stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / np.sqrt(2), rel=1e-9
    )
    assert (cells[1]["loss.beta"], cells[1]["baseline"], cells[1]["verdicts"]) == ("1.0", "True", "none:2")
    assert len(runs) == 6
    assert (runs[5]["seed"], runs[5]["verdict"], runs[5]["parameters"]) == ("1", "full", "1234")


def test_errors_too_small_for_the_decimals_of_their_column_are_no_zeros_in_any_form(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]}, baseline={"loss.beta": 1.0})
    for beta in (1.0, 2.0):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, mse=(2 * beta + 0.01 * seed + 0.001 * beta * seed) * 1e-8)
    report = report_of(builder)

    assert [row["MSE ↓"] for row in markdown_rows(report)[:2]] == ["**2.005e-08 ± 7.0e-10**", "4.006e-08 ± 7.6e-10 *"]
    differences = report.to_markdown().partition("difference to the baseline")[2]
    assert "+2.000e-08 [+" in differences
    assert r"2.005\times 10^{-8}" in report.to_latex()
    assert "<b>+2.000e−08</b>" in report.to_html()


def test_failed_and_missing_runs_and_cells_are_counted_and_named(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0]})
    first, second = builder.cell(loss__beta=1.0), builder.cell(loss__beta=2.0)
    builder.done(first[0])
    builder.failed(first[1], "nan", "val/elbo is nan\nsecond line")
    builder.running(second[0])

    report = report_of(builder)
    text, rows = report.to_markdown(), markdown_rows(report)

    assert (rows[0]["n"], rows[0]["verdict"], rows[0]["ELBO ↑"]) == ("1/2", "none 1/1", "-20.0")
    assert (rows[1]["n"], rows[1]["verdict"], rows[1]["ELBO ↑"]) == ("0/2", "–", "–")
    assert "Incomplete, 4 runs: 1 done, 1 failed, 1 running, 1 waiting." in text
    assert "loss.beta=1.0 seed=1 failed (nan: val/elbo is nan)" in text
    assert "loss.beta=2.0 seed=0 running, epoch 1; loss.beta=2.0 seed=1 waiting" in text
    assert "2 of 3 cells have been started" in text
    states = [(row["state"], row["failure"]) for row in csv_rows(report.runs_csv())]
    assert states[1] == ("failed", "nan: val/elbo is nan\nsecond line")
    counts = csv_rows(report.to_csv())[0]
    assert (counts["done"], counts["failed"]) == ("1", "1")


def test_a_long_list_of_missing_runs_ends_with_their_number(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": list(range(20))}, seeds=(0,))
    for beta in range(20):
        builder.cell(loss__beta=beta)

    assert "loss.beta=11 seed=0 waiting; and 8 more." in report_of(builder).to_markdown()


def test_a_study_without_any_trial_is_an_empty_table(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]})

    report = report_of(builder, References())

    assert markdown_rows(report) == []
    assert "0 of 1 cells have been started" in shown(report)


def test_seeds_that_disagree_are_counted_by_verdict(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, seeds=(0, 1, 2))
    for run, verdict in zip(builder.cell(loss__beta=1.0), ("none", "partial", "none"), strict=True):
        builder.done(run, verdict=verdict)

    assert markdown_rows(report_of(builder))[0]["verdict"] == "none 2, partial 1"


def test_one_seed_shows_means_alone_and_the_caption_says_so(tmp_path):
    report = report_of(beta_study(tmp_path / "study", seeds=(5,)))

    assert markdown_rows(report)[0]["ELBO ↑"] == "-10.0"
    assert "seed 5); one seed: no interval" in report.to_markdown()


def test_before_the_first_result_the_caption_says_so(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]})
    for run in builder.cell(loss__beta=1.0):
        builder.failed(run)

    assert "Means over seeds (seeds 0, 1); no run is finished yet." in report_of(builder).to_markdown()


def test_a_study_without_any_trial_says_so(tmp_path):
    assert (
        "No run has been planned yet."
        in report_of(StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]})).to_markdown()
    )


def test_a_mean_of_fewer_runs_than_are_finished_is_named(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1, 10]}, seeds=(0, 1, 2))
    for beta in (1, 10):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, **({"fid": 3.0} if seed == 0 or beta == 1 else {}))

    named = report_of(builder, metrics=["ssim", "fid"]).to_markdown()
    assert "- Means of fewer runs than n: fid of loss.beta=10: 1 of 3 runs." in named
    assert "fewer runs than n" not in report_of(builder).to_markdown()


def test_the_caption_names_selection_likelihood_images_and_seeds(tmp_path):
    text = report_of(beta_study(tmp_path / "study")).to_markdown()

    assert "seeds 0, 1" in text
    assert "half the 95% Student t interval" in text
    assert "N = 5 test images" in text
    assert "the epoch with the best val/elbo" in text
    assert "evaluation likelihood gaussian, its one scale fitted on training reconstructions" in text
    assert "of 4 dimensions" in text


def test_lpips_is_a_column_only_where_a_run_measured_it(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]})
    runs = builder.cell(loss__beta=1.0)
    builder.done(runs[0], lpips_tag="missing: no weights found")
    without = report_of(builder)
    builder.done(runs[1], lpips=0.25)
    with_one = report_of(builder)

    assert "LPIPS ↓" not in markdown_rows(without)[0]
    assert "No LPIPS: missing: no weights found." in without.to_markdown()
    assert "LPIPS ↓" not in shown(without)
    assert markdown_rows(with_one)[0]["LPIPS ↓"] == "0.250"
    assert "LPIPS of 1 of 2 runs; of the others: missing: no weights found." in with_one.to_markdown()


def test_cells_that_are_only_augmented_differently_are_ranked(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"data.augment.rotation_degrees": [0.0, 5.0]})
    for degrees in (0.0, 5.0):
        for run in builder.cell(data__augment__rotation_degrees=degrees):
            builder.done(run, elbo=-degrees)
    text = report_of(builder).to_markdown()
    assert "not comparable" not in text
    assert "highest mean test ELBO, 0, is at data.augment.rotation_degrees = 0" in text
    assert "N = 5 test images" in text


def test_elbos_that_mean_different_things_are_not_ranked_and_the_table_says_what_they_are(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"model.family": ["vae", "ae"]})
    for family, tags in (("vae", {}), ("ae", {"elbo": "no bound but -reconstruction"})):
        for run in builder.cell(model__family=family):
            builder.done(run, tags=tags)
    report = report_of(builder)
    assert "ELBO (not comparable)" in markdown_rows(report)[0]
    assert "some are a bound; some are no bound but -reconstruction" in report.to_markdown()
    assert "highest mean test ELBO" not in report.to_markdown()
    assert "The mean test SSIM is the same in all 2 cells, 0.5." in report.to_markdown()


def test_elbos_of_different_likelihoods_are_called_not_comparable_and_not_ranked(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"evaluate.likelihood": ["gaussian", "bernoulli"]})
    for likelihood in ("gaussian", "bernoulli"):
        for run in builder.cell(evaluate__likelihood=likelihood):
            builder.done(run)

    report = report_of(builder)

    assert "ELBO (not comparable)" in markdown_rows(report)[0]
    assert "reconstruction (not comparable)" in markdown_rows(report)[0]
    assert "different evaluation likelihoods are not comparable" in report.to_markdown()
    assert "highest mean test ELBO" not in report.to_markdown()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_terminal_shows_every_number_at_any_usual_width(tmp_path, width):
    report = report_of(beta_study(tmp_path / "study"))

    text = shown(report, width)

    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for row in markdown_rows(report)[:3]:
        assert row["cell"].split()[0] in text
        for number in " ".join(list(row.values())[1:-2]).replace("±", " ").split():
            assert number in text
    assert sum(line.startswith("  loss.beta=100.0") for line in text.splitlines()) == (2 if width == 80 else 1)
    assert "Every seed collapses at loss.beta = 100" in text


@pytest.mark.parametrize(
    ("path", "metrics", "remark", "first"),
    [
        ("loss.beta", None, "2 cells best in ELBO, of 3", "loss.beta=3"),
        ("loss.beta", ["kl"], "The first 2 cells, of 3: no column", "loss.beta=1"),
        ("evaluate.scale_images", None, "2 cells best in SSIM, of 3", "evaluate.scale_images=2"),
        ("evaluate.scale_images", ["elbo"], "The first 2 cells, of 3: no column", "evaluate.scale_images=1"),
    ],
)
def test_the_terminal_shows_the_best_of_a_search_by_what_may_be_ranked(
    tmp_path, monkeypatch, path, metrics, remark, first
):
    monkeypatch.setattr("experiments.report.MOST_CELLS", 2)
    monkeypatch.setattr("experiments.report._MOST_SHOWN", 2)
    builder = StudyBuilder(tmp_path / "study", {path: [1, 2, 3]}, seeds=(0,))
    for value, ssim in ((1, 0.5), (2, 0.6), (3, 0.4)):
        builder.done(builder.cell(**{path: value})[0], elbo=value, ssim=ssim)

    lines = shown(report_of(builder, metrics=metrics)).splitlines()

    assert remark in "\n".join(lines)
    assert next(line for line in lines if line.lstrip().startswith(path)).lstrip().startswith(first)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.beta=4.0, model.latent_dim=8", "loss.beta=4.0, model.latent_dim=8"),
        ("-9.9 [5.91, 7.71], p < 0.001, 3 * 4, a~b", "-9.9 [5.91, 7.71], p < 0.001, 3 * 4, a~b"),
        ("*bold*_it_", r"\*bold\*\_it\_"),
        ("<script>alert(1)</script>", r"\<script>alert(1)\</script>"),
        ("`t` a|b ~~no~~ &amp;", r"\`t\` a\|b \~\~no\~\~ \&amp;"),
        ("[a](b) ![c][d]", r"\[a](b) \!\[c][d]"),
        ("# one\ntwo", r"\# one two"),
        (r"C:\data\*", r"C:\data\\\*"),
    ],
)
def test_markdown_shows_texts_as_they_are_and_escapes_no_more(text, expected):
    assert escaped(text) == expected


def test_build_measures_the_references_of_the_studys_own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "cache"))
    config = {**CONFIG, "evaluate": {**CONFIG["evaluate"], "lpips": "off"}}
    builder = StudyBuilder(tmp_path / "study", {"model.latent_dim": [2, 3]}, config=config)
    (builder.study.path / "data.json").unlink()
    for dims in (2, 3):
        for run in builder.cell(model__latent_dim=dims):
            builder.done(run, active_units=dims, lpips_tag="off")
            (builder.study.run(run).info_file).unlink()

    report = build(builder.study)
    (table,) = report.tables

    assert [row.name for row in table.references.rows] == ["mean image", "PCA, 2 components", "PCA, 3 components"]
    rows = csv_rows(report.to_csv())
    assert float(rows[0]["pca_au/mse mean"]) == table.references.rows[1].metrics["test/mse"]
    assert "switched off by evaluate.lpips" in report.to_markdown()
    assert (builder.study.path / "references.json").is_file()
