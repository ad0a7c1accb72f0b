"""Coordinators that are not in this terminal: detached, watched, stopped, and in a job of their own."""

import signal
import subprocess
import sys

import pytest
from support.engine import all_weights, expected_rows, mlflow_rows, optuna_trials
from support.slurm import running_sandbox, slurm, squeue, wait_until
from support.slurm_sweeps import JOBS, LONG, options, vae_sweep

from experiments.study_files import lock_holder
from tracking.run_directory import StudyDirectory


def test_a_detached_coordinator_is_watched_to_its_table(write_sweep, tmp_path):
    root = tmp_path / "runs"
    settings = options({"seeds": 1, "train.epochs": 2})
    output = vae_sweep("run", write_sweep(), "--root", root, "--coordinator", "detached", *settings).stdout
    assert "its log is" in output
    assert f"vae-sweep attach tiny --root {root}" in output
    watched = vae_sweep("attach", "tiny", "--root", root).stdout
    assert "loss.beta=100.0 seed=0: done, epoch 2/2" in watched
    assert "mean image" in watched
    study = StudyDirectory(root / "tiny")
    assert set(mlflow_rows(root)) == expected_rows(study.path)
    assert "mean image" in (study.path / "coordinator.log").read_text()
    assert len(all_weights(study.path)) == 2


def test_watching_ends_with_ctrl_c_and_the_study_with_stop(write_sweep, tmp_path):
    root = tmp_path / "runs"
    settings = options(LONG, {"train.epochs": 400, "train.figures_every": 400})
    vae_sweep("run", write_sweep(), "--root", root, "--coordinator", "detached", *settings)
    study = StudyDirectory(root / "tiny")
    command = [sys.executable, "-m", "experiments.cli", "attach", "tiny", "--root", str(root)]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert next(line for line in watching.stdout if "running" in line)
        watching.send_signal(signal.SIGINT)
        output, _ = watching.communicate(timeout=30)
        assert watching.returncode == 130
        assert "The study goes on" in output
        assert lock_holder(study) is not None
        wait_until(lambda: list(study.runs.glob("*/attempts/0/checkpoints/*.pt")), "a checkpoint", timeout_s=60)
    finally:
        watching.kill()
        assert "Stopped." in vae_sweep("stop", "tiny", "--root", root).stdout
    assert lock_holder(study) is None
    assert not list(study.workers.glob("*.json"))
    journals = "".join(path.read_text() for path in study.runs.glob("*/attempts/0/journal.jsonl"))
    assert '"kind": "interrupted"' in journals


@pytest.mark.slow
def test_a_coordinator_that_is_a_job_survives_a_requeue(write_sweep, tmp_path):
    with running_sandbox():
        root, sweep = tmp_path / "runs", write_sweep()
        settings = options(JOBS, {"seeds": 1, "train.epochs": 200, "train.figures_every": 200})
        elsewhere = ["--launcher", "slurm", "--allow-dirty", "--coordinator", "job"]
        assert "The coordinator is job" in vae_sweep("run", sweep, "--root", root, *elsewhere, *settings).stdout
        study = StudyDirectory(root / "tiny")
        wait_until(lambda: list(study.runs.glob("*/attempts/0/checkpoints/*.pt")), "a checkpoint", timeout_s=60)
        [coordinator] = [job for job in squeue() if job.name.endswith("-coordinator")]
        slurm("scontrol", "requeue", coordinator.id)
        watched = vae_sweep("attach", "tiny", "--root", root).stdout
        assert "mean image" in watched
        assert [state for _, state, *_ in optuna_trials(root, "tiny")] == ["COMPLETE"] * 2
        assert set(mlflow_rows(root).values()) == {1}
