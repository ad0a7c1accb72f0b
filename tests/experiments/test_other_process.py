"""Functions called in a process of their own."""

import os
import subprocess
import sys
import time

import pytest

from experiments.other_process import called_elsewhere


def interpreter(folder, script):
    """Return the path of a script that stands for Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_several_processes_work_while_this_one_goes_on():
    with called_elsewhere(os.getpid) as first, called_elsewhere(os.getpid) as second:
        assert len({first(), second(), os.getpid()}) == 3


def test_arguments_and_results_arrive_as_they_are():
    odd = {"caf\udce9": [float("inf"), 1 / 3]}
    with called_elsewhere(sorted, [3, 1, 2], reverse=True) as numbers, called_elsewhere(dict, odd) as found:
        assert (numbers(), found()) == ([3, 2, 1], odd)


def test_what_the_function_raises_is_raised_here():
    with called_elsewhere(int, "torn") as result, pytest.raises(ValueError, match="torn"):
        result()


def test_where_the_process_dies_or_cannot_be_started_the_function_is_called_here(monkeypatch, tmp_path):
    for python in (interpreter(tmp_path, "kill -9 $$"), str(tmp_path / "missing")):
        monkeypatch.setattr(sys, "executable", python)
        with called_elsewhere(os.getpid) as result:
            assert result() == os.getpid()


def test_an_answer_that_is_cut_short_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "printf 'half an ans'"))
    with called_elsewhere(os.getpid) as result:
        assert result() == os.getpid()


def test_without_room_for_temporary_files_the_function_is_called_here(monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.other_process.TemporaryFile", full)
    with called_elsewhere(os.getpid) as result:
        assert result() == os.getpid()


def test_namesakes_in_the_current_folder_are_not_imported(monkeypatch, tmp_path):
    (tmp_path / "experiments").mkdir()
    for name in ("experiments/__init__.py", "experiments/other_process.py", "pickle.py"):
        (tmp_path / name).write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    with called_elsewhere(os.getpid) as result:
        assert result() != os.getpid()


def test_an_interruption_leaves_no_process_behind(monkeypatch, tmp_path):
    pids = tmp_path / "pids"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"echo $$ >> {pids}\nexec sleep 600"))
    wait = subprocess.Popen.wait
    interruptions = [KeyboardInterrupt()]

    def interrupted_wait(self, timeout=None):
        while not pids.exists() or len(pids.read_text().split()) < 2:
            time.sleep(0.01)
        if interruptions:
            raise interruptions.pop()
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted_wait)
    with (
        pytest.raises(KeyboardInterrupt),
        called_elsewhere(os.getpid) as first,
        called_elsewhere(os.getpid) as second,
    ):
        first(), second()

    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
