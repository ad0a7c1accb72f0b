"""What `vae-sweep run` says where there is no terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from support.study_builder import StudyBuilder

from experiments.display import Display
from experiments.history import HistoryTail
from experiments.run_watch import RunWatch
from tracking.journal import JournalWriter


@pytest.fixture
def builder(tmp_path):
    return StudyBuilder(tmp_path / "study", {"loss.beta": [0.5]}, seeds=(0,))


@pytest.fixture
def watch(builder):
    [run] = builder.cell(loss__beta=0.5)
    directory = builder.study.run(run)
    info = {"cell": "loss.beta=0.5", "seed": 0, "epochs": 2}
    return RunWatch(directory, info, 0, HistoryTail(directory), running=True)


def begin(watch, number, *, start_step, after=None, **place):
    """Write the first line of an attempt."""
    attempt = watch.directory.attempt(number)
    attempt.create()
    before = None if number == 0 else {"attempt": number - 1, "n": 0}
    facts = {"worker": "w", "continues": before, "start_step": start_step, "tags": {}, "after": after}
    with JournalWriter(attempt.journal_file) as journal:
        journal.append("attempt", attempt=number, **facts, **place)
    watch.tail.poll()


def said(watch) -> list[str]:
    """Return the lines about a run whose second attempt has just begun."""
    console = Console(file=io.StringIO(), width=200)
    coordinator = SimpleNamespace(runs={"run": watch}, warning=None, words=lambda: None)
    with Display(console, workers=1) as display:
        display.show(coordinator)
        display.show(coordinator)  # the same is not said twice
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("after", "start_step", "end", "start"),
    [
        ("lost", 40, "was lost before it could write another", "the checkpoint of step 40"),
        ("lost", 0, "was lost before it could write another", "the start"),
        ("interrupted", 43, "was interrupted", "the checkpoint of step 43"),
        ("failed", 40, "failed", "the checkpoint of step 40"),
    ],
)
def test_where_the_next_attempt_goes_on_is_said_once(watch, after, start_step, end, start):
    begin(watch, 0, start_step=0)
    begin(watch, 1, start_step=start_step, after=after)
    words = f"attempt 0 {end}; attempt 1 goes on from {start}"
    assert said(watch) == [f"loss.beta=0.5 seed=0: {words}", "loss.beta=0.5 seed=0: running, epoch 0/2"]


def test_the_job_is_named(watch):
    begin(watch, 0, start_step=0)
    begin(watch, 1, start_step=7, after="lost", job="12_3", host="n2", gpus=1, wait_s=3.0)
    assert said(watch)[0].endswith("goes on from the checkpoint of step 7 in job 12_3 on n2")


def test_of_a_first_attempt_there_is_nothing_to_go_on_from(watch):
    begin(watch, 0, start_step=0)
    assert said(watch) == ["loss.beta=0.5 seed=0: running, epoch 0/2"]
