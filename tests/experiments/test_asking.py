"""Stop, retry and prune as people give them, and what becomes of the runs, the trials and both views."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from PIL import Image
from support.engine import expected_rows, journal_lines, mlflow_rows, mlflow_runs, optuna_trials
from support.fake_slurm import FakeSlurm
from support.planned import planned, run_inline
from support.study_builder import StudyBuilder

from experiments import asking, attach, inbox
from experiments import study as study_module
from experiments.inbox import Request, ask, requests
from experiments.ledger import read_trials
from experiments.study import coordinator_lock
from experiments.submitting import keep_launcher
from experiments.sweep_file import LauncherConfig
from experiments.worker import Worker, presence_file
from tracking.files import read_json
from tracking.heartbeat import process_identity
from tracking.queue import queued
from tracking.run_directory import StudyDirectory

ONE_SEED = "seeds=1"


@pytest.fixture
def vae_sweep(printed_by):
    """Give a command line; return what was printed, whose lines are broken to fit, as one line."""
    return lambda *arguments, check=0: " ".join(printed_by(*arguments, check=check).split())


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def states(root):
    """Return the trials' states, on which ledger and Optuna agree, and the statuses of their runs in MLflow."""
    trials = read_trials(StudyDirectory(root / "tiny"))
    ledger = [(trial.number, trial.state, trial.params, trial.value, trial.reports) for trial in trials]
    assert optuna_trials(root, "tiny") == ledger
    found = mlflow_runs(root)
    statuses = dict(found)
    assert len(statuses) == len(found) == sum(len(trial.runs) for trial in trials)
    return [trial.state for trial in trials], [statuses[f"{short(trial.cell)} seed=0"] for trial in trials]


def short(cell):
    """Return `beta=0.1 lr=0.001` for `loss.beta=0.1 optim.lr=0.001`, as MLflow names runs."""
    return re.sub(r"\w+\.(?=\w+=)", "", cell)


def kinds(study, run, attempt):
    return [line["kind"] for line in journal_lines(study.run(run).path) if line["in_attempt"] == attempt]


def told(study):
    return [json.loads(line)["state"] for line in study.trials_file.read_text().splitlines() if '"tell"' in line]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(20):
        pixels = torch.randint(0, 255, (16, 16), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    return folder


def test_a_run_that_failed_for_want_of_its_data_is_trained_and_told_anew(
    write_sweep, root, pictures, tmp_path, vae_sweep
):
    sweep = write_sweep()
    options = [ONE_SEED, "space.loss.beta=[0.1]", "data.source=folder", f"data.path={pictures}"]
    study = planned(sweep, root, *options)
    pictures.rename(tmp_path / "mislaid")
    for _ in Worker(study, "w", 0.1).work():
        pass
    (tmp_path / "mislaid").rename(pictures)
    assert run_inline(sweep, root, *options)[0] == 1
    assert states(root) == (["FAIL"], ["FAILED"])
    assert "failed (data: data.path: " in (study.report / "table.md").read_text()  # the reason is cut where it is long

    said = vae_sweep("retry", "tiny", "--root", root)
    assert "1 run will be tried again, when vae-sweep run goes on with tiny (1 request in the inbox)" in said
    assert run_inline(sweep, root, *options)[0] == 0
    [run] = study.run_ids()
    assert kinds(study, run, 0) == ["attempt", "end"]
    assert kinds(study, run, 1)[-1] == "end"
    assert told(study) == ["FAIL", "COMPLETE"]
    assert states(root) == (["COMPLETE"], ["FINISHED"])
    assert requests(study) == []
    assert "failed" not in (study.report / "table.md").read_text()
    assert "no such run has failed" in vae_sweep("retry", "tiny", "--root", root, check=2)


def test_a_run_that_fails_again_is_not_tried_a_third_time_and_the_others_not_a_second(write_sweep, root, vae_sweep):
    sweep = write_sweep()
    options = [ONE_SEED, "space.optim.lr=[1e-3, 1e30]", "space.loss.beta=[0.1]", "train.epochs=1"]
    study = planned(sweep, root, *options)
    good, bad = (trial.runs[0][0] for trial in read_trials(study))
    assert run_inline(sweep, root, *options)[0] == 1
    vae_sweep("retry", "tiny", "--root", root)
    for _ in range(2):
        assert run_inline(sweep, root, *options)[0] == 1
        assert (study.run(good).attempts(), study.run(bad).attempts()) == ([0], [0, 1])
    assert states(root) == (["COMPLETE", "FAIL"], ["FINISHED", "FAILED"])
    assert told(study) == ["COMPLETE", "FAIL", "FAIL"]
    assert vae_sweep("attach", "tiny", "--root", root, check=1).count("loss.beta=0.1 optim.lr") >= 2


def test_a_waiting_run_that_is_pruned_is_counted_so_and_can_be_had_back(write_sweep, root, vae_sweep):
    sweep = write_sweep()
    options = [ONE_SEED, "train.epochs=1"]
    study = planned(sweep, root, *options)
    said = vae_sweep("prune", "tiny", "loss.beta=100.0 seed=0", "--root", root)
    assert "1 run will end after the next optimizer step, when vae-sweep run goes on with tiny" in said
    assert run_inline(sweep, root, *options)[0] == 0
    pruned = read_trials(study)[1].runs[0][0]
    assert kinds(study, pruned, 0) == ["attempt", "end"]
    assert states(root) == (["COMPLETE", "PRUNED"], ["FINISHED", "KILLED"])
    assert "1 done, 1 pruned" in vae_sweep("status", "tiny", "--root", root)
    assert "loss.beta=100.0" in vae_sweep("attach", "tiny", "--root", root)
    assert "these runs have all ended" in vae_sweep("prune", "tiny", pruned, "--root", root, check=2)
    assert "no such run has failed;" in vae_sweep("retry", "tiny", "--root", root, check=2)  # pruned on purpose

    vae_sweep("retry", "tiny", pruned[:8], "--root", root)
    assert run_inline(sweep, root, *options)[0] == 0
    assert kinds(study, pruned, 1)[-1] == "end"
    assert states(root) == (["COMPLETE", "COMPLETE"], ["FINISHED", "FINISHED"])


def test_a_running_run_is_pruned_and_a_running_study_stopped_by_other_processes(write_sweep, root, monkeypatch):
    sweep = write_sweep()
    options = [ONE_SEED, "train.epochs=5000", "train.figures_every=5000"]
    study = planned(sweep, root, *options)
    first, second = (trial.runs[0][0] for trial in read_trials(study))
    said = []

    def command(*words):
        command = [sys.executable, "-m", "experiments.cli", *words, "--root", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        said.append(" ".join((done.stdout + done.stderr).split()))

    def disturb():
        await_epochs(study, first, 0)
        command("prune", "tiny", first)
        await_epochs(study, second, 0)
        command("retry", "tiny", first)
        command("prune", "tiny", "loss.beta=100.0")
        await_epochs(study, first, 1)
        command("stop", "tiny")

    other = threading.Thread(target=disturb)
    other.start()
    code, output = run_inline(sweep, root, *options)
    other.join()
    assert code == 3, output  # stopped by request; 130 is Ctrl-C
    assert "1 run will end after the next optimizer step, at once. Watch it: vae-sweep attach tiny" in said[0]
    assert re.search(r"Asked the coordinator \(.*\"pid\": \d+.*\) to stop; waiting for checkpoints Stopped\.", said[-1])
    assert kinds(study, first, 0)[-2:] == kinds(study, second, 0)[-2:] == ["checkpoint", "end"]
    assert kinds(study, first, 1)[-2:] == ["checkpoint", "interrupted"]
    assert set(told(study)) == {"PRUNED"}
    open_again, pruned = read_trials(study)
    assert (open_again.state, pruned.state) == (None, "PRUNED")
    assert pruned.value == pruned.reports[max(pruned.reports)]
    assert [status for _, status in mlflow_runs(root)] == ["KILLED", "KILLED"]
    assert set(mlflow_rows(root)) == expected_rows(study.path)  # those of the second attempt too
    numbers = [(number, state, value, reports) for number, state, _, value, reports in optuna_trials(root, "tiny")]
    assert numbers == [
        (0, "RUNNING", None, open_again.reports),
        (1, "PRUNED", pruned.value, pruned.reports),
    ]
    assert requests(study) == []


def await_epochs(study, run, attempt, count=2):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journal = study.run(run).attempt(attempt).journal_file
        if journal.exists() and journal.read_text().count('"kind": "epoch"') >= count:
            return
        time.sleep(0.02)


@pytest.fixture
def builder(root):
    builder = StudyBuilder(root / "tiny", {"loss.beta": [1.0, 4.0]})
    for beta in (1.0, 4.0):
        builder.cell(loss__beta=beta)
    return builder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prune", "tiny", "loss.beta=2.0"), "tiny: 'loss.beta=2.0' names no run; did you mean loss.beta=4.0 or loss."),
        (("prune", "tiny", "run1x7"), "tiny: 'run1x7' names no run; did you mean run1x1 or run1x0 or run0x1?"),
        (("retry", "tiny", "nonsense"), "'nonsense' names no run; valid: loss.beta=1.0, loss.beta=1.0 seed=0, loss"),
        (("prune", "tiny", ""), "tiny: '' names no run; valid: loss.beta=1.0"),
        (("retry", "tiny", "run0"), "tiny: no such run has failed or been pruned; see vae-sweep status tiny --root "),
        (("retry", "tiny"), "tiny: no such run has failed; see vae-sweep status tiny"),
        (("prune", "tinny", "x"), "holds no study named 'tinny'; did you mean tiny?"),
        (("stop", "tinny"), "holds no study named 'tinny'; did you mean tiny?"),
        (("attach", "tinny"), "holds no study named 'tinny'; did you mean tiny?"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(builder, root, vae_sweep, words, message):
    said = vae_sweep(*words, "--root", root, check=2)
    assert said.startswith("error: ")
    assert message in said
    assert requests(builder.study) == []


def test_a_name_that_is_wrong_among_a_hundred_runs_is_not_answered_with_a_hundred(root, vae_sweep):
    builder = StudyBuilder(root / "tiny", {"loss.beta": []}, seeds=range(30))
    for beta in (1.0, 4.0, 16.0):
        builder.cell(loss__beta=beta)
    said = vae_sweep("prune", "tiny", "nonsense", "--root", root, check=2)
    assert said == "error: tiny: 'nonsense' names no run; valid names start with loss"


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["loss.beta=1.0"], ["run0x0", "run0x1"]),
        (["loss.beta=4.0 seed=1"], ["run1x1"]),
        (["run1"], ["run1x0", "run1x1"]),
        (["beta=4 seed=1"], ["run1x1"]),
        (["tiny/beta=4"], ["run1x0", "run1x1"]),
        (["run1x0", "loss.beta=4.0", "run0x1"], ["run1x0", "run1x1", "run0x1"]),
    ],
)
def test_runs_are_named_by_id_by_cell_and_by_cell_and_seed(builder, root, vae_sweep, words, chosen):
    builder.failed("run0x0")
    alive = [run for run in chosen if run != "run0x0"]
    vae_sweep("prune", "tiny", *words, "--root", root)
    assert [request for _, request in requests(builder.study)] == [Request("prune", alive)]


def test_only_failed_runs_are_retried_unless_a_pruned_one_is_named(builder, root, vae_sweep):
    builder.failed("run0x0")
    builder.done("run0x1")
    builder.failed("run1x1")
    vae_sweep("retry", "tiny", "--root", root)
    vae_sweep("retry", "tiny", "loss.beta=1.0", "--root", root)
    asked = [request.runs for _, request in requests(builder.study)]
    assert asked == [["run0x0", "run1x1"], ["run0x0"]]


def test_requests_are_read_in_the_order_in_which_they_were_asked(builder):
    asked = [Request("prune", [str(number)]) for number in range(20)]
    paths = [ask(builder.study, request) for request in asked]
    (builder.study.inbox / ".half.json.tmp").write_text("{")
    assert requests(builder.study) == list(zip(paths, asked, strict=True))


def test_one_that_is_applied_while_they_are_read_is_passed_over(builder, monkeypatch):
    paths = [ask(builder.study, Request("prune", [str(number)])) for number in range(3)]

    def read_after_another_was_applied(path):
        paths[1].unlink(missing_ok=True)
        return read_json(path)

    monkeypatch.setattr(inbox, "read_json", read_after_another_was_applied)
    assert [path for path, _ in requests(builder.study)] == [paths[0], paths[2]]


def test_to_stop_without_a_coordinator_ends_local_workers(builder, root, vae_sweep):
    study = builder.study
    keep_launcher(study, LauncherConfig())
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as worker:
        worker.stdout.readline()
        who = {**process_identity(), "pid": worker.pid, "start_time": None}
        presence_file(study, "local-1-1").write_text(json.dumps(who))
        waiting = threading.Thread(target=worker.wait)  # a zombie would count as alive to its parent alone
        waiting.start()
        said = vae_sweep("stop", "tiny", "--root", root)
        waiting.join(10)
        assert worker.returncode == 7
    assert said.startswith("Stopped. To go on: the same vae-sweep run")
    assert requests(study) == []


def test_to_stop_without_a_coordinator_cancels_jobs_that_wait(builder, root, vae_sweep, tmp_path, monkeypatch):
    study = builder.study
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    slurm.prints("squeue", "7_0|PENDING||Priority|N/A|N/A\n")
    slurm.runs("scancel", f'case "$*" in 7_0) : > {slurm.folder}/squeue.text;; esac')
    keep_launcher(study, LauncherConfig(kind="slurm", slurm={"poll_s": 0.01}))
    study.slurm.mkdir()
    assert "Stopped." in vae_sweep("stop", "tiny", "--root", root)
    assert "7_0" in slurm.asked("scancel")
    assert study.stop_file.exists()
    assert requests(study) == []


def test_what_keeps_a_study_from_being_stopped_is_said_and_does_not_stop_the_next_run(
    builder, root, vae_sweep, tmp_path, monkeypatch
):
    assert "launcher.json: is missing; start the study with vae-sweep run" in vae_sweep(
        "stop", "tiny", "--root", root, check=2
    )
    assert requests(builder.study) == []
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    slurm.prints("squeue", "7_0|PENDING||Priority|N/A|N/A\n")
    slurm.refuses("scancel", "Access denied")
    keep_launcher(builder.study, LauncherConfig(kind="slurm"))
    builder.study.slurm.mkdir()
    assert "scancel: Access denied" in vae_sweep("stop", "tiny", "--root", root, check=1)
    assert requests(builder.study) == []


def test_a_stop_finds_the_coordinator_that_started_just_then(builder, root, vae_sweep, monkeypatch):
    keep_launcher(builder.study, LauncherConfig())
    monkeypatch.setattr(study_module, "_LOCK_ATTEMPTS", 1)
    holder, looks = asking.lock_holder, []
    with contextlib.ExitStack() as coordinator:

        def look(study):
            found = holder(study)
            looks.append(found)
            if len(looks) == 1:  # nobody yet; now it takes the lock
                coordinator.enter_context(coordinator_lock(study))
            if len(looks) == 4:
                [(path, _)] = requests(study)
                path.unlink()
                coordinator.close()
            return found

        monkeypatch.setattr(asking, "lock_holder", look)
        said = vae_sweep("stop", "tiny", "--root", root)
    assert looks[0] is None
    assert all('"pid"' in found for found in looks[1:4])
    assert re.match(r"Asked the coordinator \(.*\) to stop; waiting for checkpoints Stopped\.", said)
    assert not builder.study.stop_file.exists()  # what the request asks for is the coordinator's to do


def test_of_a_silent_scheduler_it_is_not_said_that_the_jobs_have_ended(builder, root, vae_sweep, tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path / "bin", monkeypatch)
    slurm.prints("scancel")
    slurm.refuses("squeue", "Unable to contact slurm controller")
    keep_launcher(builder.study, LauncherConfig(kind="slurm"))
    builder.study.slurm.mkdir()
    said = vae_sweep("stop", "tiny", "--root", root, check=1)
    assert "Stopped." not in said
    assert "workers were told to stop, but not all are known to have left: the scheduler does not answer" in said
    assert "Unable to contact slurm controller" in said
    assert builder.study.stop_file.exists()


def test_a_study_that_nobody_coordinates_is_not_watched_for_ever(builder, root, vae_sweep, monkeypatch):
    monkeypatch.setattr(attach, "_COORDINATOR_PATIENCE_S", 0.0)
    builder.done("run0x0")
    said = vae_sweep("attach", "tiny", "--root", root, check=130)
    assert "loss.beta=1.0 seed=0: done" in said
    assert "No coordinator runs tiny; to go on: the same vae-sweep run" in said


def test_whoever_only_watches_changes_nothing(builder, root, monkeypatch, vae_sweep):
    monkeypatch.setattr(attach, "_COORDINATOR_PATIENCE_S", 0.0)
    monkeypatch.setattr(attach.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(attach, "lock_holder", lambda _: "somebody")
    builder.running("run0x0")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert "The study goes on. To come back: vae-sweep attach tiny" in vae_sweep(
        "attach", "tiny", "--root", root, check=130
    )
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert queued(builder.study) == []
