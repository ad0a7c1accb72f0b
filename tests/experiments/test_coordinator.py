"""One coordinator in this process: how it leaves, what it does with its inbox, and with files that cannot be read."""

import errno
import os

import pytest
from support.planned import planned

from experiments import coordinator as coordinator_module
from experiments.coordinator import Coordinator
from experiments.datasets import Datasets
from experiments.failures import OperationError
from experiments.inbox import Request, ask, requests
from experiments.ledger import Ledger
from experiments.sweep import load_sweep
from experiments.worker import presence_file
from tracking import heartbeat
from tracking.mlflow_sink import ForwardReport
from tracking.queue import claim, queued

ELSEWHERE = {"host": "elsewhere", "pid": 1, "start_time": None, "job": "1"}


class Jobs:
    """A launcher whose jobs go on without the coordinator, and do nothing."""

    workers, outlives_coordinator = 4, True

    def __init__(self):
        self.told_to_stop = 0
        self.have_left = True
        self.look = 0
        self.at_look = {}  # number of the look -> what happens before it

    def pace(self):
        while True:
            self.look += 1
            self.at_look.get(self.look, lambda: None)()
            yield

    def ensure(self, wanted):
        pass

    def job_state(self, job):
        return "running"

    def at_work(self, job):
        pass

    lost = at_work

    def words(self):
        return None if self.have_left else "the scheduler does not answer"

    def request_stop(self):
        self.told_to_stop += 1

    def wait(self, timeout_s):
        return self.have_left


class View:
    def sync(self):
        pass


class Sink:
    def forward(self, run, info, final_status=None):
        return ForwardReport(complete=final_status is not None)


class Watched:
    """A study of two runs that wait, its coordinator, and what that has shown."""

    def __init__(self, sweep_file, root):
        self.study = planned(sweep_file, root, "seeds=1")
        self.jobs = Jobs()
        self.shown = []
        sweep = load_sweep(str(sweep_file), ["seeds=1"]).launched("inline", None)
        self.coordinator = Coordinator(
            self.study,
            sweep,
            Datasets(sweep.where),
            Ledger(self.study),
            View(),
            Sink(),
            self.jobs,
            lambda coordinator: self.shown.append(coordinator.warning),
        )

    def run(self, looks=3):
        """Coordinate for so many looks, unless it is stopped before."""
        self.jobs.at_look[looks] = self.coordinator.request_stop
        return self.coordinator.run()

    def ask_to_stop(self):
        self.asked = ask(self.study, Request("stop"))


@pytest.fixture
def watched(write_sweep, tmp_path):
    return Watched(write_sweep(), tmp_path / "runs")


def test_a_stop_that_was_met_is_removed(watched):
    watched.jobs.at_look[1] = watched.ask_to_stop
    assert not watched.run()
    assert (watched.jobs.told_to_stop, watched.coordinator.stopped_by_request) == (1, True)
    assert requests(watched.study) == []


def test_a_stop_that_comes_while_it_leaves_for_another_reason_is_left_to_whoever_asked(watched, monkeypatch):
    tell = Coordinator._tell

    def told_at_the_last_moment(coordinator):
        tell(coordinator)
        if coordinator._stopping:
            watched.ask_to_stop()

    monkeypatch.setattr(Coordinator, "_tell", told_at_the_last_moment)
    assert not watched.run()
    assert (watched.jobs.told_to_stop, watched.coordinator.stopped_by_request) == (0, False)
    assert watched.asked.exists()


def test_a_stop_is_not_met_before_the_workers_are_known_to_have_left(watched):
    watched.jobs.have_left = False
    watched.jobs.at_look[1] = watched.ask_to_stop
    assert not watched.run()
    assert watched.coordinator.not_over == "the scheduler does not answer"
    assert watched.asked.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting property name"),
        (b"\xff", "can't decode byte 0xff"),
        (b"[1]", "`what` must be one of stop, retry, prune"),
        (b'{"what": "finish"}', "`what` must be one of stop, retry, prune"),
        (b'{"what": ["stop"]}', "`what` must be one of stop, retry, prune"),
        (b'{"what": "prune", "runs": "abc"}', "`runs` must be a list of run ids"),
    ],
)
def test_what_is_no_request_is_moved_aside_with_a_warning_and_the_others_are_applied(watched, content, why):
    study = watched.study
    bad = study.inbox / "000-by-hand.json"

    def write():
        bad.write_bytes(content)
        ask(study, Request("prune", [study.run_ids()[0]]))

    watched.jobs.at_look[1] = write
    assert not watched.run()
    assert study.run(study.run_ids()[0]).prune_file.exists()
    assert [path.name for path in study.inbox.iterdir()] == ["000-by-hand.json.refused"]
    [said] = {warning for warning in watched.shown if warning}
    assert said.startswith(f"{bad}: is no request (")
    assert why in said
    assert said.endswith("; it is now 000-by-hand.json.refused")


@pytest.fixture
def unreadable(watched, monkeypatch):
    """Return a function that makes the next so many readings of a heartbeat fail."""
    held = claim(watched.study, "slurm-1-0.a", ELSEWHERE)
    presence_file(watched.study, held.worker).touch()
    read, left = heartbeat.read_heartbeat, []

    def read_or_fail(path):
        if left:
            number = left.pop()
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(heartbeat, "read_heartbeat", read_or_fail)
    return lambda number, kind=errno.ESTALE: left.extend([kind] * number)


def test_files_that_cannot_be_read_for_a_moment_are_a_warning_as_long_as_it_lasts(watched, unreadable, monkeypatch):
    monkeypatch.setattr(coordinator_module, "_MAX_FAILED_LOOKS", 4)
    unreadable(3)
    watched.jobs.at_look[5] = lambda: unreadable(3)
    assert not watched.run(looks=9)
    failed = [bool(warning) for warning in watched.shown[:9]]
    assert failed == [True] * 3 + [False] * 2 + [True] * 3 + [False]
    assert "a look at the study failed and will be repeated: [Errno 116] Stale file handle: '" in watched.shown[0]


def test_several_looks_in_a_row_that_fail_end_it_with_the_reason(watched, unreadable, monkeypatch):
    monkeypatch.setattr(coordinator_module, "_MAX_FAILED_LOOKS", 3)
    unreadable(3)
    with pytest.raises(OperationError, match=r"3 looks at the study in a row failed, .*Stale file handle.*goes on"):
        watched.run(looks=9)


def test_a_full_disk_ends_it_at_once(watched, unreadable):
    unreadable(1, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        watched.run()


def test_a_journal_that_cannot_be_read_for_a_moment_is_read_whole_later(watched, monkeypatch):
    from experiments import history
    from tracking.journal import JournalWriter

    run = watched.study.run(queued(watched.study)[0].run)
    chain, left = history.read_chain, [errno.ESTALE]

    def write():
        run.attempt(0).create()
        with JournalWriter(run.attempt(0).journal_file) as journal:
            journal.append("attempt", attempt=0, worker="w", continues=None, start_step=0, tags={"a": "b"})

    def read_or_fail(directory):
        if left:
            raise OSError(left.pop(), "Stale file handle")
        return chain(directory)

    monkeypatch.setattr(history, "read_chain", read_or_fail)
    watched.jobs.at_look[1] = write
    assert not watched.run()
    assert left == []
    assert watched.coordinator.runs[run.id].history.tags == {"a": "b"}


def test_runs_whose_folders_could_not_be_made_are_planned_by_the_next_look(write_sweep, tmp_path, monkeypatch):
    watched = Watched(write_sweep(), tmp_path / "runs")
    wider = load_sweep(str(write_sweep()), ["seeds=1", "space.loss.beta=[7]", "baseline={}"])
    monkeypatch.setattr(watched.coordinator, "sweep", wider)
    plan, left = coordinator_module.plan_run, [errno.ESTALE]

    def plan_or_fail(*arguments):
        if left:
            raise OSError(left.pop(), "Stale file handle")
        return plan(*arguments)

    monkeypatch.setattr(coordinator_module, "plan_run", plan_or_fail)
    assert not watched.run()
    assert left == []
    assert len(queued(watched.study)) == 3
