"""Who still works on a run: every combination of what process, files, heartbeat and scheduler may say."""

import itertools
import json
import subprocess
import sys

import pytest

from experiments.leases import Leases
from experiments.worker import presence_file
from tracking.heartbeat import process_identity, process_is_alive
from tracking.queue import QueueEntry, claim, claims, enqueue
from tracking.run_directory import StudyDirectory

LEASE_S, STALL_S, PATIENCE_S = 30.0, 900.0, 300.0
NONE, BRIEF, LONG = 0.0, 8.0, 32.0  # s of silence: none, more than the job's end needs, more than the lease
DEAD = {**process_identity(), "start_time": "another boot/1"}
ELSEWHERE = {**process_identity(), "host": "some-other-node"}
OWNERS = {"alive": process_identity(), "dead": DEAD, "elsewhere": ELSEWHERE, "unsigned": None}
STATES = ("pending", "running", "ending", "ended", None)


class Watched:
    """A claimed run, its worker's files and the scheduler as a test wants them, looked at by `Leases`."""

    def __init__(self, folder):
        self.study = StudyDirectory(folder / "study")
        self.study.create()
        self.now = 1000.0
        self.state = "running"
        self._alive = self._progress = 0
        self.leases = Leases(
            self.study,
            lease_s=LEASE_S,
            stall_timeout_s=STALL_S,
            patience_s=PATIENCE_S,
            job_state=lambda job: self.state if job == "7_1" else pytest.fail(f"asked for {job}"),
            clock=lambda: self.now,
        )

    def claimed(self, owner, job="7_1"):
        enqueue(self.study, QueueEntry("run", 0, 0))
        name = "slurm-7_1-0.abc123"
        if owner is None:
            [path] = self.study.queue.iterdir()
            path.rename(self.study.claimed / f"run.0.{name}.json")
        else:
            claim(self.study, name, owner | {"job": job})
        self.presence = presence_file(self.study, name)
        self.presence.touch()
        self.run = self.study.run("run")
        self.run.attempt(0).create()
        self.beat()

    def beat(self, progress=True):
        self._alive, self._progress = self._alive + 1, self._progress + progress
        self.run.attempt(0).heartbeat_file.write_text(f"{self._alive:020d} {self._progress:020d}\n")

    def look(self):
        [held] = claims(self.study)
        return self.leases.judge(self.run, held)

    def look_for(self, seconds, looks=12, beat=False, progress=True):
        """Look `looks` times over so many seconds and return the last verdict."""
        for _ in range(looks):
            self.now += seconds / looks
            if beat:
                self.beat(progress)
            verdict = self.look()
        return verdict


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def expected(owner, presence, state, silent_s):
    """The rules, in the order of their strength."""
    if owner == "alive":
        return "working"
    if owner == "unsigned":  # nobody knows of which job it is
        return "lost" if silent_s == LONG else "working"
    if presence == "requeued":
        return "lost" if state == "ended" else "returning"
    if presence == "gone":
        return "lost"
    if silent_s == NONE:
        return "working"
    if state == "ended":
        return "lost"
    if silent_s == BRIEF:
        return "working"
    return "lost" if state is None else "returning"


@pytest.mark.parametrize("owner", OWNERS)
def test_every_case_of_a_worker_in_a_job(watched, tmp_path, owner):
    states = STATES if owner in ("dead", "elsewhere") else ("ended", None)  # the others' jobs are not asked about
    cases = itertools.product(("there", "gone", "requeued"), states, (NONE, BRIEF, LONG))
    for number, (presence, state, silent_s) in enumerate(cases):
        case = Watched(tmp_path / str(number))
        case.claimed(OWNERS[owner])
        case.look()
        case.state = state
        if presence == "gone":
            case.presence.unlink()
        elif presence == "requeued":
            case.presence.rename(case.presence.with_suffix(".requeued"))
        verdict = case.look_for(silent_s or 12.0, beat=not silent_s)
        assert verdict == expected(owner, presence, state, silent_s), (presence, state, silent_s)


@pytest.mark.parametrize(
    ("owner", "silent_s", "verdict"),
    [
        ("alive", LONG, "working"),
        ("dead", NONE, "lost"),
        ("elsewhere", NONE, "working"),
        ("elsewhere", LEASE_S, "working"),
        ("elsewhere", LONG, "lost"),
        ("unsigned", LEASE_S, "working"),
        ("unsigned", LONG, "lost"),
    ],
)
def test_a_worker_without_a_job(watched, owner, silent_s, verdict):
    watched.claimed(OWNERS[owner], job=None)
    watched.look()
    assert watched.look_for(silent_s or 12.0, beat=not silent_s) == verdict


def test_a_heartbeat_is_not_silent_before_it_was_looked_at_often(watched):
    watched.claimed(ELSEWHERE, job=None)
    assert watched.look_for(100 * LEASE_S, looks=9) == "working"
    assert watched.look_for(1.0, looks=1) == "lost"


def test_a_worker_that_never_wrote_a_heartbeat_is_silent_too(watched):
    watched.claimed(ELSEWHERE, job=None)
    watched.run.attempt(0).heartbeat_file.unlink()
    watched.look()
    assert watched.look_for(LONG) == "lost"


@pytest.mark.parametrize("state", ["pending", "running", None])
def test_a_requeued_job_is_waited_for_so_long_and_no_longer(watched, state):
    watched.claimed(ELSEWHERE)
    watched.state = state
    watched.presence.rename(watched.presence.with_suffix(".requeued"))
    assert watched.look_for(1.0) == "returning"
    assert watched.look_for(PATIENCE_S - 2.0) == "returning"
    assert watched.look_for(2.0) == "lost"


def test_so_is_one_that_slurm_killed_and_queued_again(watched):
    watched.claimed(ELSEWHERE)
    watched.state = "pending"
    assert watched.look_for(LONG) == "working"  # the first look began the count
    assert watched.look_for(LONG) == "returning"
    assert watched.look_for(PATIENCE_S) == "lost"


def test_one_that_was_only_slow_is_waited_for_anew(watched):
    watched.claimed(ELSEWHERE)
    for _ in range(3):  # a node that is suspended, or a file system that is away, now and then
        watched.look()
        assert watched.look_for(LEASE_S + PATIENCE_S / 2) == "returning"
        assert watched.look_for(1.0, beat=True) == "working"
    assert watched.look_for(LEASE_S + PATIENCE_S / 2) == "returning"


@pytest.fixture
def other_process():
    code = (
        "from tracking.heartbeat import process_identity; import json, time; "
        "print(json.dumps(process_identity()), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("job", ["7_1", None])
def test_a_worker_here_that_is_alive_without_progress_is_killed_and_then_lost(watched, other_process, job):
    identity = json.loads(other_process.stdout.readline())
    watched.claimed(identity, job)
    watched.look()
    assert watched.look_for(STALL_S, beat=True, progress=False) == "working"
    assert process_is_alive(identity)
    watched.presence.unlink()  # as its host or launcher does
    assert watched.look_for(1.0, looks=1, beat=True, progress=False) == "working"
    other_process.wait(10)
    assert watched.look() == "lost"


def test_progress_keeps_it_alive_and_this_process_does_not_kill_itself(watched, other_process):
    watched.claimed(json.loads(other_process.stdout.readline()))
    watched.look()
    assert watched.look_for(3 * STALL_S, beat=True) == "working"
    assert other_process.poll() is None
    inline = Watched(watched.study.path)
    inline.claimed(process_identity())
    inline.look()
    assert inline.look_for(3 * STALL_S) == "working"  # and the test goes on
