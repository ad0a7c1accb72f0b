"""Whole sweeps on a real Slurm: the same numbers as anywhere else, whatever happens to jobs, nodes and daemons."""

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
from support.processes import alive, command
from support.slurm import (
    job_fields,
    job_state,
    node_state,
    restart_slurmd,
    slurm,
    slurmd_pid,
    squeue,
    step_pids,
    task_pids,
    wait_until,
)
from support.slurm_sweeps import LONG, RunningSweep, assert_undisturbed, options, table, vae_sweep
from support.tiny import TINY

CHECKOUT = Path(__file__).parents[2]
NODES = ("n1", "n2")
SLOW_DISK = """
import os, time

fsync = os.fsync


def slow_fsync(descriptor):
    if os.path.exists(os.environ["SLOW_DISK"]) and os.fstat(descriptor).st_size > 20_000:
        time.sleep(120)
    fsync(descriptor)


os.fsync = slow_fsync
"""
pytestmark = pytest.mark.usefixtures("sandbox", "idle_sandbox")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    os.environ["VAE_SWEEP_CACHE"] = str(tmp_path_factory.getbasetemp() / "data-cache")
    path = folder / "tiny.yaml"
    path.write_text(TINY.lstrip())
    return path


@pytest.fixture
def idle_sandbox(sandbox):
    """Whatever a test leaves in the queue is cancelled, and every node is there again."""
    yield
    slurm("scancel", "--user", "root")
    wait_until(lambda: not squeue(), "an empty queue", timeout_s=60)
    # a node whose daemon was killed under a job is cleared a minute after the daemon has come back
    wait_until(idle_nodes, lambda: f"idle nodes: {[node_state(node) for node in NODES]}", timeout_s=150)


def idle_nodes() -> bool:
    """Whether both nodes are; one that was drained or taken down is brought back."""
    states = {node: node_state(node) for node in NODES}
    for node, state in states.items():
        if state.startswith(("down", "drain")):
            slurm("scontrol", "update", f"nodename={node}", "state=resume", check=False)
    return set(states.values()) == {"idle"}


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory) -> Path:
    """The tiny sweep as one process trains it, undisturbed."""
    root = tmp_path_factory.mktemp("whole") / "runs"
    vae_sweep("run", sweep, "--root", root, "--launcher", "inline")
    return root


@pytest.fixture(scope="module")
def whole_long(sweep, tmp_path_factory) -> Path:
    """The same with fewer and longer runs."""
    root = tmp_path_factory.mktemp("whole-long") / "runs"
    vae_sweep("run", sweep, "--root", root, "--launcher", "inline", *options(LONG))
    return root


@pytest.fixture
def undisturbed(sweep, tmp_path):
    """Return a function that trains the long sweep with other settings in one process and returns its root."""

    def train(*settings):
        root = tmp_path / "undisturbed"
        vae_sweep("run", sweep, "--root", root, "--launcher", "inline", *options(LONG, *settings))
        return root

    return train


@pytest.fixture
def running(sweep, tmp_path):
    """Start long sweeps; what a failed test leaves running is killed."""
    started = []

    def start(*settings, extra=()):
        started.append(RunningSweep(sweep, tmp_path / "runs", LONG, *settings, extra=extra))
        return started[-1]

    yield start
    for sweep_run in started:
        sweep_run.kill()


def test_the_table_is_the_local_one_and_no_more_jobs_run_than_allowed(sweep, whole, tmp_path):
    root = tmp_path / "runs"
    limit = {"launcher.slurm.array_parallelism": 2, "launcher.slurm.runs_per_job": 1, "seeds": 2}
    most, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.05):
            most[0] = max(most[0], sum(job.state in ("RUNNING", "COMPLETING") for job in squeue()))

    watching = threading.Thread(target=watch)
    watching.start()
    copy = tmp_path / "tiny.yaml"
    copy.write_text(sweep.read_text())
    started = RunningSweep(copy, root, limit)
    wait_until(lambda: bool(started.lines("attempt")), "the first attempt", timeout_s=60)
    copy.write_text("# another question\n")  # what is submitted is unaffected
    output = started.finish()
    stop.set()
    watching.join()
    assert_undisturbed(root, whole)
    assert table(root) == table(whole)
    assert "4 done" in vae_sweep("status", "tiny", "--root", root).stdout
    assert len(set(started.jobs().values())) == 4  # one SLURM job per run
    assert most[0] == 2
    seen = re.findall(r"CUDA_VISIBLE_DEVICES=([^)]+)\)", started.logs())
    assert len(seen) == 4
    assert set(seen) <= {"0", "1"}  # one GPU each
    assert set(re.findall(r"code from (\S+)", started.logs())) == {str(root / "tiny" / "code")}
    assert output.count("done") >= 4


@pytest.mark.slow
def test_editing_the_checkout_changes_nothing_that_is_queued(sweep, whole_long, tmp_path):
    checkout = tmp_path / "checkout"
    for package in ("vae_core", "tracking", "slurm", "experiments", "sweeps"):
        shutil.copytree(CHECKOUT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", checkout)
    one_after_the_other = {"launcher.slurm.array_parallelism": 1, "launcher.slurm.runs_per_job": 1}
    started = RunningSweep(sweep, tmp_path / "runs", LONG, one_after_the_other, checkout=checkout)
    try:
        started.await_epochs()
        (checkout / "vae_core" / "losses.py").write_text('raise RuntimeError("edited after submission")\n')
        started.finish()
    finally:
        started.kill()
    assert len(set(started.jobs().values())) == 2  # the second job began after the edit
    assert_undisturbed(started.root, whole_long)


def test_preemption_by_a_high_priority_partition(running, whole_long):
    disturbed = running()
    disturbed.await_epochs(runs=2)
    before = disturbed.jobs()
    slurm("sbatch", "-p", "high", "-N2", "--gpus-per-node=2", "--output=/dev/null", "--wrap", "sleep 1")
    disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    assert len(disturbed.lines("interrupted")) == 2
    assert disturbed.attempts() == {run: [0, 1] for run in before}
    assert disturbed.jobs() == before  # each requeued job went on with its own run


@pytest.mark.slow
def test_a_job_requeued_by_hand(running, whole_long):
    disturbed = running()
    disturbed.await_epochs()
    run, job = next(iter(disturbed.jobs().items()))
    slurm("scontrol", "requeue", job)
    disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    assert disturbed.attempts()[run] == [0, 1]
    assert disturbed.jobs()[run] == job


@pytest.mark.slow
def test_a_checkpoint_too_slow_for_the_grace_leaves_the_one_before_it(running, whole_long, tmp_path):
    """While a file `hang` exists, the disk takes longer over a checkpoint than the job has left."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    slow_disk = {"launcher.slurm.setup": f"['export PYTHONPATH={tmp_path} SLOW_DISK={tmp_path / 'hang'}']"}
    disturbed = running(slow_disk, {"launcher.slurm.array_parallelism": 1})
    disturbed.await_epochs(count=3)
    [first] = disturbed.lines("attempt")
    (tmp_path / "hang").touch()
    slurm("scontrol", "requeue", first["job"])
    wait_until(lambda: not alive(first["pid"]), "the end of the worker", timeout_s=60)
    (tmp_path / "hang").unlink()
    output = disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    said = r"lost before it could write another; attempt 1 goes on from the checkpoint of step (\d+)"
    [step] = re.findall(said, output)
    mine = [line for line in disturbed.lines() if line["run"] == first["run"]]
    assert not [line for line in mine if line["kind"] == "interrupted"]
    covered = [line["step"] for line in mine if line["kind"] == "checkpoint" and line["in_attempt"] == 0]
    assert int(step) == max(covered)


@pytest.mark.slow
def test_cancelled_elements_one_running_and_one_pending(running, whole_long):
    disturbed = running({"launcher.slurm.array_parallelism": 1, "launcher.slurm.runs_per_job": 1})
    disturbed.await_epochs()
    [job] = [job.name_in_queue for job in squeue() if job.state == "RUNNING"]
    [pending] = [job.name_in_queue for job in squeue() if job.state == "PENDING"]
    slurm("scancel", pending)
    slurm("scancel", job)
    disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    jobs = {line["job"] for line in disturbed.lines("attempt")}
    assert job in jobs
    assert pending not in jobs
    assert len(jobs) == 3  # the cancelled one, and two new ones


def test_a_coordinator_that_left_or_was_killed_finds_its_jobs_again(running, whole_long):
    disturbed = running()
    wait_until(lambda: len(squeue()) == 2, "two jobs")
    disturbed.process.send_signal(signal.SIGINT)
    assert disturbed.process.wait(30) == 130
    assert "The jobs go on" in disturbed.output
    disturbed.again()
    disturbed.await_epochs()
    disturbed.kill()
    jobs = {job.name_in_queue for job in squeue()}
    assert len(jobs) == 2
    disturbed.again()
    disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    assert {line["job"] for line in disturbed.lines("attempt")} == jobs  # no second set of jobs was submitted


@pytest.mark.slow
def test_a_one_minute_time_limit(running, undisturbed):
    """The run takes longer than its job may."""
    longer = {"train.epochs": 1500, "train.figures_every": 1500, "launcher.slurm.array_parallelism": 1}
    one_run = {"space.loss.beta": "[0.1]", "baseline": "{}"}
    disturbed = running({"launcher.slurm.time": 1, "launcher.slurm.signal_delay_s": 25}, longer, one_run)
    disturbed.finish(timeout_s=280)
    assert disturbed.lines("interrupted")
    assert len({line["job"] for line in disturbed.lines("attempt")}) == 1
    assert_undisturbed(disturbed.root, undisturbed(longer, one_run))


@pytest.mark.slow
def test_a_node_taken_down(running, whole_long):
    disturbed = running()
    disturbed.await_epochs(runs=2)
    node = disturbed.lines("attempt")[0]["host"]
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    disturbed.finish()
    assert_undisturbed(disturbed.root, whole_long)
    assert max(map(len, disturbed.attempts().values())) >= 2


@pytest.mark.slow
def test_a_killed_slurmd(running, undisturbed, sandbox):
    """The job's node is given up after SlurmdTimeout; its worker goes on, unknown to Slurm, beside the next attempt."""
    longer = {"train.epochs": 800, "train.figures_every": 800, "launcher.slurm.array_parallelism": 1}
    disturbed = running(longer, {"space.loss.beta": "[0.1]", "baseline": "{}"})
    disturbed.await_epochs()
    first = disturbed.lines("attempt")[0]
    os.kill(slurmd_pid(sandbox.folder, first["host"]), signal.SIGKILL)
    try:
        disturbed.finish(timeout_s=250)
    finally:
        restart_slurmd(sandbox.folder, first["host"])
    assert_undisturbed(disturbed.root, undisturbed(longer, {"space.loss.beta": "[0.1]", "baseline": "{}"}))


@pytest.mark.slow
def test_killed_slurmstepds_leave_a_worker_behind_and_two_attempts_overlap(running, undisturbed, sandbox):
    longer = {"train.epochs": 600, "train.figures_every": 600, "launcher.slurm.array_parallelism": 1}
    one_run = {"space.loss.beta": "[0.1]", "baseline": "{}"}
    disturbed = running(longer, one_run)
    disturbed.await_epochs()
    [first] = disturbed.lines("attempt")
    number = int(slurm("squeue", "-h", "-j", first["job"], "-o", "%A").stdout)
    # srun goes with them: left alone, it would cancel the step of the same number in the job's next execution
    clients = [pid for pid in task_pids(sandbox.folder, number) if "experiments.worker" not in command(pid)]
    clients = [pid for pid in clients if "submitit.core._submit /" not in command(pid) or "srun" in command(pid)]
    for pid in [*step_pids(sandbox.folder, number), *clients]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(first["pid"], signal.SIGSTOP)  # a suspended process comes back long after it was given up
    wait_until(lambda: len(disturbed.lines("attempt")) == 2, "a second attempt", timeout_s=120)
    second = disturbed.lines("attempt")[1]
    assert alive(first["pid"])
    os.kill(first["pid"], signal.SIGCONT)
    wait_until(lambda: not alive(first["pid"]), "the end of the worker whose claim was taken away")
    late = [line for line in disturbed.lines() if line["in_attempt"] == 0 and line["time_ms"] > second["time_ms"]]
    assert late, "the first attempt should have written beside the second one"
    disturbed.finish(timeout_s=200)
    assert second["job"] == first["job"]
    assert_undisturbed(disturbed.root, undisturbed(longer, one_run))
    assert [line["in_attempt"] for line in disturbed.lines("end")] == [1]


@pytest.mark.slow
def test_where_promised_gpus_are_not_there_the_sweep_ends_and_its_runs_stay_queued(sweep, tmp_path):
    settings = {"train.device": "auto", "launcher.max_retries": 0, "seeds": 1, "space.loss.beta": "[0.1]"}
    output = RunningSweep(sweep, tmp_path / "runs", settings, {"baseline": "{}"}).finish(code=1)
    said = r"3 jobs in a row failed.*job \d+\S* on n\d was promised a GPU and torch sees none"
    assert re.search(said, output, re.DOTALL)
    assert len(list((tmp_path / "runs" / "tiny" / "queue").iterdir())) == 1


@pytest.mark.slow
def test_stop_writes_checkpoints_ends_the_jobs_and_the_same_command_goes_on(running, undisturbed):
    longer = {"train.epochs": 300, "train.figures_every": 300}
    disturbed = running(longer)
    disturbed.await_epochs(runs=2)
    output = vae_sweep("stop", "tiny", "--root", disturbed.root).stdout
    assert "Stopped." in output
    assert disturbed.process.wait(30) == 3
    assert not squeue()
    assert disturbed.lines("interrupted")
    disturbed.again()
    disturbed.finish()
    assert_undisturbed(disturbed.root, undisturbed(longer))


@pytest.mark.slow
def test_a_sweep_in_one_job_submitted_by_hand_requeues_itself(sweep, whole_long, tmp_path):
    root, output = tmp_path / "runs", tmp_path / "job.out"
    words = ["--root", str(root), "--workers", "1", *options(LONG)]
    script = CHECKOUT / "slurm" / "job.sbatch"
    place = f"ALL,CHECKOUT={script.parents[1]},PYTHON={sys.executable}"
    asked = ["--time=10", "--cpus-per-task=1", f"--output={output}", f"--export={place}"]
    job = int(slurm("sbatch", "--parsable", *asked, script, sweep, *words).stdout)
    wait_until(lambda: list(root.glob("tiny/runs/*/attempts/0/checkpoints/*.pt")), "a checkpoint", timeout_s=60)
    slurm("sbatch", "-p", "high", "-N2", "--gpus-per-node=2", "--output=/dev/null", "--wrap", "sleep 1")
    wait_until(lambda: job_state(job) == "COMPLETED", "the end of the job", timeout_s=120)
    assert job_fields(job)["Restarts"] == "1"
    assert_undisturbed(root, whole_long)
