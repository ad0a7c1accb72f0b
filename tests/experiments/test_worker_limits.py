"""When a worker leaves, what it takes first, and what it may count on where it runs."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.engine import journal_lines
from support.planned import planned

from experiments import worker as worker_module
from experiments.history import read_history
from experiments.place import Place
from experiments.sweep import load_sweep
from experiments.training import Attempt
from experiments.worker import Worker, presence_file
from slurm.host import NOT_AGAIN
from tracking.heartbeat import process_identity
from tracking.queue import claim, claims, finished, queued, renew, requeue
from vae_core.data.preparation import prepared_folder
from vae_core.trainer import DeviceMissingError, Trainer

PROJECT = Path(__file__).parents[2]
LONG = "train.epochs=100000"


@pytest.fixture
def queue_runs(write_sweep, tmp_path):
    """Return a function that queues runs of the tiny sweep, differing in their seeds, in a new study."""

    def queue_runs(*options, runs=3):
        changes = ["train.epochs=1", "space.loss.beta=[0.1]", f"seeds={runs}", *options]
        return planned(write_sweep(), tmp_path / "runs", *changes)

    return queue_runs


def work(study, name="w", place=None, max_runs=None, when=None):
    """Let a worker work until it leaves; `when` is called after each of its pauses, with their number."""
    worker = Worker(study, name, 0.2, place, max_runs)
    for number, _ in enumerate(worker.work()):
        assert number < 3000, "the worker does not leave"
        if when:
            when(number)


def ended(study):
    """Return (order, attempt) of what was worked on to its end."""
    return sorted((entry.order, entry.attempt) for entry in finished(study))


def kinds(study, run, attempt=0):
    return [line["kind"] for line in journal_lines(study.run(run).path) if line["in_attempt"] == attempt]


@pytest.fixture
def look_at_once(monkeypatch):
    """Have a worker look after every step at what is asked of it."""
    monkeypatch.setattr(worker_module, "_LOOK_S", 0.0)


def test_a_worker_leaves_after_so_many_runs(queue_runs):
    study = queue_runs()
    work(study, max_runs=2)
    assert ended(study) == [(0, 0), (1, 0)]
    assert [entry.order for entry in queued(study)] == [2]
    work(study)
    assert ended(study) == [(0, 0), (1, 0), (2, 0)]


def test_a_failed_run_is_a_run_too(queue_runs):
    study = queue_runs("optim.lr=1e30")
    work(study, max_runs=1)
    assert ended(study) == [(0, 0)]


@pytest.mark.parametrize(("left_s", "runs"), [(-5.0, 1), (0.0, 1), (1000.0, 2)])
def test_a_worker_tries_one_run_and_then_leaves_where_no_epoch_would_fit(queue_runs, left_s, runs):
    study = queue_runs(runs=2)
    work(study, place=Place(ends_at=time.monotonic() + left_s))
    assert len(ended(study)) == runs


def test_an_epoch_that_took_longer_than_the_time_left_would_not_fit(queue_runs, monkeypatch):
    study = queue_runs(runs=2)
    real, late_s = time.monotonic, [0.0]
    monkeypatch.setattr("time.monotonic", lambda: real() + late_s[0])
    place = Place(ends_at=time.monotonic() + 1000.0)
    work(study, place=place, when=lambda _: late_s.__setitem__(0, 900.0))  # in the middle of the first epoch
    assert len(ended(study)) == 1  # 100 s are left, and an epoch took 900


def test_what_an_earlier_execution_left_is_renewed_before_anything_else(queue_runs):
    study = queue_runs()
    first, _, last = queued(study)
    owner = process_identity()
    held = [claim(study, name, owner) for name in ("slurm-7_1-1.old", "elsewhere", "slurm-7_1-0.old")]
    requeue(study, held[1])
    for name in ("slurm-7_1-0.old", "slurm-7_1-1.old", "slurm-7_1-0.new"):
        presence_file(study, name).touch()
    presence_file(study, "slurm-7_1-0.older").with_suffix(".requeued").touch()
    work(study, "slurm-7_1-0.new", max_runs=1)
    assert ended(study) == [(last.order, 1)]
    assert kinds(study, last.run, 1)[0] == "attempt"
    [other] = claims(study)
    assert (other.worker, other.entry.run) == ("slurm-7_1-1.old", first.run)  # of another place in the same job
    assert len(queued(study)) == 1
    presence_file(study, "slurm-7_1-0.newer").touch()
    work(study, "slurm-7_1-0.newer", max_runs=1)
    left = {path.name for path in study.workers.iterdir()}
    assert left == {"slurm-7_1-1.old.json", "slurm-7_1-0.newer.json"}


def test_a_job_released_after_its_run_was_given_to_another_leaves_that_alone(queue_runs):
    study = queue_runs(runs=1)
    requeue(study, claim(study, "slurm-7-0.old", process_identity()))  # its job is held for longer than the run waits
    presence_file(study, "slurm-7-0.old").with_suffix(".requeued").touch()
    other = claim(study, "slurm-8-0.a", process_identity())
    work(study, "slurm-7-0.new")
    assert ended(study) == []
    assert [(held.worker, held.entry.attempt) for held in claims(study)] == [("slurm-8-0.a", other.entry.attempt)]


def test_a_worker_without_a_place_renews_nothing(queue_runs):
    study = queue_runs(runs=2)
    claim(study, "local-1-1", process_identity())
    work(study, "local-1-2")
    assert [(held.worker, held.entry.attempt) for held in claims(study)] == [("local-1-1", 0)]


def test_a_renewed_run_goes_on_from_its_checkpoint(queue_runs, look_at_once):
    study = queue_runs(LONG, runs=1)
    work(study, "slurm-7-0.a", when=lambda number: number == 7 and study.stop_file.touch())
    [held] = claims(study)
    [stopped] = [line for line in journal_lines(study.run(held.entry.run).path) if line["kind"] == "interrupted"]
    assert stopped["step"] > 0
    study.stop_file.unlink()
    work(study, "slurm-7-0.b", when=lambda number: number == 7 and study.stop_file.touch())
    [start] = [line for line in journal_lines(study.run(held.entry.run).path) if line["kind"] == "attempt"][1:]
    assert (start["attempt"], start["worker"], start["start_step"]) == (1, "slurm-7-0.b", stopped["step"])


def test_the_stop_file_ends_the_run_with_a_checkpoint_and_then_the_worker(queue_runs, look_at_once):
    study = queue_runs(LONG)
    first = queued(study)[0]
    work(study, when=lambda number: number == 3 and study.stop_file.touch())
    assert kinds(study, first.run)[-2:] == ["checkpoint", "interrupted"]
    assert [held.entry for held in claims(study)] == [first]
    assert len(queued(study)) == 2
    work(study, "other")
    assert len(queued(study)) == 2  # nothing is begun while it is there


def test_a_worker_whose_run_was_given_to_another_leaves_it(queue_runs, look_at_once):
    study = queue_runs(LONG)
    first = queued(study)[0]
    work(study, when=lambda number: number == 3 and requeue(study, claims(study)[0]))
    assert kinds(study, first.run)[-1] == "interrupted"
    assert claims(study) == []
    assert [(entry.order, entry.attempt) for entry in queued(study)] == [(0, 1), (1, 0), (2, 0)]
    assert ended(study) == []


def test_a_claim_that_was_renewed_by_another_is_not_finished(queue_runs):
    study = queue_runs(runs=1)
    work(study, when=lambda number: number == 1 and renew(study, claims(study)[0], "other", process_identity()))
    assert [(held.worker, held.entry.attempt) for held in claims(study)] == [("other", 1)]
    assert ended(study) == []


def test_in_a_job_one_without_work_stays_as_long_as_another_has_a_run(queue_runs):
    study = queue_runs(runs=2)
    stranger = claim(study, "slurm-6-0.a", process_identity() | {"job": "6"})
    presence_file(study, stranger.worker).touch()
    held = claim(study, "slurm-7-0.a", process_identity() | {"job": "7"})
    presence_file(study, held.worker).touch()
    idle = Worker(study, "slurm-7-1.b", 0.2, Place(job="7"))
    began = time.monotonic()
    work = idle.work()
    while time.monotonic() - began < 1.0:  # five times as long as it would wait for work alone
        next(work)
    requeue(study, held)
    for number, _ in enumerate(work):
        assert number < 3000, "it waits for the end of another job"
    assert ended(study) == [(1, 1)]


def test_the_run_of_one_that_is_lost_keeps_nobody_in_the_job(queue_runs):
    study = queue_runs(runs=1)
    held = claim(study, "slurm-7-0.a", process_identity() | {"job": "7"})  # its host took its presence away
    work(study, "slurm-7-1.b", Place(job="7"))
    assert claims(study) == [held]


def test_a_run_that_a_worker_finished_after_it_was_given_up_is_not_trained_again(queue_runs, monkeypatch):
    study = queue_runs(runs=2)
    late, other = queued(study)
    conclude = Attempt._conclude

    def given_up_meanwhile(attempt, trainer, journal):
        [held] = claims(study)
        assert requeue(study, held)
        conclude(attempt, trainer, journal)

    monkeypatch.setattr(Attempt, "_conclude", given_up_meanwhile)
    work(study, "slurm-1-0.a", max_runs=1)
    monkeypatch.setattr(Attempt, "_conclude", conclude)
    assert [(entry.run, entry.attempt) for entry in queued(study)] == [(late.run, 1), (other.run, 0)]
    work(study, "slurm-2-0.b")
    assert study.run(late.run).attempts() == [0]
    assert read_history(study.run(late.run)).result is not None
    assert ended(study) == [(0, 1), (1, 0)]


def test_a_run_that_is_pruned_ends_and_its_worker_goes_on(queue_runs, look_at_once):
    study = queue_runs(LONG, runs=2)
    first, second = queued(study)

    def ask(number):
        if number == 3:
            study.run(first.run).prune_file.touch()
        if len(ended(study)) == 1:
            study.run(second.run).prune_file.touch()

    work(study, when=ask)
    assert ended(study) == [(0, 0), (1, 0)]
    end = journal_lines(study.run(first.run).path)[-1]
    assert (end["kind"], end["status"], end["reason"]) == ("end", "pruned", "asked to prune")
    assert kinds(study, first.run)[-2:] == ["checkpoint", "end"]


def test_a_run_pruned_before_it_began_trains_nothing(queue_runs):
    study = queue_runs(runs=2)
    first, second = queued(study)
    study.run(first.run).prune_file.touch()
    work(study)
    assert kinds(study, first.run) == ["attempt", "end"]
    assert "epoch" in kinds(study, second.run)
    assert ended(study) == [(0, 0), (1, 0)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_promised_gpu_that_is_not_there_ends_the_worker_before_it_takes_a_run(queue_runs, capsys, device):
    study = queue_runs("train.device=auto", runs=2)
    text = study.sweep_file.read_text()  # planned on a machine that has one
    study.sweep_file.write_text(text.replace("device: auto", f"device: {device}"))
    with pytest.raises(SystemExit, match=str(NOT_AGAIN)):
        worker_module._work(Worker(study, "w", 0.2, Place(job="7_1", gpus=0.5)))
    said = capsys.readouterr().err
    assert said.startswith("job 7_1 on ")
    assert "was promised a GPU and torch sees none; to train on the CPU there, set train.device: cpu" in said
    assert (len(queued(study)), claims(study)) == (2, [])
    with pytest.raises(DeviceMissingError, match=r"this process on .* was promised a GPU"):
        work(study, "other", Place(gpus=1.0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_one_that_only_a_runs_own_config_asks_for_is_missed_by_that_attempt(queue_runs):
    study = queue_runs(runs=2)
    first = queued(study)[0]
    config = study.run(first.run).config_file
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    with pytest.raises(DeviceMissingError, match="torch sees no CUDA device"):
        work(study)
    assert kinds(study, first.run) == ["attempt", "lost"]
    assert [held.entry for held in claims(study)] == [first]  # for the next attempt


CUDA_ERROR = "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported"


class FakeAcceleratorError(RuntimeError):
    """What torch.AcceleratorError, of newer versions alone, is to a handler."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(CUDA_ERROR),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER"),
        FakeAcceleratorError("HIP error: the device is gone"),
    ],
)
def test_a_device_that_fails_loses_one_attempt_and_its_process_takes_no_other_run(
    queue_runs, monkeypatch, capsys, error
):
    monkeypatch.setattr(torch, "AcceleratorError", FakeAcceleratorError, raising=False)
    monkeypatch.setattr(Trainer, "_take_step", broken(error))
    study = queue_runs(runs=2)
    first, second = queued(study)
    with pytest.raises(SystemExit, match=str(NOT_AGAIN)):
        worker_module._work(Worker(study, "w", 0.2, Place(job="7_1")))
    assert "in _take_step" in capsys.readouterr().err
    lost = journal_lines(study.run(first.run).path)[-1]
    assert (lost["kind"], read_history(study.run(first.run)).status) == ("lost", None)
    assert re.fullmatch(rf"job 7_1 on \S+: {re.escape(str(error).splitlines()[0])}", lost["reason"])
    assert [held.entry for held in claims(study)] == [first]  # for the next attempt
    assert queued(study) == [second]


@pytest.mark.parametrize(
    ("error", "failure"),
    [(RuntimeError("CUDA error: out of memory\n"), "oom"), (RuntimeError("shapes of CUDA error: differ"), "exception")],
)
def test_full_memory_and_mistakes_of_the_code_are_the_runs_own_where_torch_says_cuda_or_not(
    queue_runs, monkeypatch, error, failure
):
    monkeypatch.delattr(torch, "AcceleratorError", raising=False)
    monkeypatch.setattr(Trainer, "_take_step", broken(error))
    study = queue_runs(runs=1)
    work(study)
    assert journal_lines(study.run(study.run_ids()[0]).path)[-1]["failure"] == failure


def broken(error):
    def _take_step(trainer, indices):
        raise error

    return _take_step


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize(("device", "gpus"), [("cpu", 1.0), ("auto", 0.0)])
def test_where_none_was_promised_or_asked_for_the_cpu_trains(queue_runs, device, gpus):
    study = queue_runs(f"train.device={device}", runs=1)
    work(study, place=Place(gpus=gpus))
    assert ended(study) == [(0, 0)]


def test_staged_data_is_read_where_it_was_copied_to(queue_runs, write_sweep, tmp_path, monkeypatch):
    study = queue_runs(runs=1)
    config = load_sweep(str(write_sweep()), []).base_config
    folder = prepared_folder(config.data)
    staged = tmp_path / "staged"
    staged.mkdir()
    folder.rename(staged / folder.name)
    try:
        monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "nothing"))
        work(study, place=Place(data_cache=staged))
    finally:
        (staged / folder.name).rename(folder)
    assert ended(study) == [(0, 0)]
    assert journal_lines(study.run(study.run_ids()[0]).path)[-1]["status"] == "done"
    assert not (tmp_path / "nothing").exists()
    assert list(staged.iterdir()) == []  # nothing was prepared anew beside it


@pytest.fixture
def handlers():
    """Put the signal handlers back that a worker's process replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("job", "left"), [(["--job", "7"], ["w.a.json"]), ([], [])])
def test_in_a_job_the_host_takes_the_presence_away(queue_runs, monkeypatch, job, left):
    study = queue_runs(runs=1)
    study.stop_file.touch()
    monkeypatch.setattr(sys, "argv", ["worker", str(study.path), "--name", "w.a", *job])
    worker_module.main()
    assert [path.name for path in study.workers.iterdir()] == left
    assert len(queued(study)) == 1


HANG = """
import re, sys, time
from pathlib import Path
from tracking.heartbeat import Heartbeat

def hang_in_python():
    time.sleep(60)

def hang_with_the_lock_of_the_interpreter():
    re.match(r"(a+)+$", "a" * 60 + "b")

def work_slowly_and_rest():
    for _ in range(12):
        time.sleep(0.1)
        beat.advance()

with Heartbeat(Path(sys.argv[1]), interval_s=0.05, stall_timeout_s=0.5) as beat:
    globals()[sys.argv[2]]()
time.sleep(0.7)
"""


def run_beating(tmp_path, what):
    return subprocess.run(
        [sys.executable, "-c", HANG, str(tmp_path / "heartbeat"), what],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize("how", ["hang_in_python", "hang_with_the_lock_of_the_interpreter"])
def test_a_hung_worker_writes_its_stacks_and_exits(tmp_path, how):
    result = run_beating(tmp_path, how)
    assert result.returncode == 1
    assert "Timeout (0:00:00.500000)!" in result.stderr
    assert f"in {how}" in result.stderr


def test_one_that_makes_progress_does_not_nor_one_that_is_done(tmp_path):
    result = run_beating(tmp_path, "work_slowly_and_rest")
    assert (result.returncode, result.stderr) == (0, "")
