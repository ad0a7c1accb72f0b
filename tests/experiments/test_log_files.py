"""Which files a run's attempts have written to, and the ends of the newest."""

import io

import pytest
from rich.console import Console
from support.study_builder import StudyBuilder

from experiments.log_files import show_logs
from experiments.slurm_logs import logs_of, newest_log
from tracking.journal import JournalWriter
from vae_core.errors import UserError


@pytest.fixture
def builder(tmp_path):
    return StudyBuilder(tmp_path / "runs" / "beta", {"loss.beta": [1.0, 4.0]})


def attempt(study, run, number, worker, host="n1", job=None, opened=True):
    folder = study.run(run).attempt(number)
    folder.create()
    with JournalWriter(folder.journal_file) as journal:
        if opened:
            journal.append("attempt", attempt=number, worker=worker, host=host, job=job, tags={})


def job_log(study, job, text, kind="err", folder="0123abcd"):
    path = study.slurm / folder / f"{job}_0_log.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def worker_log(study, worker, text):
    path = study.workers / f"{worker}.log"
    path.write_text(text)
    return path


def shown(builder, *words, lines=20):
    """Return (rows of the table, what is printed below it)."""
    console = Console(file=io.StringIO(), width=400)
    show_logs(builder.study.path.parent, "beta", list(words), lines, console)
    table, _, below = console.file.getvalue().rpartition("└")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return rows, below.partition("\n")[2]


def test_every_attempt_has_a_line_with_its_job_its_node_and_its_files(builder):
    first, second = builder.cell(loss__beta=1.0)
    study = builder.study
    attempt(study, first, 0, "slurm-7_1-0.a", "n1", "7_1")
    attempt(study, first, 1, "slurm-7_1-0.b", "n2", "7_1")
    attempt(study, second, 0, "local-1-1", "laptop")
    attempt(study, second, 1, "inline-1", "laptop")
    err, out = job_log(study, "7_1", "x"), job_log(study, "7_1", "x", "out")
    job_log(study, "7_10", "of another job")
    local = worker_log(study, "local-1-1", "x")
    rows, below = shown(builder)
    assert rows == [
        [first, "loss.beta=1.0 seed=0", "0", "7_1", "n1", str(err)],
        ["", "", "", "", "", str(out)],
        [first, "loss.beta=1.0 seed=0", "1", "7_1", "n2", str(err)],
        ["", "", "", "", "", str(out)],
        [second, "loss.beta=1.0 seed=1", "0", "-", "laptop", str(local)],
        [second, "loss.beta=1.0 seed=1", "1", "-", "laptop", "not there (an inline worker has none)"],
    ]
    assert below == f"The ends of a run's logs: vae-sweep logs beta RUN --root {study.path.parent}\n"


def test_an_attempt_that_was_never_opened_or_given_up_by_the_coordinator_is_no_trouble(builder):
    run, _ = builder.cell(loss__beta=1.0)
    attempt(builder.study, run, 0, "w", opened=False)
    folder = builder.study.run(run).attempt(1)
    folder.create()
    with JournalWriter(folder.journal_file) as journal:  # as the coordinator writes it, with no job
        journal.append("attempt", attempt=1, worker="coordinator", host="login", tags={})
    rows, _ = shown(builder)
    assert [row[2:5] for row in rows] == [["1", "-", "login"]]


def test_the_ends_of_the_newest_attempts_logs_are_printed_for_the_runs_that_are_named(builder):
    first, second = builder.cell(loss__beta=1.0)
    study = builder.study
    attempt(study, first, 0, "local-1-1")
    attempt(study, first, 1, "slurm-8-0.a", job="8")
    attempt(study, second, 0, "local-1-2")
    old = worker_log(study, "local-1-1", "of the attempt before")
    worker_log(study, "local-1-2", "of the other run")
    new = job_log(study, "8", "\n".join(f"line {number} [red]" for number in range(30)))
    rows, below = shown(builder, first, lines=3)
    assert [row[5] for row in rows] == [str(old), str(new)]
    assert str(new) in below.splitlines()[0]
    assert below.splitlines()[1:] == ["line 27 [red]", "line 28 [red]", "line 29 [red]"]
    assert shown(builder, first, lines=0)[1] == ""
    both = shown(builder, "loss.beta=1.0", lines=1)[1]
    assert "of the other run" in both
    assert "line 29" in both


def test_a_log_that_two_runs_share_is_printed_once(builder):
    runs = builder.cell(loss__beta=1.0)
    for run in runs:
        attempt(builder.study, run, 0, "slurm-8-0.a", job="8")
    job_log(builder.study, "8", "the only line")
    job_log(builder.study, "8", "", "out")  # nothing to print
    assert shown(builder, *runs)[1].count("the only line") == 1


def test_a_long_line_is_printed_as_it_is_and_bytes_that_are_no_text_do_not_stop_it(builder):
    run, _ = builder.cell(loss__beta=1.0)
    attempt(builder.study, run, 0, "local-1-1")
    (builder.study.workers / "local-1-1.log").write_bytes(b"\xff" + b"x" * 1000)
    assert "\ufffd" + "x" * 1000 + "\n" in shown(builder, run)[1]


def test_a_run_or_a_study_that_is_not_there_is_named_with_what_is(builder):
    builder.cell(loss__beta=1.0)
    with pytest.raises(UserError, match=r"beta: 'loss\.beta=2\.0' names no run; did you mean loss\.beta=1\.0"):
        shown(builder, "loss.beta=2.0")
    with pytest.raises(UserError, match="holds no study named 'betta'; did you mean beta"):
        show_logs(builder.study.path.parent, "betta", [], 3, Console(file=io.StringIO()))


def test_of_a_jobs_logs_the_errors_come_first_and_empty_ones_say_nothing(builder):
    study = builder.study
    assert newest_log(study, "8") is None
    err, out = job_log(study, "8", ""), job_log(study, "8", "x", "out")
    job_log(study, "80", "x")
    assert logs_of(study, "8") == [err, out]
    assert newest_log(study, "8") == out
    err.write_text("x")
    assert newest_log(study, "8") == err
