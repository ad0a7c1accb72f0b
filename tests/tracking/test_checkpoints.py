import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from tracking.checkpoints import newest_checkpoint, save_checkpoint

PROJECT = Path(__file__).parents[2]


def save(run, step, covers, keep=2):
    state = {"weights": {"w": torch.full((3,), float(step))}, "step": step, "order": [1, 2], "name": "x"}
    return save_checkpoint(run.attempt, state, step=step, covers=covers, keep=keep)


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_comes_back_as_it_was_saved_under_a_name_that_checks_it(written_run):
    written_run.open(0)
    line = written_run.epoch(1)
    path = save(written_run, 10, line.n)
    assert path.name == f"00000010-000001-{zlib.crc32(path.read_bytes()):08x}.pt"
    found = newest_checkpoint(written_run.directory, 1)
    assert (found.path, found.attempt, found.step, found.covers) == (path, 0, 10, 1)
    assert torch.equal(found.state["weights"]["w"], torch.full((3,), 10.0))
    assert {key: found.state[key] for key in ("step", "order", "name")} == {
        "step": 10,
        "order": [1, 2],
        "name": "x",
    }


def test_the_newest_two_are_kept_and_the_litter_of_a_kill_is_removed(written_run):
    written_run.open(0)
    (written_run.attempt.checkpoints / ".00000001-000001-00000000.pt.abc.tmp").write_bytes(b"torn")
    paths = [save(written_run, step, 0) for step in (8, 9, 10, 11)]
    assert sorted(written_run.attempt.checkpoints.iterdir()) == sorted(paths[-2:])
    assert newest_checkpoint(written_run.directory, 1).step == 11


def test_a_damaged_checkpoint_is_passed_over_for_the_older_and_then_for_an_earlier_attempt(written_run):
    written_run.open(0)
    oldest = save(written_run, 1, 0)
    written_run.open(1, continues=(0, 0))
    older, newest = save(written_run, 2, 0), save(written_run, 3, 0)
    found = []
    for path in (newest, older, oldest):
        found.append(newest_checkpoint(written_run.directory, 2))
        damage(path)
    assert [(item.attempt, item.step) for item in found] == [(1, 3), (1, 2), (0, 1)]
    assert newest_checkpoint(written_run.directory, 2) is None


def test_a_truncated_checkpoint_is_passed_over(written_run):
    written_run.open(0)
    save(written_run, 1, 0)
    newest = save(written_run, 2, 0)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert newest_checkpoint(written_run.directory, 1).step == 1


def test_only_earlier_attempts_count(written_run):
    written_run.open(0)
    save(written_run, 1, 0)
    written_run.open(1, continues=(0, 0))
    save(written_run, 2, 0)
    assert newest_checkpoint(written_run.directory, 0) is None
    assert newest_checkpoint(written_run.directory, 1).step == 1
    assert newest_checkpoint(written_run.directory, 2).step == 2


def test_a_checkpoint_without_the_journal_it_claims_does_not_count(written_run):
    written_run.open(0)
    save(written_run, 1, 0)
    save(written_run, 2, covers=7)
    assert newest_checkpoint(written_run.directory, 1).step == 1
    written_run.attempt.journal_file.unlink()
    assert newest_checkpoint(written_run.directory, 1) is None


def test_a_checkpoint_cannot_run_code(written_run):
    written_run.open(0)
    save_checkpoint(written_run.attempt, {"evil": Path("/")}, step=1, covers=0)
    with pytest.raises(Exception, match="Weights only load failed"):
        newest_checkpoint(written_run.directory, 1)


KILLED_SAVES = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from tracking.checkpoints import newest_checkpoint, save_checkpoint
from tracking.journal import JournalWriter
from tracking.run_directory import RunDirectory

torch.set_num_threads(1)
run = RunDirectory(Path(sys.argv[1]))
weights = torch.zeros(50_000)

def save_for_ever(number, step):
    attempt = run.attempt(number)
    with JournalWriter(attempt.journal_file) as journal:
        journal.append("attempt", attempt=number, continues=None)
        while True:
            step += 1
            line = journal.append("epoch", epoch=step)
            state = {"weights": weights + step, "step": step}
            path = save_checkpoint(attempt, state, step=step, covers=line.n)
            journal.append("checkpoint", step=step, covers=line.n)

rng = random.Random(1)
step = 0
seen = []
for number in range(10):
    child = os.fork()
    if child == 0:
        save_for_ever(number, step)
    folder = run.attempt(number).checkpoints
    while not list(folder.glob("*.pt")):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = newest_checkpoint(run, number + 1)
    names = sorted(path.name for path in folder.glob("*.pt"))
    assert found.attempt == number
    assert found.path.name == names[-1], "the newest was not loadable"
    assert 1 <= len(names) <= 3, names
    assert torch.equal(found.state["weights"], weights + found.step)
    assert found.step > step
    step = found.step
    seen.append(step)
print(json.dumps(seen))
"""


def test_a_kill_while_saving_leaves_a_loadable_newest_checkpoint(written_run):
    finished = subprocess.run(
        [sys.executable, "-c", KILLED_SAVES, written_run.directory.path],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert len(json.loads(finished.stdout)) == 10
