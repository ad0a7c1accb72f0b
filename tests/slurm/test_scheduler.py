"""What is made of the words of squeue and sacct, and of their silence."""

from datetime import datetime, timedelta

import pytest
from support.fake_slurm import FakeSlurm

from slurm.scheduler import JobState, Scheduler

NAME = "vae-sweep-tiny"
ALIVE = {
    "pending": ["PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"],
    "running": ["CONFIGURING", "POWER_UP_NODE", "RUNNING", "RESIZING", "SIGNALING", "SUSPENDED", "STOPPED"],
    "ending": ["COMPLETING", "STAGE_OUT", "EXPEDITING"],
}
FINAL = ["COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"]
FINAL += ["REVOKED", "PREEMPTED"]
STATES = [(state, kind) for kind, states in ALIVE.items() for state in states] + [(state, "ended") for state in FINAL]
T0, T1 = "2026-03-02T10:00:00", "2026-03-02T10:01:30"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def scheduler(clock):
    return Scheduler(NAME, 5.0, clock=lambda: clock[0])


def line(job, state, node="", reason="None", submitted=T0, started=T1):
    return f"{job}|{state}|{node}|{reason}|{submitted}|{started}\n"


@pytest.mark.parametrize(("state", "kind"), STATES)
def test_every_state_of_squeue_is_pending_running_ending_or_ended(slurm, scheduler, state, kind):
    slurm.prints("squeue", line("7", state, "n1", "Reason"))
    assert scheduler.state("7").state == kind
    assert set(scheduler.jobs()) == ({"7"} if kind != "ended" else set())


@pytest.mark.parametrize(("state", "kind"), STATES)
def test_and_of_sacct(slurm, scheduler, state, kind):
    slurm.prints("sacct", f"7|{state}|n1|{T0}|{T1}\n")
    assert scheduler.state("7").state == kind


def test_jobs_arrays_holds_and_requeues_are_told_apart(slurm, scheduler):
    slurm.prints(
        "squeue",
        line("7", "RUNNING", "n1")
        + line("8_0", "COMPLETING", "n2")
        + line("8_1", "PENDING", reason="JobArrayTaskLimit", started="N/A")
        + line("8_2", "PENDING", reason="JobHeldUser", started="N/A")
        + line("9", "PENDING", reason="BeginTime", started="N/A"),
    )
    jobs = scheduler.jobs()
    assert jobs["7"] == JobState("7", "running", "n1", None, 90.0)
    assert jobs["8_0"] == JobState("8_0", "ending", "n2", None, 90.0)
    assert {job: state.reason for job, state in jobs.items() if state.state == "pending"} == {
        "8_1": "JobArrayTaskLimit",
        "8_2": "JobHeldUser",
        "9": "BeginTime",
    }
    assert [job for job, state in jobs.items() if state.held] == ["8_2"]
    assert scheduler.state("8_3") == JobState("8_3", "ended")
    assert scheduler.problem is None


HELD = [
    ("PENDING", "JobHeldAdmin"),
    ("PENDING", "JobHeldUser"),
    ("PENDING", "JobHoldMaxRequeue"),
    ("PENDING", "launch failed requeued held"),
    ("PENDING", "launch_failed_requeued_held"),
    ("REQUEUE_HOLD", "None"),
    ("SPECIAL_EXIT", "None"),
    ("RESV_DEL_HOLD", "None"),
]


@pytest.mark.parametrize(("state", "reason"), HELD)
def test_jobs_that_wait_for_somebody_to_release_them_are_held(slurm, scheduler, state, reason):
    slurm.prints("squeue", line("7", state, reason=reason) + line("8", "PENDING", reason="Priority"))
    jobs = scheduler.jobs()
    assert (jobs["7"].state, jobs["7"].held) == ("pending", True)
    assert not jobs["8"].held
    if reason == "None":
        slurm.refuses("squeue")
        slurm.prints("sacct", f"7|{state}|None assigned|{T0}|Unknown\n")
        assert scheduler.jobs(fresh=True)["7"].held


def test_a_pending_job_has_waited_until_now_and_its_expected_start_does_not_count(slurm, scheduler):
    submitted = (datetime.now() - timedelta(hours=1)).isoformat(timespec="seconds")
    later = (datetime.now() + timedelta(hours=9)).isoformat(timespec="seconds")
    slurm.prints(
        "squeue",
        line("7", "PENDING", submitted=submitted, started=later)
        + line("8", "PENDING", submitted="N/A", started="N/A")
        + line("9", "RUNNING", "n1", submitted=T1, started=T0),
    )
    waits = {job: state.wait_s for job, state in scheduler.jobs().items()}
    assert waits["7"] == pytest.approx(3600, abs=10)
    assert (waits["8"], waits["9"]) == (None, 0.0)


def test_squeue_is_asked_for_the_jobs_of_one_name_each_element_for_itself(slurm, scheduler):
    slurm.prints("squeue")
    slurm.prints("sacct")
    assert scheduler.jobs() == {}
    [question] = slurm.asked("squeue")
    assert question == f"--noheader --array --states all --name {NAME} --format %i|%T|%N|%r|%V|%S"
    assert slurm.asked("sacct") == []


SACCT = f"""\
11|CANCELLED by 0|None assigned|{T0}|{T1}
12_[0-2,5%4]|PENDING|None assigned|{T0}|Unknown
12_3|RUNNING|n1|{T0}|{T1}
12_4|COMPLETED|n1|{T0}|{T1}
13_[0-12:3]|PENDING|None assigned|{T0}|Unknown
14_[7]|PENDING|None assigned|{T0}|Unknown
15|REQUEUED|n2|{T0}|{T1}
"""


@pytest.mark.parametrize("squeue", ["refuses", "missing"])
def test_where_squeue_does_not_answer_sacct_does(slurm, scheduler, squeue):
    if squeue == "refuses":
        slurm.refuses("squeue")
    slurm.prints("sacct", SACCT)
    jobs = scheduler.jobs()
    pending = ["12_0", "12_1", "12_2", "12_5", *(f"13_{task}" for task in (0, 3, 6, 9, 12)), "14_7", "15"]
    assert sorted(job for job, state in jobs.items() if state.state == "pending") == sorted(pending)
    assert jobs["12_3"] == JobState("12_3", "running", "n1", None, 90.0)
    assert jobs["12_0"] == JobState("12_0", "pending", None, None, None)
    assert scheduler.state("11").state == scheduler.state("12_4").state == "ended"
    assert scheduler.problem is None
    [question] = slurm.asked("sacct")
    assert f"--name {NAME} " in question
    assert "--allocations" in question


def test_lists_of_array_tasks_are_asked_for_uncut_and_times_in_the_standard_form(slurm, scheduler, monkeypatch):
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_BITSTR_LEN", "8")
    slurm.runs("sacct", f'echo "$SLURM_BITSTR_LEN$SLURM_TIME_FORMAT|PENDING|None assigned|{T0}|Unknown"')
    assert list(scheduler.jobs()) == ["0standard"]


def test_where_nobody_answers_nothing_is_known_and_the_problem_says_why(slurm, scheduler):
    slurm.refuses("squeue", "Unable to contact slurm controller (connect failure)")
    slurm.refuses("sacct", "Slurm accounting storage is disabled")
    assert scheduler.jobs() is None
    assert scheduler.state("7") is None
    assert scheduler.problem == (
        "squeue: Unable to contact slurm controller (connect failure); sacct: Slurm accounting storage is disabled"
    )


def test_where_nothing_is_installed_the_problem_says_so(slurm, scheduler):
    assert scheduler.jobs() is None
    assert scheduler.problem == "squeue is not installed here; sacct is not installed here"


def test_the_last_answer_stands_while_there_is_no_other_but_is_not_passed_off_as_news(slurm, scheduler, clock):
    slurm.prints("squeue", line("7", "RUNNING", "n1"))
    before = scheduler.jobs()
    slurm.refuses("squeue")
    clock[0] = 5.0
    assert scheduler.jobs() == before
    assert scheduler.state("7") is None  # whether it still runs is not known
    assert scheduler.state("8") is None
    assert "Unable to contact" in scheduler.problem
    slurm.prints("squeue", line("8", "PENDING"))
    clock[0] = 10.0
    assert scheduler.state("7").state == "ended"
    assert scheduler.state("8").state == "pending"
    assert scheduler.problem is None


def test_the_scheduler_is_asked_once_an_interval(slurm, scheduler, clock):
    slurm.prints("squeue", line("7", "RUNNING", "n1"))
    for at in (0.0, 1.0, 4.9):
        clock[0] = at
        scheduler.jobs()
        scheduler.state("7")
    assert len(slurm.asked("squeue")) == 1
    clock[0] = 5.0
    scheduler.state("7")
    scheduler.jobs()
    assert len(slurm.asked("squeue")) == 2
    scheduler.jobs(fresh=True)
    assert len(slurm.asked("squeue")) == 3
    clock[0] = 9.9
    scheduler.jobs()
    assert len(slurm.asked("squeue")) == 3


def test_nor_is_one_that_does_not_answer_asked_more_often(slurm, scheduler, clock):
    slurm.refuses("squeue")
    for at in (0.0, 1.0, 4.9):
        clock[0] = at
        scheduler.jobs()
    assert len(slurm.asked("squeue")) == 1


def test_what_was_submitted_waits_until_squeue_has_shown_it_but_not_for_ever(slurm, scheduler, clock):
    slurm.prints("squeue", line("7", "RUNNING", "n1"))
    scheduler.jobs()
    scheduler.submitted(["8_0", "8_1", "8_2", "8_3"])
    scheduler.cancelled(["8_3"])
    slurm.prints("squeue", line("7", "RUNNING", "n1") + line("8_1", "RUNNING", "n1") + line("8_2", "FAILED", "n1"))
    clock[0] = 5.0
    assert set(scheduler.jobs()) == {"7", "8_0", "8_1"}  # 8_2 was short
    assert [job for job in ("7", "8_0", "8_1", "8_2") if scheduler.shows(job)] == ["7", "8_1"]
    assert scheduler.state("8_0").state == "pending"
    assert scheduler.state("8_2").state == scheduler.state("8_3").state == "ended"
    slurm.prints("squeue", line("7", "RUNNING", "n1"))
    clock[0] = 10.0
    assert set(scheduler.jobs()) == {"7", "8_0"}
    clock[0] = 119.0
    assert set(scheduler.jobs()) == {"7", "8_0"}
    clock[0] = 125.0
    assert set(scheduler.jobs()) == {"7"}
    assert scheduler.state("8_0").state == "ended"


def test_accounting_which_may_lag_behind_ends_no_job_that_squeue_has_shown(slurm, scheduler, clock):
    slurm.prints("squeue", line("7", "RUNNING", "n1") + line("8", "RUNNING", "n1") + line("9", "RUNNING", "n1"))
    scheduler.jobs()
    assert scheduler.heard_at == 0.0
    slurm.refuses("squeue")
    slurm.prints("sacct", f"7|RUNNING|n1|{T0}|{T1}\n8|NODE_FAIL|n1|{T0}|{T1}\n10|PENDING|None assigned|{T0}|Unknown\n")
    clock[0] = 5.0
    assert set(scheduler.jobs()) == {"7", "8", "9", "10"}
    assert [scheduler.state(job) and scheduler.state(job).state for job in ("7", "8", "9", "10", "11")] == [
        "running",
        None,
        None,
        "pending",
        None,
    ]
    assert scheduler.problem is None
    assert scheduler.heard_at == 0.0  # which jobs live is not known since
    slurm.prints("squeue", line("8", "RUNNING", "n1"))
    clock[0] = 10.0
    assert set(scheduler.jobs()) == {"8"}
    assert scheduler.state("7").state == "ended"


def test_where_squeue_has_never_answered_accounting_is_believed_about_all_but_new_jobs(slurm, scheduler, clock):
    slurm.prints("sacct", f"7|COMPLETED|n1|{T0}|{T1}\n")
    scheduler.submitted(["7", "8"])
    assert set(scheduler.jobs()) == {"8"}
    assert scheduler.state("7").state == "ended"
    clock[0] = 125.0
    assert scheduler.jobs() == {}
    assert scheduler.state("8").state == "ended"
    assert scheduler.heard_at == 125.0
