import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tracking.queue import QueueEntry, claim, claims, enqueue, finish, finished, queued, renew, requeue
from tracking.run_directory import StudyDirectory

PROJECT = Path(__file__).parents[2]
OWNER = {"host": "here", "pid": 1, "start_time": "x"}


@pytest.fixture
def study(tmp_path):
    study = StudyDirectory(tmp_path / "study")
    study.create()
    return study


def test_an_entry_goes_from_queued_over_claimed_to_done(study):
    entry = QueueEntry("run_a", 2, 7, pixel_budget_scale=0.5)
    assert enqueue(study, entry)
    assert queued(study) == [entry]
    assert [path.name for path in study.queue.iterdir()] == ["000007-run_a.2.json"]
    won = claim(study, "w.0-host", OWNER)
    assert (won.entry, won.worker, won.owner) == (entry, "w.0-host", OWNER)
    assert won.path == study.claimed / "run_a.2.w.0-host.json"
    assert claims(study) == [won]
    assert queued(study) == []
    assert claim(study, "w1", OWNER) is None
    assert finish(study, won)
    assert (claims(study), finished(study)) == ([], [entry])
    assert [path.name for path in study.done.iterdir()] == ["run_a.2.json"]


def test_entries_are_claimed_in_order(study):
    for order in (10, 2, 33, 1):
        enqueue(study, QueueEntry(f"run-{order}", 0, order))
    assert [entry.order for entry in queued(study)] == [1, 2, 10, 33]
    assert [claim(study, "w", OWNER).entry.order for _ in range(4)] == [1, 2, 10, 33]


def test_an_attempt_is_queued_once_wherever_it_has_got_to(study):
    entry = QueueEntry("run", 0, 1)
    assert enqueue(study, entry)
    assert not enqueue(study, QueueEntry("run", 0, 2))
    won = claim(study, "w", OWNER)
    assert not enqueue(study, entry)
    finish(study, won)
    assert not enqueue(study, entry)
    assert enqueue(study, QueueEntry("run", 1, 1))
    assert enqueue(study, QueueEntry("run", 10, 1))
    assert enqueue(study, QueueEntry("run2", 0, 1))


@pytest.mark.parametrize("runs", [10, 20])
def test_to_queue_a_run_reads_no_other_and_lists_each_folder_once(study, monkeypatch, runs):
    asked = Counter()

    def counted(name, real):
        def call(*arguments, **options):
            asked[name] += 1
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(Path, "read_bytes", counted("reads", Path.read_bytes))
    monkeypatch.setattr(os, "scandir", counted("listings", os.scandir))
    for order in range(runs):
        assert enqueue(study, QueueEntry(f"run{order}", 0, order))
    assert not enqueue(study, QueueEntry("run0", 0, 0))
    assert asked == {"listings": 2 * runs + 1}  # the queue and the claims; the one that is known is found in the queue


def test_a_claim_whose_worker_died_before_signing_has_no_owner(study):
    entry = QueueEntry("run", 0, 1)
    enqueue(study, entry)
    [path] = study.queue.iterdir()
    target = study.claimed / "run.0.w.json"
    path.rename(target)
    whole = target.read_bytes()
    for torn in ("", '{"worker": "w", "ow', '{"worker": "w", "owner": {"host": "here"}}'):
        target.write_bytes(whole + torn.encode())
        [found] = claims(study)
        assert (found.entry, found.worker, found.owner) == (entry, "w", None)


def test_a_claim_taken_away_cannot_be_finished_and_is_not_brought_back(study):
    enqueue(study, QueueEntry("run", 0, 1, 0.5))
    won = claim(study, "w", OWNER)
    assert requeue(study, won)
    assert claims(study) == []
    assert queued(study) == [QueueEntry("run", 1, 1, 0.5)]
    assert not finish(study, won)
    assert (finished(study), claims(study)) == ([], [])


def test_a_lost_claim_is_queued_again_or_renewed_by_its_worker_but_not_both(study):
    for first in ("queue", "renew"):
        entry = QueueEntry(f"run-{first}", 0, 1)
        enqueue(study, entry)
        won = claim(study, "job.a", OWNER)
        if first == "queue":
            assert requeue(study, won)
            assert renew(study, won, "job.b", OWNER) is None
            assert claim(study, "job.b", OWNER).entry == QueueEntry(entry.run, 1, 1)
        else:
            renewed = renew(study, won, "job.b", OWNER)
            assert (renewed.entry, renewed.worker, renewed.owner) == (QueueEntry(entry.run, 1, 1), "job.b", OWNER)
            assert claims(study)[-1] == renewed
            assert not requeue(study, won)
            assert queued(study) == []


def test_a_claim_renewed_between_listing_and_reading_is_seen(study, monkeypatch):
    enqueue(study, QueueEntry("run", 0, 1))
    won = claim(study, "job.a", OWNER)
    real, renewed = Path.read_bytes, []

    def renew_and_read(path):
        if path == won.path and not renewed:
            renewed.append(renew(study, won, "job.b", OWNER))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", renew_and_read)
    assert [found.worker for found in claims(study)] == ["job.b"]
    assert renewed


def test_a_claim_not_yet_signed_again_has_no_owner(study):
    """The signatures of earlier attempts, and of other workers, say nothing of this one."""
    enqueue(study, QueueEntry("run", 0, 1))
    requeue(study, claim(study, "w", OWNER))
    [path] = study.queue.iterdir()
    target = study.claimed / "run.1.w.json"
    path.rename(target)
    assert [found.owner for found in claims(study)] == [None]
    target.rename(study.claimed / "run.0.other.json")
    assert [found.owner for found in claims(study)] == [None]


def test_a_signature_after_a_torn_one_is_read(study):
    enqueue(study, QueueEntry("run", 0, 1))
    [path] = study.queue.iterdir()
    path.write_bytes(path.read_bytes() + b'{"worker": "w", "ow')
    won = claim(study, "w", OWNER)
    assert claims(study) == [won]
    assert won.owner == OWNER


def test_a_claim_taken_away_before_it_was_signed_is_not_won(study, monkeypatch):
    enqueue(study, QueueEntry("run", 0, 1))
    real = Path.rename

    def rename_and_lose(self, target):
        real(self, target)
        Path(target).unlink()

    monkeypatch.setattr(Path, "rename", rename_and_lose)
    assert claim(study, "w", OWNER) is None
    monkeypatch.undo()
    assert claims(study) == []


def test_a_claim_taken_away_while_it_is_signed_is_not_won(study, monkeypatch):
    enqueue(study, QueueEntry("run", 0, 1))
    real = json.dumps

    def lose_and_dump(value):
        (study.claimed / "run.0.w.json").unlink()
        return real(value)

    monkeypatch.setattr(json, "dumps", lose_and_dump)
    assert claim(study, "w", OWNER) is None
    assert claims(study) == []


def test_a_rename_that_succeeds_and_reports_an_error_is_a_claim(study, monkeypatch):
    enqueue(study, QueueEntry("run", 0, 1))
    real = Path.rename

    def rename_and_complain(self, target):
        real(self, target)
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "rename", rename_and_complain)
    assert claim(study, "w", OWNER).entry.run == "run"


def test_names_that_would_break_the_file_names_are_refused(study):
    with pytest.raises(ValueError, match=r"a run id holds letters.*got 'a\.b'"):
        enqueue(study, QueueEntry("a.b", 0, 1))
    enqueue(study, QueueEntry("run", 0, 1))
    with pytest.raises(ValueError, match=r"worker's name holds letters.*got '\.\./w'"):
        claim(study, "../w", OWNER)


RACER = """
import sys
from pathlib import Path
from tracking.queue import claim, finish
from tracking.run_directory import StudyDirectory

study = StudyDirectory(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
won = []
while (found := claim(study, sys.argv[2], {"pid": 1})) is not None:
    won.append(f"{found.entry.run}.{found.entry.attempt}")
print(" ".join(won))
"""


def test_racing_workers_take_every_entry_once(study):
    for order in range(50):
        enqueue(study, QueueEntry(f"run{order}", order % 3, order))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, study.path, f"w{index}"],
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].split() for racer in racers]
    assert Counter(name for names in won for name in names) == Counter(f"run{i}.{i % 3}" for i in range(50))
    assert sum(bool(names) for names in won) >= 2
    assert queued(study) == []
    assert Counter(found.worker for found in claims(study)) == Counter(
        {f"w{index}": len(names) for index, names in enumerate(won) if names}
    )
    first, second = next(iter(study.claimed.iterdir())).read_text().splitlines()
    assert json.loads(first).keys() == {"run", "attempt", "order", "pixel_budget_scale"}
    assert json.loads(second)["owner"] == {"pid": 1}
