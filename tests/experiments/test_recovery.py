"""What the coordinator does when machines, memory or workers fail."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rich.console import Console
from support.engine import all_weights, assert_same_weights, journal_lines, optuna_trials

from experiments.launchers import InlineLauncher, LocalLauncher
from experiments.runner import run_sweep
from experiments.sweep import load_sweep
from tracking.checkpoints import save_checkpoint
from tracking.heartbeat import process_identity
from tracking.queue import claims
from tracking.run_directory import StudyDirectory
from vae_core.evaluation import Evaluator
from vae_core.trainer import Trainer

ONE_RUN = ["seeds=1", "space.loss.beta=[0.1]"]


@pytest.fixture
def run_inline(write_sweep, tmp_path):
    """Return a function that runs the tiny sweep in this process: (exit code, what was printed)."""

    def run(*options, root=None):
        console = Console(file=io.StringIO(), width=140)
        sweep = load_sweep(str(write_sweep()), [*ONE_RUN, *options])
        code = run_sweep(sweep, root or tmp_path / "runs", console, "inline", None)
        return code, console.file.getvalue()

    return run


def only_run(root):
    [run] = (root / "tiny" / "runs").iterdir()
    return run


def fail_in_steps(monkeypatch, error, when):
    """Make the trainer raise `error` at every optimizer step for which `when(trainer)` holds."""
    take_step = Trainer._take_step

    def broken(self, indices):
        if when(self):
            raise error
        take_step(self, indices)

    monkeypatch.setattr(Trainer, "_take_step", broken)


def test_out_of_memory_is_tried_once_more_with_half_the_pixel_budget(run_inline, tmp_path, monkeypatch):
    full = 2**21
    fail_in_steps(
        monkeypatch, torch.OutOfMemoryError("too much"), lambda trainer: trainer.learner._pixel_budget == full
    )
    code, _ = run_inline()
    assert code == 0
    ends = [line for line in journal_lines(only_run(tmp_path / "runs")) if line["kind"] == "end"]
    assert [(line["in_attempt"], line["status"], line["failure"]) for line in ends] == [
        (0, "failed", "oom"),
        (1, "done", None),
    ]


def test_out_of_memory_again_is_a_failure_of_the_run(run_inline, tmp_path, monkeypatch):
    fail_in_steps(monkeypatch, torch.OutOfMemoryError("too much"), lambda _: True)
    code, output = run_inline()
    assert code == 1
    assert "oom: too much" in output
    ends = [line for line in journal_lines(only_run(tmp_path / "runs")) if line["kind"] == "end"]
    assert [line["pixel_budget_scale"] for line in ends] == [1.0, 0.5]
    assert [state for _, state, *_ in optuna_trials(tmp_path / "runs", "tiny")] == ["FAIL"]


def test_an_exception_is_journalled_with_its_traceback_and_not_repeated(run_inline, tmp_path, monkeypatch):
    fail_in_steps(monkeypatch, ZeroDivisionError("a bug"), lambda trainer: trainer.epoch == 1)
    code, output = run_inline()
    assert code == 1
    assert "exception: a bug" in output
    [end] = [line for line in journal_lines(only_run(tmp_path / "runs")) if line["kind"] == "end"]
    assert "ZeroDivisionError: a bug" in end["traceback"]
    assert "in broken" in end["traceback"]


def test_changed_data_is_refused_by_the_run_and_by_the_study(write_sweep, tmp_path):
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(20):
        pixels = torch.randint(0, 255, (16, 16), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(pictures / f"{index}.png")
    options = [*ONE_RUN, "data.source=folder", f"data.path={pictures}"]
    console = Console(file=io.StringIO(), width=140)
    sweep = load_sweep(str(write_sweep()), options)
    assert run_sweep(sweep, tmp_path / "runs", console, "inline", None) == 0
    Image.new("L", (16, 16), 128).save(pictures / "3.png")
    from vae_core.errors import UserError

    with pytest.raises(UserError, match=r"the data's fingerprint: [0-9a-f]+ -> [0-9a-f]+"):
        run_sweep(sweep, tmp_path / "runs", console, "inline", None)


def test_a_run_lost_too_often_without_a_checkpoint_is_given_up_and_says_so(run_inline, tmp_path, write_sweep):
    root = tmp_path / "runs"
    run_inline()
    run = only_run(root)
    for number in range(1, 4):  # attempts that died before they wrote a checkpoint
        (run / "attempts" / str(number)).mkdir()
    first = run / "attempts" / "0"
    lines = (first / "journal.jsonl").read_text().splitlines(keepends=True)
    (first / "journal.jsonl").write_text("".join(line for line in lines if json.loads(line)["n"] < 2))
    for path in (first / "checkpoints").iterdir():
        path.unlink()
    (root / "tiny" / "trials.jsonl").write_text(
        (root / "tiny" / "trials.jsonl").read_text().splitlines(keepends=True)[0]
    )
    for path in (root / "tiny" / "done").iterdir():
        path.unlink()
    code, output = run_inline("launcher.max_retries=2")
    assert code == 1
    assert "infrastructure: 3 attempts in a row were lost without a new checkpoint" in output
    ends = [line for line in journal_lines(run) if line["kind"] == "end"]
    assert [line["failure"] for line in ends] == ["infrastructure"]


def test_a_damaged_newest_checkpoint_falls_back_to_the_older_one(run_inline, tmp_path):
    whole_root = tmp_path / "whole"
    run_inline(root=whole_root)
    root = tmp_path / "runs"
    run_inline(root=root)
    run = only_run(root)
    first = run / "attempts" / "0"
    lines = (first / "journal.jsonl").read_text().splitlines(keepends=True)
    keep = [line for line in lines if json.loads(line)["kind"] not in ("result", "end")]
    (first / "journal.jsonl").write_text("".join(keep))
    (root / "tiny" / "trials.jsonl").write_text(
        (root / "tiny" / "trials.jsonl").read_text().splitlines(keepends=True)[0]
    )
    for path in (root / "tiny" / "done").iterdir():
        path.unlink()
    newest = max((first / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    code, _ = run_inline(root=root)
    assert code == 0
    [start] = [line for line in journal_lines(run) if line["kind"] == "attempt" and line["in_attempt"] == 1]
    assert start["continues"]["attempt"] == 0
    epochs = [line["epoch"] for line in journal_lines(run) if line["kind"] == "epoch" and line["in_attempt"] == 1]
    assert epochs == [3]
    assert_same_weights(all_weights(root / "tiny"), all_weights(whole_root / "tiny"))
    assert not [line for line in journal_lines(run) if line["kind"] == "divergence"]


def test_a_measurement_that_changes_between_attempts_is_journalled(run_inline, tmp_path):
    """An attempt that re-measures an epoch and finds another value says so."""
    root = tmp_path / "runs"
    run_inline(root=root)
    run = only_run(root)
    study = StudyDirectory(root / "tiny")
    first = run / "attempts" / "0"
    for path in (first / "checkpoints").iterdir():
        path.unlink()
    for path in study.done.iterdir():
        path.unlink()
    lines = [json.loads(line) for line in (first / "journal.jsonl").read_text().splitlines()]
    from tracking.journal import JournalWriter

    (first / "journal.jsonl").unlink()
    with JournalWriter(first / "journal.jsonl") as journal:
        for line in lines:
            fields = {key: value for key, value in line.items() if key not in ("n", "time_ms", "kind", "crc")}
            if line["kind"] == "epoch":
                fields["metrics"]["val/elbo"] += 1.0
            if line["kind"] in ("attempt", "epoch"):
                journal.append(line["kind"], **fields)
    (study.trials_file).write_text(study.trials_file.read_text().splitlines(keepends=True)[0])
    code, _ = run_inline(root=root)
    assert code == 0
    found = [line for line in journal_lines(run) if line["kind"] == "divergence"]
    assert [(line["epoch"], line["key"]) for line in found] == [(1, "val/elbo"), (2, "val/elbo"), (3, "val/elbo")]
    assert found[0]["before"] == found[0]["now"] + 1.0


def test_the_result_says_how_rough_the_whole_curve_was(run_inline, tmp_path):
    run_inline("train.epochs=5")
    lines = journal_lines(only_run(tmp_path / "runs"))
    losses = [line["metrics"]["train/objective"] for line in lines if line["kind"] == "epoch"]
    [result] = [line["metrics"] for line in lines if line["kind"] == "result"]
    assert len(losses) == 5
    assert result["train/roughness"] == pytest.approx(np.std(np.diff(losses, 2), ddof=1))


def test_an_evaluation_shows_that_it_is_alive(run_inline, tmp_path, monkeypatch):
    """Steps alone would make a long evaluation look like a stall."""
    advanced = []
    monkeypatch.setattr("tracking.heartbeat.Heartbeat.advance", lambda _: advanced.append(1))
    evaluate = Evaluator.evaluate
    during = []

    def counted(self, *arguments, **options):
        before = len(advanced)
        result = evaluate(self, *arguments, **options)
        during.append(len(advanced) - before)
        return result

    monkeypatch.setattr(Evaluator, "evaluate", counted)
    run_inline("train.epochs=1")
    val, test, *_ = during  # and then those of the table's reference rows
    assert min(val, test) >= 2


def test_a_suspended_worker_is_killed_and_its_run_goes_on(write_sweep, tmp_path):
    root = tmp_path / "runs"
    options = [*ONE_RUN, "launcher.stall_timeout_s=3.0", "train.epochs=6"]
    command = [
        sys.executable,
        "-m",
        "experiments.cli",
        "run",
        str(write_sweep()),
        "--root",
        str(root),
        "--workers",
        "1",
    ]
    command += [word for option in options for word in ("--set", option)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    study = StudyDirectory(root / "tiny")
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            held = [claim for claim in claims(study) if claim.owner] if study.claimed.is_dir() else []
            if held and list(root.glob("tiny/runs/*/attempts/0/checkpoints/*.pt")):
                break
            time.sleep(0.02)
        os.kill(held[0].owner["pid"], signal.SIGSTOP)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    attempts = {line["in_attempt"] for line in journal_lines(only_run(root))}
    assert attempts == {0, 1}


def test_the_presence_of_a_worker_killed_with_its_coordinator_is_cleared_away(tmp_path):
    study = StudyDirectory(tmp_path / "study")
    study.create()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (study.workers / "dead.json").write_text(
        json.dumps({**process_identity(), "pid": gone.pid, "start_time": "another/1"})
    )
    (study.workers / "elsewhere.json").write_text(json.dumps({**process_identity(), "host": "some-other-host"}))
    LocalLauncher(study, workers=1, threads=1, idle_timeout_s=1.0).request_stop()
    assert [path.name for path in study.workers.glob("*.json")] == ["elsewhere.json"]


def test_checkpoints_of_a_late_worker_do_no_harm(run_inline, tmp_path):
    """A worker of attempt 0 that writes on after the run has ended changes nothing that is read."""
    root = tmp_path / "runs"
    run_inline(root=root)
    before = all_weights(root / "tiny")
    run = StudyDirectory(root / "tiny").run(only_run(root).name)
    save_checkpoint(run.attempt(0), {"epoch": 99}, step=10**7, covers=3)
    code, _ = run_inline(root=root)
    assert code == 0
    assert_same_weights(all_weights(root / "tiny"), before)


def test_a_run_claimed_between_two_looks_at_the_folders_is_not_queued_again(run_inline, tmp_path, monkeypatch):
    """Whatever moves from queue/ to claimed/ while the coordinator looks is seen in one of them."""
    from experiments import coordinator
    from tracking.heartbeat import process_identity
    from tracking.queue import claim, claims

    listed, moved = coordinator.claims, []

    def claims_before_a_move(study):
        found = listed(study)
        if not moved and (other := claim(study, "other", process_identity())) is not None:
            study.run(other.entry.run).attempt(other.entry.attempt).create()
            moved.append(other)
        return found

    def stop_soon(self):
        if moved:
            self.request_stop()

    monkeypatch.setattr(coordinator, "claims", claims_before_a_move)
    monkeypatch.setattr(InlineLauncher, "pace", lambda _: itertools.repeat(None))  # nobody else takes the run
    monkeypatch.setattr(InlineLauncher, "wait", lambda *_, **__: True)
    look = coordinator.Coordinator._look
    monkeypatch.setattr(coordinator.Coordinator, "_look", lambda self: (look(self), stop_soon(self)))
    run_inline()
    study = StudyDirectory(tmp_path / "runs" / "tiny")
    assert len(moved) == 1
    assert [held.entry.attempt for held in claims(study)] == [0]
    assert list(study.queue.iterdir()) == []


def test_a_changed_data_path_reaches_runs_that_were_planned_before(run_inline, write_sweep, tmp_path):
    root = tmp_path / "runs"
    run_inline(root=root)
    run_inline("train.pixel_budget=1000", root=root)
    assert "pixel_budget: 1000" in (only_run(root) / "config.yaml").read_text()


def test_mlflow_says_which_code_ran(run_inline, tmp_path):
    import sqlite3

    run_inline()
    provenance = json.loads((tmp_path / "runs" / "tiny" / "provenance.json").read_text())
    connection = sqlite3.connect(tmp_path / "runs" / "mlflow.db")
    rows = connection.execute("SELECT value FROM tags WHERE key = 'vae_sweep.commit'").fetchall()
    connection.close()
    assert set(rows) == ({(provenance["commit"],)} if provenance["commit"] else set())


def test_a_proposal_that_the_config_refuses_is_a_failed_trial(write_sweep, tmp_path):
    axes = ["space.data.val_fraction={low: 0.1, high: 0.7}", "space.data.test_fraction={low: 0.1, high: 0.7}"]
    options = ["sampler=tpe", "trials=8", "seeds=1", "train.epochs=1", "baseline={}", *axes]
    path = write_sweep()
    path.write_text(path.read_text().replace("  loss.beta: [0.1, 100.0]\n", "  {}\n").replace("baseline", "# "))
    console = Console(file=io.StringIO(), width=140)
    run_sweep(load_sweep(str(path), options), tmp_path / "runs", console, "inline", None)
    states = [state for _, state, *_ in optuna_trials(tmp_path / "runs", "tiny")]
    assert len(states) == 8
    assert set(states) == {"COMPLETE", "FAIL"}
