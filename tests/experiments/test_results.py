"""What `collect` reads from a study's folder."""

import subprocess
import sys

import pytest
from support.study_builder import StudyBuilder, beta_study

from experiments.baselines import chosen_baseline
from experiments.results import collect
from experiments.sweep import stored_sweep
from vae_core.errors import UserError
from vae_core.yaml_io import dump_yaml, load_yaml


def test_a_finished_study_has_every_cell_and_every_seed_in_the_order_of_the_ledger(tmp_path):
    results = collect(beta_study(tmp_path / "study").study)

    assert [cell.params["loss.beta"] for cell in results.cells] == [0.1, 1.0, 100.0]
    assert [[run.seed for run in cell.runs] for cell in results.cells] == [[0, 1]] * 3
    assert results.cells[0].values("test/elbo") == [-10.0, -9.0]
    assert results.cells[2].verdicts == {"full": 2}
    assert [cell.is_baseline for cell in results.cells] == [False, True, False]
    assert results.counts() == {"done": 6}
    assert results.planned == 3
    run = results.cells[0].runs[1]
    assert (run.best_epoch, run.epochs, run.parameters, run.seconds, run.lpips) == (2, 2, 1234, 3.0, "measured")


def test_failed_running_and_waiting_runs_are_kept_with_what_is_known_of_them(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0]})
    first, second = builder.cell(loss__beta=1.0), builder.cell(loss__beta=2.0)
    builder.done(first[0])
    builder.failed(first[1], "oom", "out of memory")
    builder.running(second[0])

    results = collect(builder.study)

    assert [run.state for run in results.runs] == ["done", "failed", "running", "waiting"]
    failed, running, waiting = results.runs[1:]
    assert failed.failure == "oom: out of memory"
    assert failed.metrics == {}
    assert running.epochs == 1
    assert waiting.epochs == 0
    assert len(results.measured) == 1
    assert results.planned == 3


def test_a_run_without_a_folder_is_waiting(tmp_path):
    builder = beta_study(tmp_path / "study")
    runs = builder.study.path / "runs"
    (runs / "run1x0").rename(tmp_path / "gone")

    assert collect(builder.study).cells[1].runs[0].state == "waiting"


def test_a_result_without_an_end_does_not_count(tmp_path):
    builder = beta_study(tmp_path / "study")
    journal = builder.study.run("run0x0").attempt(0).journal_file
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))

    run = collect(builder.study).cells[0].runs[0]

    assert (run.state, run.metrics, run.verdict) == ("waiting", {}, None)


def test_cells_of_values_taken_off_the_axis_are_kept_and_planned(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]})
    builder.cell(loss__beta=7.0)

    results = collect(builder.study)

    assert [cell.params["loss.beta"] for cell in results.cells] == [7.0]
    assert results.planned == 3


def test_a_study_from_before_there_were_named_cells_is_read_as_it_was(tmp_path):
    builder = beta_study(tmp_path / "study")
    before = collect(builder.study)
    keys = load_yaml(builder.study.sweep_file)
    del keys["cells"], keys["axes"]
    builder.study.sweep_file.write_text(dump_yaml(keys))
    assert collect(builder.study) == before
    assert stored_sweep(builder.study.sweep_file).grid() == [{"loss.beta": beta} for beta in (0.1, 1.0, 100.0)]


@pytest.mark.parametrize(
    ("space", "cells", "axis"),
    [
        ({"loss.beta": [1, 2.5]}, [{"loss__beta": 1}, {"loss__beta": 2.5}], "loss.beta"),
        ({"model.cbam": [True, False]}, [{"model__cbam": True}, {"model__cbam": False}], None),
        ({"model.block": ["a", "b"]}, [{"model__block": "a"}], None),
        ({"loss.beta": [1], "optim.lr": [0.1]}, [{"loss__beta": 1, "optim__lr": 0.1}], None),
    ],
)
def test_only_a_single_axis_of_numbers_is_numeric(tmp_path, space, cells, axis):
    builder = StudyBuilder(tmp_path / "study", space)
    for params in cells:
        builder.cell(**params)

    assert collect(builder.study).numeric_axis == axis


def test_true_and_one_are_two_values_of_which_one_is_the_baseline(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"model.cbam": [True, 1]}, baseline={"model.cbam": True})
    for value in (True, 1):
        builder.cell(model__cbam=value)

    results = collect(builder.study)

    assert [cell.is_baseline for cell in results.cells] == [True, False]
    assert chosen_baseline(results, "model.cbam=1") is results.cells[1]


def test_a_study_without_a_sweep_file_is_refused(tmp_path):
    builder = beta_study(tmp_path / "study")
    builder.study.sweep_file.unlink()

    with pytest.raises(UserError, match=r"sweep\.yaml"):
        collect(builder.study)


def test_reading_results_and_cached_reports_imports_no_torch():
    code = (
        "import sys, experiments.results, experiments.report\n"
        "print({'torch', 'mlflow', 'optuna', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "set()"
