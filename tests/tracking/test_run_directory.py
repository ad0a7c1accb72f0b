import pytest

from tracking.run_directory import StudyDirectory, read_chain


def shape(run):
    return [(item.attempt, item.line.n) for item in read_chain(run.directory)]


def test_a_study_has_the_documented_folders(tmp_path):
    study = StudyDirectory(tmp_path / "root" / "beta")
    assert study.run_ids() == []
    study.create()
    study.create()
    folders = {path.name for path in study.path.iterdir()}
    assert folders == {"queue", "claimed", "done", "inbox", "workers", "report", "runs"}
    for name in ("b", "a"):
        study.run(name).create()
    (study.runs / "note.txt").touch()
    assert study.run_ids() == ["a", "b"]
    assert study.run("a").id == "a"
    attempt = study.run("a").attempt(3)
    assert (attempt.number, attempt.path) == (3, study.path / "runs" / "a" / "attempts" / "3")
    assert attempt.journal_file == attempt.path / "journal.jsonl"


def test_attempts_are_ordered_as_numbers(written_run):
    for number in (10, 9, 2):
        written_run.directory.attempt(number).create()
    (written_run.directory.path / "attempts" / "notes").mkdir()
    assert written_run.directory.attempts() == [2, 9, 10]


def test_one_attempt_is_read_whole(written_run):
    assert read_chain(written_run.directory) == []
    written_run.open(0)
    written_run.epoch(1)
    assert shape(written_run) == [(0, 0), (0, 1)]


def test_an_attempt_that_starts_over_hides_the_earlier_one(written_run):
    written_run.open(0)
    written_run.epoch(1)
    written_run.open(1)
    assert shape(written_run) == [(1, 0)]


def test_earlier_attempts_count_up_to_the_cut_only(written_run):
    written_run.open(0)
    written_run.epoch(1)
    written_run.epoch(2)
    written_run.epoch(3)
    written_run.open(1, continues=(0, 2))
    written_run.epoch(3)
    written_run.epoch(4)
    written_run.open(2, continues=(1, 1))
    written_run.epoch(4)
    assert shape(written_run) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_what_a_late_worker_writes_after_the_cut_is_never_read(written_run):
    written_run.open(0)
    written_run.epoch(1)
    zombie = written_run.journal
    written_run.open(1, continues=(0, 1))
    written_run.epoch(2)
    before = read_chain(written_run.directory)
    zombie.append("epoch", epoch=2, step=20, metrics={}, vectors={}, seconds=1.0)
    zombie.append("end", status="done", failure=None, reason=None, traceback=None)
    assert read_chain(written_run.directory) == before


@pytest.mark.parametrize("content", [None, b"", b'{"n": 0, "time_ms": 1, "kind": "att'])
def test_an_attempt_that_died_before_its_first_line_changes_nothing(written_run, content):
    written_run.open(0)
    written_run.epoch(1)
    before = read_chain(written_run.directory)
    dead = written_run.directory.attempt(1)
    dead.create()
    if content is not None:
        dead.journal_file.write_bytes(content)
    assert read_chain(written_run.directory) == before
    written_run.open(2, continues=(0, 1))
    assert shape(written_run) == [(0, 0), (0, 1), (2, 0)]


def test_an_attempt_that_skips_the_one_before_it_hides_that_one(written_run):
    written_run.open(0)
    written_run.epoch(1)
    written_run.open(1, continues=(0, 1))
    written_run.epoch(2)
    written_run.open(2, continues=(0, 1))
    assert shape(written_run) == [(0, 0), (0, 1), (2, 0)]


def test_a_chain_never_points_forwards(written_run):
    written_run.open(1, continues=(1, 0))
    with pytest.raises(ValueError, match="attempt 1 says that it continues from attempt 1"):
        read_chain(written_run.directory)
