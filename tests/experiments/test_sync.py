"""`vae-sweep sync`: everything once, from folders alone, into the root's own store or another one."""

import io
import re
import shutil
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing

import pytest
from rich.console import Console
from support.engine import expected_rows, mlflow_rows, mlflow_runs
from support.study_builder import StudyBuilder

from experiments.asking import stop
from experiments.failures import OperationError
from experiments.publish import shortened
from experiments.rebuild import rebuild
from experiments.study import coordinator_lock, sync_lock
from experiments.submitting import keep_launcher
from experiments.sweep_file import LauncherConfig
from experiments.sync import sync
from tracking.files import write_json
from tracking.heartbeat import process_identity
from tracking.mlflow_store import connect
from tracking.queue import QueueEntry, claim, enqueue
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

AXIS = {"loss.beta": [0.1, 100.0]}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    for command in ("sync", "rebuild"):
        monkeypatch.setattr(f"experiments.{command}.write_report", lambda _: None)


@pytest.fixture
def console():
    return Console(width=200, record=True, file=io.StringIO())


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated store; making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def copied_stores(empty_store, monkeypatch):
    """Give whoever makes a store a copy of that one."""

    def copy(path):
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(empty_store, path)

    monkeypatch.setattr("tracking.mlflow_store._create_database", copy)


def study_of(root, name="beta", study_id=None):
    builder = StudyBuilder(root / name, AXIS)
    provenance = {"packages": {"torch": "2.15.0"}, "commit": "abc", "dirty": False, "command": "vae-sweep run"}
    write_json(builder.study.provenance_file, provenance | ({"study_id": study_id} if study_id else {}))
    return builder


@pytest.fixture
def root(tmp_path):
    builder = study_of(tmp_path / "runs")
    for beta in AXIS["loss.beta"]:
        for run in builder.cell(loss__beta=beta):
            builder.done(run)
    return tmp_path / "runs"


def parents(database):
    query = """
        SELECT runs.name, runs.status FROM runs JOIN tags
        ON tags.run_uuid = runs.run_uuid AND tags.key = 'vae_sweep.kind' AND tags.value = 'sweep'
    """
    with closing(sqlite3.connect(database)) as connection:
        return sorted(connection.execute(query).fetchall())


def rows_that_stand_twice(database):
    query = "SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_every_study_of_the_root_is_sent_once_however_often_it_is_asked_for(root, console):
    other = study_of(root, "other")
    for run in other.cell(loss__beta=7.0):
        other.done(run)
    for _ in range(2):
        sync(root, [], None, console)
        names = [f"beta={beta} seed={seed}" for beta in ("0.1", "100.0", "7.0") for seed in (0, 1)]
        assert sorted(mlflow_runs(root)) == sorted((name, "FINISHED") for name in names)
        assert parents(root / "mlflow.db") == [("beta", "FINISHED"), ("other", "FINISHED")]
        assert rows_that_stand_twice(root / "mlflow.db") == []
        assert {row[1:] for row in mlflow_rows(root)} == {row[1:] for row in expected_rows(root / "beta")}
    first, second = console.export_text().split("MLflow: ")[:2]
    count = {name: len(expected_rows(root / name)) for name in ("beta", "other")}
    assert count["beta"] == 2 * count["other"] > 0
    assert f"beta: 4 runs; {count['beta']} metric rows and " in first
    assert f"other: 2 runs; {count['other']} metric rows and " in first
    assert second.count("nothing was missing") == 2
    assert f"sqlite:///{root}/mlflow.db" in second


def test_the_named_studies_alone_go_into_another_store(root, console, tmp_path):
    study_of(root, "other")
    (tmp_path / "elsewhere").mkdir()
    sync(root, ["beta"], f"sqlite:///{tmp_path}/elsewhere/mlflow.db", console)
    assert parents(tmp_path / "elsewhere" / "mlflow.db") == [("beta", "FINISHED")]
    assert not (root / "mlflow.db").exists()


def test_beside_a_coordinator_only_another_store_is_written(root, console, tmp_path):
    own = f"sqlite:///{root}/mlflow.db"
    with coordinator_lock(StudyDirectory(root / "beta"), own):
        with pytest.raises(UserError, match="another coordinator is running this study"):
            sync(root, ["beta"], None, console)
        with pytest.raises(UserError, match="another coordinator is running this study"):
            sync(root, ["beta"], f"{own}/", console)
        sync(root, ["beta"], f"sqlite:///{tmp_path}/other.db", console)
    assert parents(tmp_path / "other.db") == [("beta", "RUNNING")]
    sync(root, ["beta"], f"sqlite:///{tmp_path}/other.db", console)
    assert parents(tmp_path / "other.db") == [("beta", "FINISHED")]


def test_where_a_coordinator_writes_is_what_it_says_and_not_what_this_shell_says(root, console, tmp_path):
    team = f"sqlite:///{tmp_path}/team.db"
    with coordinator_lock(StudyDirectory(root / "beta"), team):
        with pytest.raises(UserError, match="another coordinator is running this study"):
            sync(root, ["beta"], team, console)
        sync(root, ["beta"], None, console)
    assert parents(root / "mlflow.db") == [("beta", "RUNNING")]


def test_two_syncs_do_not_send_a_study_at_the_same_time(root, console, tmp_path):
    with sync_lock(StudyDirectory(root / "beta")), pytest.raises(UserError, match="another vae-sweep sync is sending"):
        sync(root, ["beta"], f"sqlite:///{tmp_path}/other.db", console)
    with coordinator_lock(StudyDirectory(root / "beta")), pytest.raises(UserError, match="another coordinator"):
        sync(root, ["beta"], f"sqlite:///{tmp_path}/other.db", console)  # a rebuild, say: no coordinator is at work
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    ("address", "mistake"),
    [
        ("nonsense", "is no address of a tracking server"),
        ("foo://x", "MLflow knows no tracking server of the kind 'foo'"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://[::1", "cannot be read (Invalid IPv6 URL)"),
        ("http://:5000", "names no host"),
        ("postgresql://u:geheim@127.0.0.1:notaport/x", "cannot be read"),
        ("http://host\0", "holds a character that no address has"),
    ],
)
def test_what_is_no_address_is_refused_with_what_is(root, console, monkeypatch, address, mistake):
    with pytest.raises(UserError) as refused:
        sync(root, ["beta"], address, console)
    [message] = refused.value.messages
    assert message.startswith("--to ")
    assert mistake in message
    assert "valid: http://HOST:PORT" in message
    assert "geheim" not in message
    if "\0" not in address:
        monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", address)
        with pytest.raises(UserError, match=r"^VAE_SWEEP_MLFLOW_URI "):
            sync(root, ["beta"], None, console)


def test_an_experiment_that_was_renamed_in_the_page_is_found_again(root, console):
    uri = f"sqlite:///{root}/mlflow.db"
    sync(root, ["beta"], None, console)
    client = connect(uri)
    client.rename_experiment(client.get_experiment_by_name("beta").experiment_id, "my beta study")
    sync(root, ["beta"], None, console)
    assert "nothing was missing" in console.export_text()
    assert len(mlflow_runs(root)) == 4


def test_a_run_that_was_deleted_in_the_page_comes_back_and_is_there_once(root, console):
    sync(root, ["beta"], None, console)
    client = connect(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("beta").experiment_id
    gone = client.search_runs([experiment], "tags.`vae_sweep.kind` = 'run'")[0].info.run_id
    client.delete_run(gone)
    sync(root, ["beta"], None, console)
    assert client.get_run(gone).info.lifecycle_stage == "active"
    assert len(mlflow_runs(root)) == 4
    assert rows_that_stand_twice(root / "mlflow.db") == []


def test_torn_facts_of_a_study_are_named(root, console):
    (root / "beta" / "provenance.json").write_text("{")
    with pytest.raises(UserError, match=r"beta/provenance\.json: is torn or was changed by hand"):
        sync(root, ["beta"], None, console)


def test_a_server_that_does_not_answer_is_said_with_what_to_do(root, console):
    again = re.escape(f"vae-sweep sync beta --root {root} --to http://127.0.0.1:9")
    with pytest.raises(
        OperationError,
        match=rf"\AMLflow at http://127.0.0.1:9: .*; what has arrived stays, and to send the rest: {again}\Z",
    ):
        sync(root, ["beta"], "http://127.0.0.1:9", console)


def test_the_archive_of_a_study_can_be_sent_though_nothing_can_be_written_there(root, console, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.sync.is_read_only", lambda path: path == root / "beta")
    for name in ("write_report", "sync_lock", "coordinator_lock"):
        monkeypatch.setattr(f"experiments.sync.{name}", cannot_write)
    sync(root, ["beta"], f"sqlite:///{tmp_path}/elsewhere.db", console)
    assert parents(tmp_path / "elsewhere.db") == [("beta", "FINISHED")]


def cannot_write(*arguments):
    raise OSError(30, "Read-only file system")


def test_a_long_table_is_no_description_but_its_answers_are(root, console):
    report = root / "beta" / "report"
    report.mkdir(exist_ok=True)
    rows = "\n".join(["| cell | ELBO |", "| --- | ---: |", *(f"| loss.beta={beta} | 1 |" for beta in range(900))])
    table = f"# beta\n\nWhat?\n\n{rows}\n\nEvery seed collapses.\n\n- A note.\n"
    (report / "table.md").write_text(table)
    sync(root, ["beta"], None, console)
    client = connect(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("beta").experiment_id
    [parent] = client.search_runs([experiment], "tags.`vae_sweep.kind` = 'sweep'")
    words = "# beta\n\nWhat?\n\nEvery seed collapses.\n\nThe whole table is among the artifacts: table.md."
    assert parent.data.tags["mlflow.note.content"] == words


def test_descriptions_are_cut_between_paragraphs():
    assert shortened("a\n\n| b |\n") == "a\n\n| b |\n"
    long = shortened("\n\n".join(["x" * 3000, "y" * 3000, "z" * 3000]))
    assert long == f"{'x' * 3000}\n\n{'y' * 3000}\n\nThe whole table is among the artifacts: table.md."


def test_signs_of_markdown_in_a_question_are_shown_as_they_are(root, console):
    sweep = root / "beta" / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace("What does the axis do?", "What *does* it do?"))
    sync(root, ["beta"], None, console)
    experiment = connect(f"sqlite:///{root}/mlflow.db").get_experiment_by_name("beta")
    assert experiment.tags["mlflow.note.content"] == r"What \*does\* it do?"


def test_an_address_in_the_environment_is_where_everything_goes(root, console, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", f"sqlite:///{tmp_path}/team.db")
    sync(root, [], None, console)
    assert parents(tmp_path / "team.db") == [("beta", "FINISHED")]
    assert not (root / "mlflow.db").exists()


def test_studies_of_one_name_from_two_roots_stay_apart_in_a_store_that_they_share(console, tmp_path, monkeypatch):
    """Both sweeps are the same, so that their runs have the same ids; what they measured differs."""
    monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", f"sqlite:///{tmp_path}/team.db")
    elbos = {"mine": -1.0, "yours": -2.0}
    for root, elbo in elbos.items():
        builder = study_of(tmp_path / root, study_id=root[0] * 32)
        for run in builder.cell(loss__beta=0.1):
            builder.done(run, elbo=elbo)
    for _ in range(2):
        for root in elbos:
            sync(tmp_path / root, [], None, console)

    def shown():
        client = connect(f"sqlite:///{tmp_path}/team.db")
        found = {}
        for experiment in client.search_experiments(filter_string="tags.`vae_sweep.study` = 'beta'"):
            runs = client.search_runs([experiment.experiment_id], "tags.`vae_sweep.kind` = 'run'")
            found[experiment.name] = [run.data.metrics["test/elbo"] for run in runs]
        return found

    assert shown() == {"beta": [-1.0, -1.0], "beta-yyyyyyyy": [-2.0, -2.0]}
    assert parents(tmp_path / "team.db") == [("beta", "FINISHED")] * 2
    assert rows_that_stand_twice(tmp_path / "team.db") == []

    rebuild(tmp_path / "yours", "beta", console)
    assert shown() == {"beta": [-1.0, -1.0], "beta-yyyyyyyy": [-2.0, -2.0]}
    rebuild(tmp_path / "mine", "beta", console)
    assert shown() == {"beta": [-1.0, -1.0], "beta-yyyyyyyy": [-2.0, -2.0]}


def test_a_root_without_studies_and_a_misspelt_study_are_mistakes(root, console, tmp_path):
    with pytest.raises(UserError, match="holds no study yet"):
        sync(tmp_path, [], None, console)
    with pytest.raises(UserError, match="did you mean beta"):
        sync(root, ["bate"], None, console)


@pytest.fixture
def half_done(tmp_path):
    """A study whose first run is done, and whose second one somebody has begun."""
    builder = study_of(tmp_path / "runs")
    done, begun = builder.cell(loss__beta=0.1)
    builder.done(done)
    builder.failed(begun)  # gives it a journal with an epoch
    journal = builder.study.run(begun).attempt(0).journal_file
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    keep_launcher(builder.study, LauncherConfig())
    return builder.study, begun


def held_by(study, run, owner):
    enqueue(study, QueueEntry(run, 0, 0))
    claim(study, "w1", owner)


def test_runs_that_died_with_their_coordinator_are_closed(half_done, console):
    study, begun = half_done
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held_by(study, begun, process_identity() | {"pid": dead.pid, "start_time": "0/0"})
    sync(study.path.parent, [], None, console)
    assert mlflow_runs(study.path.parent) == [("beta=0.1 seed=0", "FINISHED"), ("beta=0.1 seed=1", "KILLED")]
    assert parents(study.path.parent / "mlflow.db") == [("beta", "KILLED")]


def test_a_run_that_a_living_worker_holds_stays_open(half_done, console):
    study, begun = half_done
    held_by(study, begun, process_identity())
    sync(study.path.parent, [], None, console)
    assert mlflow_runs(study.path.parent) == [("beta=0.1 seed=0", "FINISHED"), ("beta=0.1 seed=1", "RUNNING")]
    assert parents(study.path.parent / "mlflow.db") == [("beta", "RUNNING")]


def test_a_stop_without_a_coordinator_closes_what_mlflow_shows_as_running(half_done, console):
    study, begun = half_done
    held_by(study, begun, process_identity())
    sync(study.path.parent, [], None, console)
    for path in study.claimed.iterdir():
        path.unlink()  # its worker was stopped
    stop(study.path.parent, "beta", console)
    assert mlflow_runs(study.path.parent) == [("beta=0.1 seed=0", "FINISHED"), ("beta=0.1 seed=1", "KILLED")]
    assert "Stopped." in console.export_text()


def test_a_stop_without_a_coordinator_does_not_need_mlflow(half_done, console, monkeypatch):
    study, _ = half_done
    monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", "http://127.0.0.1:9")
    stop(study.path.parent, "beta", console)
    assert "MLflow at http://127.0.0.1:9" in console.export_text(clear=False)
    assert "Stopped." in console.export_text()
