"""A run that nobody works on: its next attempt, or the end of patience with the machines."""

import pytest
from support.study_builder import StudyBuilder

from experiments.attempts import next_attempt
from experiments.history import HistoryTail, read_info
from experiments.run_watch import RunWatch
from tracking.journal import JournalWriter
from tracking.queue import QueueEntry, claim, claims, enqueue, finished, queued

OWNER = {"host": "n1", "pid": 1, "start_time": None}
MAX_RETRIES = 2


class Lost:
    """A run whose attempts end as a test says."""

    def __init__(self, folder):
        builder = StudyBuilder(folder / "runs" / "beta", {"loss.beta": [1.0]}, seeds=(0,))
        [self.id] = builder.cell(loss__beta=1.0)
        self.study, self.run = builder.study, builder.study.run(self.id)
        self.watch = RunWatch(self.run, read_info(self.run), 3, HistoryTail(self.run))

    def attempt(self, number, *lines, opened=True):
        """Leave an attempt behind with lines of these kinds (`end` with its fields)."""
        folder = self.run.attempt(number)
        folder.create()
        with JournalWriter(folder.journal_file) as journal:
            if opened:
                journal.append("attempt", attempt=number, worker="w", continues=None, start_step=0, tags={"a": "b"})
            for line in lines:
                kind, fields = (line, {}) if isinstance(line, str) else ("end", line)
                journal.append(kind, **fields)

    def next(self):
        """Let the run go on, and return what is queued of it: (attempt, scale of the pixel budget)."""
        next_attempt(self.study, self.watch, MAX_RETRIES)
        return [(entry.attempt, entry.pixel_budget_scale) for entry in queued(self.study)]

    @property
    def end(self):
        self.watch.tail.poll()
        return self.watch.history.end


@pytest.fixture
def lost(tmp_path):
    return Lost(tmp_path)


def failure(kind, scale=1.0):
    return {"status": "failed", "failure": kind, "reason": "x", "traceback": None, "pixel_budget_scale": scale}


def test_a_run_that_nobody_took_is_queued_with_its_order_and_once(lost):
    assert lost.next() == lost.next() == [(0, 1.0)]
    assert queued(lost.study)[0].order == 3


def test_the_claim_of_a_lost_worker_becomes_the_next_attempt(lost):
    enqueue(lost.study, QueueEntry(lost.id, 4, 3))
    lost.watch.claim = claim(lost.study, "w", OWNER)
    assert lost.next() == [(5, 1.0)]
    assert claims(lost.study) == []


def test_out_of_memory_is_tried_with_half_the_budget_and_the_claim_is_over(lost):
    enqueue(lost.study, QueueEntry(lost.id, 0, 3))
    lost.watch.claim = claim(lost.study, "w", OWNER)
    lost.attempt(0, failure("oom"))
    assert lost.next() == [(1, 0.5)]
    assert [entry.attempt for entry in finished(lost.study)] == [0]


@pytest.mark.parametrize("end", [failure("nan"), failure("oom", 0.5), {"status": "done"}, {"status": "pruned"}])
def test_a_run_that_came_to_its_end_meanwhile_has_no_next_attempt(lost, end):
    lost.attempt(0, {**failure(None), **end})
    assert lost.next() == []
    assert lost.run.attempts() == [0]


def test_attempts_lost_in_a_row_without_a_checkpoint_end_it_and_the_machines_are_to_blame(lost):
    lost.attempt(0)
    lost.attempt(1, opened=False)
    assert lost.next() == [(2, 1.0)]
    enqueued = claim(lost.study, "w", OWNER)
    lost.watch.claim = enqueued
    lost.attempt(2)
    assert lost.next() == []
    assert (claims(lost.study), [entry.attempt for entry in finished(lost.study)]) == ([], [2])
    assert lost.end["failure"] == "infrastructure"
    reason = "3 attempts in a row were lost without a new checkpoint; for the workers' last words see vae-sweep logs"
    assert lost.end["reason"].startswith(reason)
    assert lost.watch.state == "failed"
    assert lost.watch.history.tags == {"a": "b"}


def test_where_the_machine_said_why_that_is_the_reason(lost):
    for number in range(3):
        lost.attempt(number)
    with JournalWriter(lost.run.attempt(2).journal_file) as journal:
        journal.append("lost", reason="no GPU here")
    lost.next()
    assert lost.end["reason"].endswith("; no GPU here")


@pytest.mark.parametrize("kind", ["checkpoint", "interrupted"])
def test_an_attempt_that_left_something_begins_the_count_anew(lost, kind):
    for number in range(6):
        lost.attempt(number, *([kind] if number == 3 else []))
    assert lost.next() == [(6, 1.0)]


def test_somebody_elses_renewal_is_not_given_up(lost):
    enqueue(lost.study, QueueEntry(lost.id, 2, 3))
    lost.watch.claim = claim(lost.study, "w", OWNER)
    lost.watch.claim.path.rename(lost.study.claimed / f"{lost.id}.3.other.json")
    for number in range(3):
        lost.attempt(number)
    assert lost.next() == []
    assert lost.end is None
    assert [held.worker for held in claims(lost.study)] == ["other"]


@pytest.mark.parametrize("retried_after", [0, 3])
def test_another_try_has_all_its_attempts_again(lost, retried_after):
    for number in range(retried_after):
        lost.attempt(number)
    lost.attempt(retried_after, failure("data"))
    assert lost.next() == []
    lost.watch.retried_after = retried_after
    assert lost.next() == [(retried_after + 1, 1.0)]
    lost.study.queue.joinpath(*[path.name for path in lost.study.queue.iterdir()]).unlink()
    for number in range(retried_after + 1, retried_after + MAX_RETRIES + 1):
        lost.attempt(number)
    assert lost.next() == [(retried_after + MAX_RETRIES + 1, 1.0)]
    lost.attempt(retried_after + MAX_RETRIES + 1)
    lost.next()
    assert lost.end["failure"] == "infrastructure"
