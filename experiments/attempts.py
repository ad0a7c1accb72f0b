"""Gives a run that nobody works on its next attempt, or gives the run up where the machines keep losing it."""

from experiments.run_watch import RunWatch
from tracking.checkpoints import newest_checkpoint
from tracking.heartbeat import process_identity
from tracking.journal import JournalWriter, read_journal
from tracking.queue import Claim, QueueEntry, enqueue, finish, requeue
from tracking.run_directory import StudyDirectory


def next_attempt(study: StudyDirectory, watch: RunWatch, max_retries: int) -> None:
    """Queue the run's next attempt; after `max_retries` + 1 lost in a row, record that the machines are to blame."""
    watch.changed = watch.tail.poll() or watch.changed
    if watch.ended:  # the worker came to the end, and left, after the last look at its journal
        return
    claim: Claim | None = watch.claim
    number = max([*watch.directory.attempts(), claim.entry.attempt if claim else -1, -1]) + 1
    if _lost_in_a_row(watch) > max_retries:
        if claim is None or finish(study, claim):  # first: its worker's next execution may be about to renew it
            _give_up(study, watch, number, max_retries)
    elif watch.retries_memory:
        if claim is None or finish(study, claim):
            enqueue(study, QueueEntry(watch.directory.id, number, watch.order, pixel_budget_scale=0.5))
    elif claim:
        requeue(study, claim)
    else:
        enqueue(study, QueueEntry(watch.directory.id, number, watch.order))


def _lost_in_a_row(watch: RunWatch) -> int:
    """Return how many of the newest attempts ended without a checkpoint, since somebody asked for another try."""
    lost = 0
    forgiven = -1 if watch.retried_after is None else watch.retried_after
    for number in reversed(watch.directory.attempts()):
        kinds = {line.kind for line in read_journal(watch.directory.attempt(number).journal_file)}
        if kinds & {"checkpoint", "interrupted"} or number <= forgiven:
            break
        lost += 1
    return lost


def _give_up(study: StudyDirectory, watch: RunWatch, number: int, max_retries: int) -> None:
    """Record, as an attempt of its own, that the machine and not the run is to blame."""
    found = newest_checkpoint(watch.directory, number)
    identity = process_identity()
    logs = f"see vae-sweep logs {study.path.name} {watch.directory.id} --root {study.path.parent}"
    reason = watch.history.lost or f"for the workers' last words {logs}"
    with JournalWriter(watch.directory.attempt(number).journal_file) as journal:
        journal.append(
            "attempt",
            attempt=number,
            worker="coordinator",
            host=identity["host"],
            pid=identity["pid"],
            device=None,
            continues={"attempt": found.attempt, "n": found.covers} if found else None,
            start_step=found.step if found else 0,
            tags=watch.history.tags,
        )
        journal.append(
            "end",
            status="failed",
            failure="infrastructure",
            reason=f"{max_retries + 1} attempts in a row were lost without a new checkpoint; {reason}",
            traceback=None,
        )
