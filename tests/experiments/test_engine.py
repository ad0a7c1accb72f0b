"""A sweep from the command line to its table: whole, repeated, stopped, killed, broken."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from support.engine import (
    all_weights,
    assert_same_weights,
    best_weights,
    expected_rows,
    journal_lines,
    mlflow_rows,
    mlflow_runs,
    optuna_trials,
)
from support.tiny import TINY

from tracking.heartbeat import process_is_alive
from vae_core.yaml_io import parse_yaml

COMMAND = [sys.executable, "-m", "experiments.cli"]
TIMEOUT_S = 120


def vae_sweep(*arguments, check=0, timeout_s=TIMEOUT_S):
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == check, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request):
    """The tiny sweep, run once with two local workers; tests copy what they change."""
    folder = tmp_path_factory.mktemp("finished")
    os.environ["VAE_SWEEP_CACHE"] = str(tmp_path_factory.getbasetemp() / "data-cache")
    sweep = folder / "tiny.yaml"
    sweep.write_text(TINY.lstrip())
    root = folder / "runs"
    output = vae_sweep("run", sweep, "--root", root, "--workers", 2)
    return sweep, root, output.stdout


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study that a test may spoil."""
    sweep, root, _ = finished
    shutil.copytree(root, tmp_path / "runs")
    return sweep, tmp_path / "runs"


def test_every_run_ends_once_and_the_table_is_printed(finished):
    _, root, output = finished
    runs = list((root / "tiny" / "runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        kinds = [line["kind"] for line in journal_lines(run)]
        assert kinds.count("epoch") == 3
        assert kinds[-1] == "end"
        assert best_weights(run)
    assert "loss.beta=0.1" in output
    assert "mean image" in output
    assert "PCA" in output
    assert f"vae-sweep ui --root {root}" in output
    assert (root / "tiny" / "report" / "table.md").read_text().count("|") > 20
    assert (root / "tiny" / "report" / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_and_optuna_hold_exactly_what_the_journals_say(finished):
    _, root, _ = finished
    rows = mlflow_rows(root)
    assert set(rows) == expected_rows(root / "tiny")
    assert set(rows.values()) == {1}
    names = [f"beta={beta} seed={seed}" for beta in ("0.1", "100.0") for seed in (0, 1)]
    assert mlflow_runs(root) == [(name, "FINISHED") for name in names]
    trials = optuna_trials(root, "tiny")
    assert [(number, state, params) for number, state, params, _, _ in trials] == [
        (0, "COMPLETE", {"loss.beta": 0.1}),
        (1, "COMPLETE", {"loss.beta": 100.0}),
    ]
    for _, _, _, value, curve in trials:
        assert set(curve) == {1, 2, 3}
        assert value is not None


def test_a_trials_value_is_the_mean_over_seeds_of_the_selected_metric(finished):
    _, root, _ = finished
    best = {}
    for run in (root / "tiny" / "runs").iterdir():
        info = json.loads((run / "run.json").read_text())
        [result] = [line for line in journal_lines(run) if line["kind"] == "result"]
        curve = {line["epoch"]: line["metrics"]["val/elbo"] for line in journal_lines(run) if line["kind"] == "epoch"}
        assert result["best_value"] == max(curve.values()) == curve[result["best_epoch"]]
        best.setdefault(info["trial"], []).append(result["best_value"])
    for number, _, _, value, _ in optuna_trials(root, "tiny"):
        assert value == pytest.approx(sum(best[number]) / 2, rel=1e-12)


def test_the_same_command_again_does_nothing_and_prints_the_same_table(copied, finished):
    sweep, root = copied
    before = {path: path.read_bytes() for path in (root / "tiny" / "runs").rglob("*") if path.is_file()}
    output = vae_sweep("run", sweep, "--root", root).stdout
    assert {path: path.read_bytes() for path in (root / "tiny" / "runs").rglob("*") if path.is_file()} == before
    table = re.findall(r"^.*loss\.beta=.*$", finished[2], re.MULTILINE)[-2:]
    assert table == re.findall(r"^.*loss\.beta=.*$", output, re.MULTILINE)[-2:]
    assert set(mlflow_rows(root).values()) == {1}


def test_the_inline_launcher_gives_the_same_weights(finished, tmp_path):
    sweep, root, _ = finished
    vae_sweep("run", sweep, "--root", tmp_path / "runs", "--launcher", "inline")
    assert_same_weights(all_weights(tmp_path / "runs" / "tiny"), all_weights(root / "tiny"))


def test_rebuild_makes_both_views_anew_the_same(copied):
    _, root = copied
    rows, runs, trials = mlflow_rows(root), mlflow_runs(root), optuna_trials(root, "tiny")
    table = (root / "tiny" / "report" / "table.md").read_text()
    (root / "mlflow.db").unlink()
    shutil.rmtree(root / "mlartifacts")
    (root / "optuna.journal").unlink()
    (root / "tiny" / "report" / "table.md").unlink()
    vae_sweep("rebuild", "tiny", "--root", root)
    assert (mlflow_rows(root), mlflow_runs(root), optuna_trials(root, "tiny")) == (rows, runs, trials)
    assert (root / "tiny" / "report" / "table.md").read_text() == table
    assert len(list((root / "mlartifacts").rglob("best.pt"))) == 4


def test_rebuild_of_a_study_killed_before_it_planned_a_run_leaves_that_run_out(copied):
    _, root = copied
    run = next((root / "tiny" / "runs").iterdir())
    shutil.rmtree(run)
    result = vae_sweep("rebuild", "tiny", "--root", root)
    assert "2 trials and 4 runs" in result.stdout
    children = [key for key in mlflow_runs(root) if run.name in str(key)]
    assert not children
    assert len(optuna_trials(root, "tiny")) == 2


def test_the_number_of_seeds_and_their_list_are_the_same_seeds(copied):
    sweep, root = copied
    vae_sweep("run", sweep, "--root", root, "--set", "seeds=[0, 1]")
    result = vae_sweep("run", sweep, "--root", root, "--set", "seeds=3", check=2)
    assert "seeds: [0, 1] -> [0, 1, 2]" in result.stderr


def test_a_study_stopped_before_its_coordinator_was_ready_stays_stopped(copied):
    _, root = copied
    study = root / "tiny"
    lines = (study / "trials.jsonl").read_text().splitlines(keepends=True)
    (study / "trials.jsonl").write_text(lines[0])  # there is something to do
    (study / "stop").touch()
    output = vae_sweep("coordinate", "tiny", "--root", root).stdout
    assert "tiny was stopped" in output
    assert (study / "trials.jsonl").read_text() == lines[0]


def test_secrets_of_setup_lines_stay_out_of_what_others_read(write_sweep, tmp_path):
    root, hidden = tmp_path / "runs", uuid.uuid4().hex
    options = ["seeds=1", "space.loss.beta=[0.1]", "train.epochs=1", f"launcher.slurm.environment.API_KEY={hidden}"]
    options += [f"launcher.slurm.setup=['export FOO_TOKEN={hidden}', 'module load cuda']"]
    options += [f"launcher.slurm.extra={{export: 'ALL,HF_TOKEN={hidden}', auth-key: {hidden}, exclusive: true}}"]
    words = [word for option in options for word in ("--set", option)]
    vae_sweep("run", write_sweep(), "--root", root, "--launcher", "inline", *words)
    with_secrets = [path for path in root.rglob("*") if path.is_file() and hidden.encode() in path.read_bytes()]
    assert with_secrets == [root / "tiny" / "launcher.json"]
    assert with_secrets[0].stat().st_mode & 0o077 == 0
    assert "module load cuda" in (root / "tiny" / "sweep.yaml").read_text()


def test_new_cells_are_added_and_vanished_ones_kept(copied):
    sweep, root = copied
    before = all_weights(root / "tiny")
    output = vae_sweep("run", sweep, "--root", root, "--set", "space.loss.beta=[0.1, 5.0]", "--set", "baseline={}")
    assert "loss.beta=100.0 (no longer in the sweep)" in (root / "tiny" / "report" / "table.md").read_text()
    assert "loss.beta=0.1 (no longer" not in output.stdout
    after = all_weights(root / "tiny")
    assert len(after) == 6
    assert_same_weights({run: after[run] for run in before}, before)
    assert [params["loss.beta"] for _, _, params, _, _ in optuna_trials(root, "tiny")] == [0.1, 100.0, 5.0]


def test_another_base_config_under_the_same_name_is_refused_with_the_difference(copied):
    sweep, root = copied
    result = vae_sweep("run", sweep, "--root", root, "--set", "optim.lr=0.5", check=2)
    assert "optim.lr: 0.002 -> 0.5" in result.stderr
    assert "--study NAME" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_coordinator_is_refused_and_told_who_holds_the_study(finished, copied):
    import fcntl

    sweep, root = copied
    with (root / "tiny" / "coordinator.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = vae_sweep("run", sweep, "--root", root, check=2)
    assert "another coordinator is running this study" in result.stderr
    assert '"pid":' in result.stderr


def test_status_and_report_read_the_files_alone(copied):
    _, root = copied
    (root / "mlflow.db").unlink()
    (root / "optuna.journal").unlink()
    assert "4 done" in vae_sweep("status", "tiny", "--root", root).stdout
    markdown = vae_sweep("report", "tiny", "--root", root, "--format", "md").stdout
    assert "| loss.beta=0.1" in markdown
    out = root / "table.csv"
    vae_sweep("report", "tiny", "--root", root, "--format", "csv", "-o", out)
    assert out.read_text().splitlines()[0].startswith("study,kind,name,trial,loss.beta")


def test_tpe_runs_to_its_number_of_trials(write_sweep, tmp_path):
    sweep = write_sweep()
    options = ["sampler=tpe", "trials=3", "space.loss.beta={low: 0.1, high: 10, log: true}", "seeds=1"]
    changes = [word for option in [*options, "train.epochs=1"] for word in ("--set", option)]
    vae_sweep("run", sweep, "--root", tmp_path / "runs", "--launcher", "inline", *changes)
    trials = optuna_trials(tmp_path / "runs", "tiny")
    assert [state for _, state, _, _, _ in trials] == ["COMPLETE"] * 3
    assert len({params["loss.beta"] for _, _, params, _, _ in trials}) == 3


def test_a_failing_run_is_recorded_with_its_reason_and_the_others_go_on(write_sweep, tmp_path):
    sweep = write_sweep()
    options = ["--set", "space.optim.lr=[1e-3, 1e30]", "--set", "seeds=1", "--set", "space.loss.beta=[0.1]"]
    root = tmp_path / "runs"
    result = vae_sweep("run", sweep, "--root", root, "--launcher", "inline", *options, check=1)
    assert re.search(r"nan: .*epoch 1 is not finite", result.stdout)
    assert [state for _, state, _, _, _ in optuna_trials(root, "tiny")] == ["COMPLETE", "FAIL"]
    assert sorted(status for _, status in mlflow_runs(root)) == ["FAILED", "FINISHED"]
    again = vae_sweep("run", sweep, "--root", root, "--launcher", "inline", *options, check=1)
    assert "not finite" in again.stdout
    for run in (root / "tiny" / "runs").iterdir():
        assert len(list((run / "attempts").iterdir())) == 1  # a failure of the run itself is not repeated


def test_a_single_training_is_a_study_of_its_own(tmp_path, write_sweep):
    changes = parse_yaml(TINY, "tiny")["set"]
    words = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    output = vae_sweep("train", "wireframes-tiny", "--root", tmp_path / "runs", *words)
    assert "base" in output.stdout
    assert len(all_weights(tmp_path / "runs" / "train-wireframes-tiny")) == 1


def start(sweep, root, *options, output=subprocess.DEVNULL):
    return subprocess.Popen(
        [*COMMAND, "run", str(sweep), "--root", str(root), *options],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def worker_pids(root):
    found = []
    for path in (root / "tiny" / "workers").glob("*.json"):
        try:
            who = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue
        if process_is_alive(who):
            found.append(who["pid"])
    return found


def end_workers(root):
    for pid in worker_pids(root):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_until(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited too long")


def epochs_written(root):
    return lines_written(root, "epoch")


def runs_ended(root):
    return lines_written(root, "end")


def lines_written(root, kind):
    return sum(
        f'"kind": "{kind}"' in line
        for run in (root / "tiny" / "runs").glob("*/attempts/*/journal.jsonl")
        for line in run.read_text().splitlines()
    )


def test_a_stop_writes_checkpoints_and_the_same_command_goes_on(finished, tmp_path):
    sweep, whole, _ = finished
    root = tmp_path / "runs"
    process = start(sweep, root, "--workers", "2", output=subprocess.PIPE)
    wait_until(lambda: epochs_written(root) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    assert "to go on: vae-sweep run" in output
    assert worker_pids(root) == []
    vae_sweep("run", sweep, "--root", root, "--workers", 2)
    assert_same_weights(all_weights(root / "tiny"), all_weights(whole / "tiny"))
    assert set(mlflow_rows(root).values()) == {1}


def chaos(sweep, root, rounds, seed):
    """Kill -9 the coordinator or a worker at random moments, each time starting the command again.

    Return how many of the rounds hit a sweep that still had work to do.
    """
    moments = random.Random(seed)
    in_mid_sweep = 0
    for _ in range(rounds):
        process = start(sweep, root, "--workers", "2", "--set", "launcher.max_retries=50")
        wait_until(lambda: bool(worker_pids(root)) or process.poll() is not None)  # noqa: B023 - called at once
        time.sleep(moments.uniform(0.0, 8.0))
        victims = [process.pid] if moments.random() < 0.5 else worker_pids(root)[:1]
        in_mid_sweep += runs_ended(root) < 4
        for pid in victims or [process.pid]:
            with contextlib.suppress(ProcessLookupError):  # it came to its end by itself
                os.kill(pid, signal.SIGKILL)
        time.sleep(moments.uniform(0.0, 1.5))
        process.kill()
        process.wait()
    vae_sweep("run", sweep, "--root", root, "--workers", 2, "--set", "launcher.max_retries=50")
    return in_mid_sweep


def assert_undisturbed(root, whole):
    assert_same_weights(all_weights(root / "tiny"), all_weights(whole / "tiny"))
    rows = mlflow_rows(root)
    assert set(rows.values()) == {1}
    assert rows == mlflow_rows(whole)
    assert mlflow_runs(root) == mlflow_runs(whole)
    assert optuna_trials(root, "tiny") == optuna_trials(whole, "tiny")


def test_two_rounds_of_kill_9_change_nothing(finished, tmp_path):
    sweep, whole, _ = finished
    try:
        assert chaos(sweep, tmp_path / "runs", rounds=2, seed=1) >= 1
        assert_undisturbed(tmp_path / "runs", whole)
    finally:
        end_workers(tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_rounds_of_kill_9_change_nothing(write_sweep, tmp_path, finished):
    sweep = finished[0]
    epochs = 300
    longer = ["--set", f"train.epochs={epochs}", "--set", "train.figures_every=50"]
    whole = tmp_path / "whole"
    vae_sweep("run", sweep, "--root", whole, "--workers", 2, *longer, timeout_s=5 * TIMEOUT_S)
    path = tmp_path / "tiny.yaml"
    path.write_text(
        Path(sweep).read_text().replace("train.epochs: 3", f"train.epochs: {epochs}\n  train.figures_every: 50")
    )
    try:
        assert chaos(path, tmp_path / "runs", rounds=20, seed=2) == 20
        assert_undisturbed(tmp_path / "runs", whole)
    finally:
        end_workers(tmp_path / "runs")
