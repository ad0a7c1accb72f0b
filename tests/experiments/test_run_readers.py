"""Runs that several processes read."""

import pytest
from support.study_builder import StudyBuilder

from experiments import run_readers
from experiments.results import collect
from vae_core.errors import UserError


@pytest.fixture
def study(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0]}, seeds=(0, 1, 2))
    first, second, _ = (builder.cell(loss__beta=beta) for beta in (1.0, 2.0, 3.0))
    for place, run in enumerate(first):
        builder.done(run, elbo=-1.0 / (3 + place), artifacts={"best.pt": "artifacts/best.pt"}, gpus=0.5)
    builder.failed(second[0], "oom", "caf\udce9 ran out")  # as a file name that is no UTF-8 would be read
    builder.pruned(second[1])
    builder.running(second[2])
    return builder.study


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(run_readers, "_RUNS_PER_PROCESS", 3)
    monkeypatch.setattr(run_readers, "usable_cores", lambda: 2)


def must_not_read(*_):
    raise AssertionError("read in this process")


def test_several_processes_read_what_one_reads_in_the_same_order(study, processes, monkeypatch):
    with monkeypatch.context() as alone:
        alone.setattr(run_readers, "usable_cores", lambda: 1)
        expected = collect(study)
    monkeypatch.setattr(run_readers, "read_run", must_not_read)

    found = collect(study)

    assert found == expected
    assert [run.state for run in found.runs] == ["done"] * 3 + ["failed", "pruned", "running"] + ["waiting"] * 3


@pytest.mark.parametrize(("cores", "worth"), [(1, 3), (2, 5)])
def test_one_core_or_few_runs_start_no_process(study, processes, monkeypatch, cores, worth):
    monkeypatch.setattr(run_readers, "usable_cores", lambda: cores)
    monkeypatch.setattr(run_readers, "_RUNS_PER_PROCESS", worth)
    monkeypatch.setattr(run_readers, "called_elsewhere", must_not_read)

    assert len(collect(study).runs) == 9


def test_a_file_that_cannot_be_read_is_named(study, processes):
    study.run("run1x1").info_file.write_text("{torn")

    with pytest.raises(UserError, match=r"run1x1/run\.json"):
        collect(study)
