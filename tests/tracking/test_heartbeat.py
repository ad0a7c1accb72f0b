import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tracking.heartbeat import Heartbeat, LeaseWatch, process_identity, process_is_alive, read_heartbeat


def wait_until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_alive_counts_by_itself_and_progress_as_often_as_it_advanced(tmp_path):
    path = tmp_path / "attempt" / "heartbeat"
    assert read_heartbeat(path) is None
    with Heartbeat(path, interval_s=0.01) as heartbeat:
        assert read_heartbeat(path) is not None
        for _ in range(123):
            heartbeat.advance()
        wait_until(lambda: read_heartbeat(path)[1] == 123)
        alive = read_heartbeat(path)[0]
        wait_until(lambda: read_heartbeat(path)[0] > alive + 3)
    last = read_heartbeat(path)
    time.sleep(0.05)
    assert read_heartbeat(path) == last
    assert last[1] == 123


def test_advancing_costs_no_input_or_output(tmp_path):
    with Heartbeat(tmp_path / "heartbeat", interval_s=60.0) as heartbeat:
        began = time.perf_counter()
        for _ in range(10_000):
            heartbeat.advance()
        assert time.perf_counter() - began < 0.5
        assert read_heartbeat(tmp_path / "heartbeat") == (0, 0)


def test_a_heartbeat_outlives_a_disk_that_refuses_for_a_while(tmp_path):
    folder = tmp_path / "attempt"
    with Heartbeat(folder / "heartbeat", interval_s=0.01):
        (folder / "heartbeat").unlink()
        folder.rename(tmp_path / "away")
        time.sleep(0.05)
        (tmp_path / "away").rename(folder)
        wait_until(lambda: read_heartbeat(folder / "heartbeat") is not None)


@pytest.fixture
def beat(written_run):
    written_run.open(0)

    def beat(alive, progress):
        written_run.attempt.heartbeat_file.write_text(f"{alive:020d} {progress:020d}\n")

    return beat


def test_a_lease_is_judged_by_change_between_own_polls(written_run, beat):
    now = [100.0]
    watch = LeaseWatch(clock=lambda: now[0])

    def observe(at):
        now[0] = at
        lease = watch.observe(written_run.directory, 0)
        return lease.alive_unchanged_s, lease.progress_unchanged_s, lease.polls_unchanged

    assert observe(100.0) == (0.0, 0.0, 1)
    assert observe(103.0) == (3.0, 3.0, 2)
    beat(7, 0)
    assert observe(104.0) == (0.0, 0.0, 0)
    beat(8, 0)
    assert observe(106.0) == (0.0, 2.0, 0)
    beat(8, 5)
    assert observe(107.0) == (1.0, 0.0, 1)
    assert observe(110.0) == (4.0, 3.0, 2)
    written_run.attempt.heartbeat_file.unlink()
    assert observe(111.0) == (5.0, 4.0, 3)
    beat(0, 0)  # counted anew: a change too
    assert observe(112.0) == (0.0, 0.0, 0)
    watch.forget(written_run.directory, 0)
    assert observe(120.0) == (0.0, 0.0, 1)


def test_attempts_have_leases_of_their_own(written_run, beat):
    now = [0.0]
    watch = LeaseWatch(clock=lambda: now[0])
    beat(1, 1)
    watch.observe(written_run.directory, 0)
    now[0] = 5.0
    assert watch.observe(written_run.directory, 1).alive_unchanged_s == 0.0
    assert watch.observe(written_run.directory, 0).alive_unchanged_s == 5.0


def test_this_process_is_alive_and_a_reused_pid_is_not_it():
    identity = process_identity()
    assert identity["pid"] == os.getpid()
    assert process_is_alive(identity) is True
    assert process_is_alive({**identity, "start_time": "another boot/1"}) is False
    assert process_is_alive({**identity, "host": "elsewhere"}) is None


def test_a_killed_process_is_dead_before_and_after_its_parent_notices():
    code = (
        "from tracking.heartbeat import process_identity; import json, time; "
        "print(json.dumps(process_identity()), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        identity = json.loads(process.stdout.readline())
        assert process_is_alive(identity) is True
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: process_is_alive(identity) is False)  # a zombie by now
        process.wait()
        assert process_is_alive(identity) is False
