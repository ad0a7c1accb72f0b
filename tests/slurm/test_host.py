"""What runs in a job, as a process of its own: workers are shell scripts, and scontrol says what a test has it say."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fake_slurm import FakeSlurm

from slurm.host import NOT_AGAIN, job_of, outcome_file

PROJECT = Path(__file__).parents[2]
HOST = """
import json, sys
from slurm.host import JobHost

settings = json.loads(sys.argv[1])
sys.exit(JobHost(**{**settings, "command": tuple(settings["command"])})())
"""
FACTS = (
    "JobId=7 ArrayJobId=7 JobName=vae-sweep UserId=me(1) JobState={state} Reason=None Requeue=1 Restarts={restarts} "
    "ExitCode=0:0 SubmitTime=2026-03-02T10:00:00 StartTime=2026-03-02T10:01:30 EndTime={end} Comment=x"
)
UNTIL_TOLD = "trap 'sleep 0.2; say saved; exit 0' TERM\nsay ready\nwhile :; do sleep 0.02; done"
PATIENCE_S = 20.0


class Job:
    """One execution of a job; a worker appends `<what> <its name> <its GPU>` to the log with `say`."""

    def __init__(self, folder, slurm):
        self.folder, self.slurm = folder, slurm
        self.presence = folder / "workers {name}"  # a folder's name is no pattern
        self.presence.mkdir()
        self.log = folder / "log"
        self.process = None
        self.says("RUNNING")
        slurm.runs(
            "scontrol",
            f'case "$1" in requeue) ls "{self.presence}" > {folder}/at_requeue;; *) cat {folder}/facts;; esac',
        )

    def says(self, state, restarts=0, end="2026-03-02T12:00:00"):
        (self.folder / "facts").write_text(FACTS.format(state=state, restarts=restarts, end=end))

    def start(self, worker, environment=None, words=(), **settings):
        script = self.folder / "worker"
        script.write_text(
            "PATH=/usr/bin:/bin\n"
            f'say() {{ echo "$1 $name ${{CUDA_VISIBLE_DEVICES:-none}}" >> {self.log}; }}\n'
            f'name=$1; touch "{self.presence}/$name.json"\n{worker}\n'
        )
        settings = {
            "command": ["/bin/sh", str(script), "{name}", *words],
            "presence": str(self.presence),
            **settings,
        }
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        variables |= {"PYTHONPATH": str(PROJECT), "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"} | (environment or {})
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, json.dumps(settings)],
            env={name: value for name, value in variables.items() if value is not None},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that nothing outlives a failed test
        )

    def await_lines(self, what, count=1):
        deadline = time.monotonic() + PATIENCE_S
        while len(self.lines(what)) < count:
            assert time.monotonic() < deadline, f"no {what}; {self.lines()}"
            time.sleep(0.01)

    def lines(self, what=None):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split(" ") for line in lines if what in (None, line.split(" ")[0])]

    def end(self, number=None):
        """Send the signal, wait for the end, and return (exit code, what was said)."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said

    @property
    def requeues(self):
        return [words for words in self.slurm.asked("scontrol") if words.startswith("requeue")]

    def left_behind(self):
        return sorted(path.name for path in self.presence.iterdir())


@pytest.fixture
def job(tmp_path, monkeypatch):
    job = Job(tmp_path, FakeSlurm(tmp_path / "bin", monkeypatch))
    yield job
    if job.process:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
        job.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_the_job_requeued_once_the_workers_have_saved(job, number):
    job.start(UNTIL_TOLD, slots=2)
    job.await_lines("ready", 2)
    code, said = job.end(number)
    assert code == 0
    assert len(job.lines("saved")) == 2
    assert job.requeues == ["requeue 7"]
    names = sorted(name for _, name, _ in job.lines("saved"))
    assert job.left_behind() == [f"{name}.requeued" for name in names]
    assert (job.folder / "at_requeue").read_text().split("\n")[:-1] == job.left_behind()  # said before it was asked
    assert "job 7 was told to stop, is RUNNING and comes back" in said


def test_a_job_that_somebody_cancelled_is_not_requeued(job):
    job.start(UNTIL_TOLD)
    job.await_lines("ready")
    job.says("COMPLETING")
    code, said = job.end(signal.SIGTERM)
    assert (code, job.requeues, job.left_behind()) == (0, [], [])
    assert job.lines("saved")
    assert "is COMPLETING and ends here" in said


def test_nor_is_one_that_was_requeued_before_and_then_cancelled(job):
    job.start(UNTIL_TOLD, {"SLURM_RESTART_COUNT": "2"})
    job.await_lines("ready")
    job.says("COMPLETING", restarts=2)
    assert "ends here" in job.end(signal.SIGTERM)[1]
    assert (job.requeues, job.left_behind()) == ([], [])


@pytest.mark.parametrize(("state", "restarts"), [("COMPLETING", 3), ("PENDING", 2), ("REQUEUED", 2)])
def test_a_job_that_slurm_requeues_comes_back_without_being_asked_again(job, state, restarts):
    job.start(UNTIL_TOLD, {"SLURM_RESTART_COUNT": "2"})
    job.await_lines("ready")
    job.says(state, restarts)
    code, said = job.end(signal.SIGTERM)
    assert (code, job.requeues) == (0, [])
    assert [name.rpartition(".")[2] for name in job.left_behind()] == ["requeued"]
    assert f"is {state} and comes back" in said


@pytest.mark.parametrize("scontrol", ["missing", "refuses"])
def test_without_scontrol_the_workers_save_and_nobody_waits_for_them_to_come_back(job, scontrol):
    if scontrol == "refuses":
        job.slurm.refuses("scontrol")
    else:
        (job.slurm.folder / "scontrol").unlink()
    job.start(UNTIL_TOLD, words=["{seconds_left}", "{wait_s}"])
    job.await_lines("ready")
    code, said = job.end(signal.SIGUSR2)
    assert (code, job.left_behind()) == (0, [])
    assert job.lines("saved")
    assert "cannot be requeued (scontrol" in said
    assert " inf nan\n" in said


def test_a_worker_that_leaves_is_not_started_again_and_its_presence_removed(job):
    job.start("say began")
    assert job.end()[0] == 0
    assert len(job.lines("began")) == 1
    assert (job.left_behind(), job.requeues) == ([], [])


def test_a_worker_that_crashes_is_started_again_at_most_twice_and_then_counted(job):
    job.start("say began; exit 3")
    code, said = job.end()
    assert code == 1
    names = [name for _, name, _ in job.lines("began")]
    assert len(set(names)) == 3  # a new name each time, in the same place
    assert {name.rpartition(".")[0] for name in names} == {"slurm-7-0"}
    assert job.left_behind() == []
    assert said.count("left with exit code 3") == 3


def test_the_workers_of_a_job_share_the_two_further_starts(job):
    job.start("say began; exit 3", slots=2)
    assert job.end()[0] == 2
    assert len(job.lines("began")) == 4


def test_a_worker_that_crashed_once_is_no_crash(job):
    job.start(f"say began; mkdir {job.folder}/second && exit 3; exit 0")
    assert job.end()[0] == 0
    assert len(job.lines("began")) == 2


def test_a_worker_killed_by_the_system_is_a_crash_too(job):
    job.start("say began; kill -KILL $$")
    assert job.end()[0] == 1
    assert len(job.lines("began")) == 3


def test_a_worker_that_this_node_cannot_serve_is_counted_and_not_started_again(job):
    job.start(f"say began; exit {NOT_AGAIN}")
    assert job.end()[0] == 1
    assert len(job.lines("began")) == 1
    assert job.left_behind() == []


def test_a_worker_that_crashes_because_it_was_told_to_stop_comes_back(job):
    job.start("trap 'exit 3' TERM\nsay ready\nwhile :; do sleep 0.02; done")
    job.await_lines("ready")
    assert job.end(signal.SIGTERM)[0] == 0
    assert len(job.lines("ready")) == 1
    assert job.requeues == ["requeue 7"]
    assert len(job.left_behind()) == 1


def test_a_signal_that_comes_while_workers_start_reaches_them_all(job):
    first = "case $name in slurm-7-0.*) kill -TERM $PPID;; esac"
    job.start(f"{first}\ntrap 'exit 0' TERM\nwhile :; do sleep 0.02; done", slots=20)
    code, said = job.end()
    assert code == 0
    assert said.count("(CUDA_VISIBLE_DEVICES=") == 20
    assert job.requeues == ["requeue 7"]


GPUS = [
    ("3,5", {"slots": 2}, ["3", "5"]),
    ("3,5", {"slots": 4, "workers_per_gpu": 2}, ["3", "3", "5", "5"]),
    ("GPU-a", {"slots": 3, "workers_per_gpu": 3}, ["GPU-a"] * 3),
    ("3", {"slots": 2}, ["3", "3"]),  # the site gave fewer than were asked for
    ("", {"slots": 2}, ["none", "none"]),
    (None, {"slots": 1}, ["none"]),
]


@pytest.mark.parametrize(("granted", "settings", "expected"), GPUS)
def test_each_worker_sees_the_gpu_of_its_slot(job, granted, settings, expected):
    job.start("say began", {"CUDA_VISIBLE_DEVICES": granted}, **settings)
    assert job.end()[0] == 0
    seen = {int(name.partition(".")[0].rpartition("-")[2]): gpu for _, name, gpu in job.lines("began")}
    assert [seen[slot] for slot in sorted(seen)] == expected


def test_a_worker_started_again_keeps_its_gpu(job):
    job.start(f"say began; mkdir {job.folder}/$CUDA_VISIBLE_DEVICES && exit 3; exit 0", {"CUDA_VISIBLE_DEVICES": "3,5"})
    job.end()
    assert [gpu for _, _, gpu in job.lines("began")] == ["3", "3"]


def test_a_worker_is_told_its_job_its_wait_and_the_time_it_has(job):
    ends = time.time() + 3600
    job.says("RUNNING", end=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(ends)))
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}
    words = ["{job}", "{wait_s}", "{seconds_left}", "{python}", "/a {job}"]
    job.start(f'echo "$2|$3|$4|$5|$6" > {job.folder}/words', array, words, signal_delay_s=120)
    job.end()
    number, wait_s, left_s, python, other = (job.folder / "words").read_text().strip().split("|")
    assert (number, wait_s, python, other) == ("7_4", "90", sys.executable, "/a {job}")
    assert float(left_s) == pytest.approx(3480, abs=10)
    assert job.slurm.asked("scontrol")[0] == "--oneliner show job 7_4"


def test_a_job_without_a_time_limit_has_all_the_time(job):
    job.says("RUNNING", end="Unknown")
    job.start(f'echo "$2" > {job.folder}/words', words=["{seconds_left}"], signal_delay_s=120)
    job.end()
    assert (job.folder / "words").read_text() == "inf\n"


@pytest.mark.parametrize("inner", [True, False])
def test_only_a_command_that_submits_jobs_itself_sees_nothing_of_this_one(job, inner):
    variables = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_QOS": "high", "SRUN_CPUS_PER_TASK": "3", "SUBMITIT_X": "y"}
    job.start(f"env > {job.folder}/environment", variables, inner_submission=inner)
    job.end()
    seen = {line.partition("=")[0] for line in (job.folder / "environment").read_text().splitlines()}
    assert {"SLURM_CONF", "SLURMD_NODENAME"} <= seen
    of_this_job = {"SLURM_JOB_ID", "SBATCH_QOS", "SRUN_CPUS_PER_TASK", "SUBMITIT_X"}
    assert seen & of_this_job == (set() if inner else of_this_job)


@pytest.mark.parametrize(("worker", "outcome"), [("exit 0", "left"), ("exit 3", "crashed"), ("exit 75", "crashed")])
def test_a_job_says_beside_its_log_how_far_it_came(job, worker, outcome):
    path = outcome_file(job.folder, "7", 2)
    job.start(f'say "$(cat {path})"; {worker}', {"SUBMITIT_FOLDER": str(job.folder), "SLURM_RESTART_COUNT": "2"})
    job.end()
    assert {line[0] for line in job.lines()} == {"started"}
    assert path.read_text() == outcome
    assert list(job.folder.glob("*.outcome")) == [path]  # what earlier executions said stands beside it


@pytest.mark.parametrize(("state", "outcome"), [("RUNNING", "started"), ("COMPLETING", "left")])
def test_a_job_that_comes_back_has_not_ended(job, state, outcome):
    job.start(UNTIL_TOLD, {"SUBMITIT_FOLDER": str(job.folder)})
    job.await_lines("ready")
    job.says(state)
    job.end(signal.SIGTERM)
    assert outcome_file(job.folder, "7", 0).read_text() == outcome


def test_an_element_of_an_array_has_the_id_that_squeue_prints():
    assert job_of({"SLURM_JOB_ID": "9"}) == "9"
    assert job_of({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}) == "7_2"
