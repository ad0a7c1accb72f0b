import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracking.mlflow_address import shown_uri, store_identity
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import LONGEST_DESCRIPTION, MlflowSink

PROJECT = Path(__file__).parents[2]


BETA = StudyIdentity("beta", "b" * 32)


def open_sink(store, **fields):
    return MlflowSink(store.uri, store.artifacts, BETA, "How does beta act on collapse?", **fields)


def forward(sink, run, final_status=None):
    report = sink.forward(run.directory, run.info, final_status=final_status)
    assert report.problem is None
    return report


def test_a_finished_run_is_shown_with_all_that_was_recorded(store, written_run):
    first = written_run.open(0, tags={"lpips": "missing"})
    last = written_run.finish(3)
    sink = open_sink(store)
    parent = sink.ensure_parent({"commit": "abc", "dirty": True}, {"base": "wireframes-tiny"}, start_ms=123)
    assert parent.problem is None
    report = forward(sink, written_run, "FINISHED")

    assert report.complete
    assert report.metrics_sent == 7
    run_id = store.run_id(written_run)
    assert run_id == report.mlflow_run_id
    assert store.info(run_id) == ("beta=4.0 seed=1", "FINISHED", first.time_ms, last.time_ms, "active")
    assert store.params(run_id) == {"loss.beta": "4.0", "seed": "1"}
    expected = {
        "mlflow.parentRunId": parent.mlflow_run_id,
        "vae_sweep.kind": "run",
        "vae_sweep.run_id": "run_a",
        "vae_sweep.study": "beta",
        "vae_sweep.trial": "0",
        "vae_sweep.seed": "1",
        "vae_sweep.cell": "loss.beta=4.0",
        "vae_sweep.attempt": "0",
        "vae_sweep.state": "done",
        "vae_sweep.verdict": "partial",
        "vae_sweep.commit": "abc",
        "vae_sweep.dirty": "true",
        "vae_sweep.lpips": "missing",
    }
    assert expected.items() <= store.tags(run_id).items()
    files = store.files(run_id)
    assert {name: content for name, content in files.items() if not name.startswith("images/")} == {
        "config.yaml": b"loss: {beta: 4.0}\n",
        "summary.txt": b"content of summary.txt",
        "kl_spectrum.csv": b"content of kl_spectrum.csv",
        "checkpoints/best.pt": b"content of best.pt",
    }


def test_metrics_carry_the_recorded_step_time_and_value(store, written_run):
    written_run.open(0)
    lines = [written_run.saved_epoch(1), written_run.saved_epoch(2)]
    written_run.result(1)
    end = written_run.end()
    forward(open_sink(store), written_run, "FINISHED")
    rows = store.metrics(written_run)
    assert [row for row in rows if row[0] == "val/elbo"] == [
        ("val/elbo", 1, 1.125, lines[0].time_ms),
        ("val/elbo", 2, 2.125, lines[1].time_ms),
    ]
    [(_, step, value, time_ms)] = [row for row in rows if row[0] == "test/elbo"]
    assert (step, value) == (1, -3.5)
    assert lines[1].time_ms <= time_ms <= end.time_ms


def test_the_study_is_one_experiment_with_one_parent_run(store):
    for _ in range(2):
        sink = open_sink(store)
        report = sink.ensure_parent({"commit": "abc"}, {"base": "wireframes-tiny"}, start_ms=123)
        assert sink.finish_parent("FINISHED", end_ms=456).complete
    [(name, place)] = store.rows("SELECT name, artifact_location FROM experiments WHERE name != 'Default'")
    assert name == "beta"
    assert place == (store.artifacts / "beta").as_uri()
    assert dict(store.rows("SELECT key, value FROM experiment_tags"))["mlflow.note.content"].startswith("How does")
    assert store.rows("SELECT count(*) FROM runs") == [(1,)]
    assert store.info(report.mlflow_run_id) == ("beta", "FINISHED", 123, 456, "active")
    tags = store.tags(report.mlflow_run_id)
    assert tags["vae_sweep.kind"] == "sweep"
    assert tags["vae_sweep.state"] == "done"
    assert store.params(report.mlflow_run_id) == {"base": "wireframes-tiny"}


def test_numbers_and_files_of_the_sweep_land_on_the_parent_run(store, tmp_path):
    table = tmp_path / "report.md"
    for text, value, expected in (("one", 1.0, [0]), ("one", 1.0, [0]), ("two", 2.0, [0, 1])):
        table.write_text(text)
        sink = open_sink(store)
        report = sink.log_parent({"runs/done": value}, {"report/table.md": table})
        assert report.problem is None
        rows = store.rows("SELECT step FROM metrics WHERE run_uuid = ? ORDER BY step", report.mlflow_run_id)
        assert [step for (step,) in rows] == expected
        assert store.files(report.mlflow_run_id) == {"report/table.md": text.encode()}


def test_an_open_run_shows_only_what_the_older_kept_checkpoint_covers(store, written_run):
    sink = open_sink(store)
    assert forward(sink, written_run).mlflow_run_id is None
    written_run.open(0)
    seen = []
    for epoch in (1, 2, 3):
        written_run.saved_epoch(epoch)
        assert not forward(sink, written_run).complete
        seen.append(store.steps(written_run, "val/elbo"))
    assert seen == [[], [1], [1, 2]]
    assert store.info(store.run_id(written_run))[1] == "RUNNING"


def test_of_a_run_that_died_only_what_its_next_attempt_keeps_is_sent(store, written_run):
    written_run.open(0)
    for epoch in (1, 2, 3):
        line = written_run.saved_epoch(epoch)
    written_run.epoch(4)
    forward(open_sink(store), written_run, "KILLED")
    assert store.steps(written_run, "val/elbo") == [1, 2]
    written_run.open(1, continues=(0, line.n))
    for epoch in (4, 5):
        written_run.saved_epoch(epoch, offset=100.0)
    written_run.end()
    forward(open_sink(store), written_run, "FINISHED")
    assert [value for key, _, value, _ in store.metrics(written_run) if key == "train/kl"] == [1, 2, 3, 104, 105]


def test_a_value_measured_again_after_a_crash_is_not_sent_again(store, written_run):
    written_run.open(0)
    for epoch in (1, 2, 3):
        line = written_run.saved_epoch(epoch)
    forward(open_sink(store), written_run, "KILLED")
    assert store.info(store.run_id(written_run))[1] == "KILLED"
    written_run.open(1, continues=(0, line.n - 4))  # from epoch 1: epochs 2 and 3 are measured again, differently
    forward(sink := open_sink(store), written_run)
    assert store.info(store.run_id(written_run))[1] == "RUNNING"
    for epoch in (2, 3, 4):
        written_run.saved_epoch(epoch, offset=100.0)
        forward(sink, written_run)
    written_run.end()
    forward(sink, written_run, "FINISHED")
    values = [value for key, _, value, _ in store.metrics(written_run) if key == "train/kl"]
    assert values == [1.0, 2.0, 103.0, 104.0]  # 2: the two newest checkpoints were damaged, which nobody foresees
    assert set(store.pairs(written_run).values()) == {1}
    assert store.tags(store.run_id(written_run))["vae_sweep.attempt"] == "1"


def test_two_sinks_after_each_other_send_nothing_twice(store, written_run):
    written_run.open(0)
    written_run.finish(4)
    assert forward(open_sink(store), written_run, "FINISHED").metrics_sent == 9
    before = store.metrics(written_run)
    assert forward(open_sink(store), written_run, "FINISHED").metrics_sent == 0
    assert store.metrics(written_run) == before
    assert store.rows("SELECT count(*) FROM runs") == [(2,)]


def test_a_failed_run_says_why_and_a_later_success_takes_that_back(store, written_run):
    written_run.open(0)
    written_run.end("failed", "oom", "out of memory")
    sink = open_sink(store)
    forward(sink, written_run)
    assert "vae_sweep.failure" not in store.tags(store.run_id(written_run))
    forward(sink, written_run, "FAILED")
    tags = store.tags(store.run_id(written_run))
    assert (tags["vae_sweep.state"], tags["vae_sweep.failure"]) == ("failed", "oom: out of memory")
    written_run.open(1)
    written_run.finish(2)
    forward(open_sink(store), written_run, "FINISHED")
    tags = store.tags(store.run_id(written_run))
    assert tags["vae_sweep.state"] == "done"
    assert "vae_sweep.failure" not in tags


def test_a_journaled_file_that_is_gone_is_named_and_the_rest_arrives(store, written_run):
    written_run.open(0)
    written_run.finish(2)
    (written_run.attempt.artifacts / "best.pt").unlink()
    report = open_sink(store).forward(written_run.directory, written_run.info, final_status="FINISHED")
    assert report.complete
    assert "best.pt" in report.problem
    assert "kl_spectrum.csv" in store.files(store.run_id(written_run))


def test_an_artifact_torn_by_a_kill_is_uploaded_again(store, written_run):
    written_run.open(0)
    written_run.finish(2)
    forward(open_sink(store), written_run)
    [torn] = store.artifacts.rglob("best.pt")
    torn.write_text("con")
    forward(open_sink(store), written_run, "FINISHED")
    assert torn.read_text() == "content of best.pt"


def test_a_finished_run_is_not_asked_about_again(store, written_run, monkeypatch):
    written_run.open(0)
    written_run.finish(2)
    forward(open_sink(store), written_run, "FINISHED")
    monkeypatch.setattr("mlflow.MlflowClient.get_metric_history", lambda *_: 1 / 0)
    assert forward(open_sink(store), written_run, "FINISHED").complete
    written_run.open(1)
    with pytest.raises(ZeroDivisionError, match="by zero"):
        forward(open_sink(store), written_run, "FINISHED")


def test_training_goes_on_while_the_store_is_down_and_it_catches_up(store, written_run):
    written_run.open(0)
    written_run.finish(2)
    now = [0.0]
    sink = open_sink(store, clock=lambda: now[0])
    away = store.path.parent.rename(store.path.parent.with_name("away"))
    store.path.parent.write_text("a file where the folder was")
    pauses = []
    for _ in range(4):
        began = time.monotonic()
        report = sink.forward(written_run.directory, written_run.info, final_status="FINISHED")
        assert time.monotonic() - began < 5
        assert "MLflow at" in report.problem
        again = sink.forward(written_run.directory, written_run.info, final_status="FINISHED")
        assert again.problem == report.problem
        pauses.append(float(report.problem.rsplit(" ", 2)[1]))
        now[0] += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    store.path.parent.unlink()
    away.rename(store.path.parent)
    assert forward(sink, written_run, "FINISHED").complete
    assert store.steps(written_run, "val/elbo") == [1, 2]


def test_a_server_that_does_not_answer_is_a_warning_within_seconds(tmp_path, written_run):
    sink = MlflowSink("http://127.0.0.1:9", None, StudyIdentity("beta"), "?")
    began = time.monotonic()
    problem = sink.ensure_parent({}).problem
    assert time.monotonic() - began < 10
    assert problem.startswith("MLflow at http://127.0.0.1:9: ")


def test_a_database_that_cannot_be_opened_is_a_warning_within_seconds(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    sink = MlflowSink(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlartifacts", StudyIdentity("beta"), "?")
    began = time.monotonic()
    assert "unable to open database file" in sink.ensure_parent({}).problem
    assert time.monotonic() - began < 10


def test_a_locked_store_is_a_warning(store, written_run):
    written_run.open(0)
    written_run.finish(2)
    now = [0.0]
    sink = MlflowSink(f"{store.uri}?timeout=0.1", store.artifacts, StudyIdentity("beta"), "?", clock=lambda: now[0])
    locker = sqlite3.connect(store.path, isolation_level=None)
    try:
        locker.execute("BEGIN EXCLUSIVE")
        report = sink.forward(written_run.directory, written_run.info, final_status="FINISHED")
        assert "locked" in report.problem
    finally:
        locker.close()
    now[0] = 2.0
    assert forward(sink, written_run, "FINISHED").complete


def test_a_store_deleted_under_a_living_sink_is_made_anew_with_equal_rows(store, written_run):
    written_run.open(0)
    written_run.finish(3)
    sink = open_sink(store)
    forward(sink, written_run, "FINISHED")
    before = (store.metrics(written_run), store.params(store.run_id(written_run)))
    store.path.unlink()
    store.make()
    forward(sink, written_run, "FINISHED")
    assert (store.metrics(written_run), store.params(store.run_id(written_run))) == before


def test_delete_study_leaves_nothing_and_the_rebuilt_study_has_equal_rows(store, write_run):
    runs = [write_run(f"run_{seed}", seed=seed) for seed in range(3)]
    other = MlflowSink(store.uri, store.artifacts, StudyIdentity("other"), "?")
    assert other.ensure_parent({}).problem is None
    for run in runs:
        run.open(0)
        run.finish(3)

    def build():
        sink = open_sink(store)
        sink.ensure_parent({"commit": "abc"}, start_ms=1)
        for run in runs:
            forward(sink, run, "FINISHED")
        sink.finish_parent("FINISHED", end_ms=2)
        ids = [store.run_id(run) for run in runs]
        return [(store.metrics(run), store.info(i), store.files(i)) for run, i in zip(runs, ids, strict=True)]

    before = build()
    assert open_sink(store).delete_study().problem is None
    assert store.rows("SELECT name FROM experiments ORDER BY name") == [("Default",), ("other",)]
    assert store.rows("SELECT count(*) FROM metrics") == [(0,)]
    assert not (store.artifacts / "beta").exists()
    assert build() == before


def test_a_study_deleted_in_the_web_page_comes_back(store, written_run):
    from mlflow import MlflowClient

    written_run.open(0)
    written_run.finish(2)
    forward(open_sink(store), written_run, "FINISHED")
    client = MlflowClient(tracking_uri=store.uri)
    client.delete_experiment(client.get_experiment_by_name("beta").experiment_id)
    forward(open_sink(store), written_run, "FINISHED")
    assert client.get_experiment_by_name("beta").lifecycle_stage == "active"
    assert set(store.pairs(written_run).values()) == {1}


@pytest.mark.parametrize(("other", "name"), [("c" * 32, "beta-cccccccc"), (None, "beta-without-id")])
def test_a_namesake_is_neither_written_to_nor_deleted(store, written_run, other, name):
    """Also where its experiment was deleted in the web page: its name stays taken."""
    from mlflow import MlflowClient

    written_run.open(0)
    written_run.finish(2)
    forward(open_sink(store), written_run, "FINISHED")
    client = MlflowClient(tracking_uri=store.uri)
    own = client.get_experiment_by_name("beta")
    client.delete_experiment(own.experiment_id)

    sink = MlflowSink(store.uri, store.artifacts, StudyIdentity("beta", other), "?")
    forward(sink, written_run, "FINISHED")
    forward(sink, written_run, "FINISHED")
    assert store.rows("SELECT name, lifecycle_stage FROM experiments ORDER BY experiment_id") == [
        ("Default", "active"),
        ("beta", "deleted"),
        (name, "active"),
    ]
    assert sink.delete_study().problem is None
    assert client.get_experiment_by_name(name) is None
    assert not (store.artifacts / name).exists()
    assert (store.artifacts / "beta").exists()
    assert store.rows("SELECT count(*) FROM runs WHERE experiment_id = ?", own.experiment_id) == [(2,)]


KILLED_FORWARDS = """
import json, os, random, signal, sqlite3, sys, time
from pathlib import Path
import mlflow, mlflow.store.tracking.sqlalchemy_store  # paid once: the children are forks
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import LONGEST_DESCRIPTION, MlflowSink
from tracking.run_directory import RunDirectory

database, artifacts, *folders = sys.argv[1:]

def forward_all():
    sink = MlflowSink(f"sqlite:///{database}", Path(artifacts), StudyIdentity("beta"), "?")
    for folder in folders:
        run = RunDirectory(Path(folder))
        report = sink.forward(run, json.loads(run.info_file.read_text()), final_status="FINISHED")
        assert report.problem is None, report.problem

def count():
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
    finally:
        connection.close()

rng = random.Random(3)
counts = [0]
for _ in range(5):
    child = os.fork()
    if child == 0:
        forward_all()
        os._exit(0)
    while count() == counts[-1]:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    counts.append(count())
forward_all()
print(json.dumps(counts))
"""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://bob:geheim12@127.0.0.1:9", "http://bob:***@127.0.0.1:9"),
        ("http://bob:ge/heim@12@127.0.0.1:9", "http://bob:***@127.0.0.1:9"),
        ("http://geheim12@127.0.0.1:9", "http://***@127.0.0.1:9"),
        ("postgresql://me:ge/heim12@127.0.0.1:9/mlflow", "postgresql://me:***@127.0.0.1:9/mlflow"),
        ("http://bob:geheim12@127.0.0.1:99999", "http://bob:***@127.0.0.1:99999"),
    ],
)
def test_secrets_of_an_address_are_neither_shown_with_it_nor_with_the_reason(tmp_path, address, shown):
    problem = MlflowSink(address, tmp_path, StudyIdentity("beta"), "?").ensure_parent({}).problem
    assert problem.startswith(f"MLflow at {shown}: ")
    assert "heim" not in problem


def test_addresses_without_secrets_are_shown_as_they_are():
    for address in ("sqlite:////home/a@b/mlflow.db", "http://host:5000/a", "postgresql://me@host/x", "databricks"):
        assert shown_uri(address) == address


def test_the_identity_of_a_store_does_not_depend_on_how_its_address_is_written():
    same = ("http://localhost:5000", "http://127.0.0.1:5000/", "HTTP://me:geheim@LOCALHOST:5000")
    assert len({store_identity(address) for address in same}) == 1
    other = ("http://localhost:5001", "http://localhost:5000/team", "sqlite:////x.db", "sqlite:////X.db")
    assert len({store_identity(address) for address in (*same, *other)}) == 5
    assert store_identity("sqlite:////one@home/x.db") != store_identity("sqlite:////other@home/x.db")


def test_a_sink_killed_at_random_moments_has_sent_everything_once(store, write_run, tmp_path):
    runs = [write_run(f"run_{seed}", seed=seed) for seed in range(6)]
    keys = [f"val/{index}" for index in range(20)]
    for run in runs:
        run.open(0)
        for epoch in range(1, 61):
            run.epoch(epoch, keys=keys)
        run.result(60)
        run.end()
    (tmp_path / "elsewhere").mkdir()
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_FORWARDS, store.path, store.artifacts]
        + [run.directory.path for run in runs],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    expected = 60 * len(keys) + 1
    half_way = [count for count in json.loads(finished.stdout) if 0 < count < len(runs) * expected]
    assert len(half_way) >= 3
    for run in runs:
        assert len(store.pairs(run)) == expected
        assert set(store.pairs(run).values()) == {1}
        assert store.info(store.run_id(run))[1] == "FINISHED"
    assert finished.stderr == ""
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_fresh_store_is_made_silently_and_nothing_outside_its_folder(store_template):
    assert (store_template.returncode, store_template.output) == (0, "")
    assert store_template.litter == []
    assert [path.name for path in store_template.path.parent.iterdir()] == ["mlflow.db"]


def test_a_store_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    def die_half_way(tracking_uri):
        Path(tracking_uri.removeprefix("sqlite:///")).write_bytes(b"half a database")
        raise OSError("killed here")

    monkeypatch.setattr("mlflow.MlflowClient", die_half_way)
    sink = MlflowSink(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlartifacts", StudyIdentity("beta"), "?")
    assert "killed here" in sink.ensure_parent({}).problem
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_which_data_it_saw_and_what_came_of_it(store, written_run):
    data = {
        "name": "layouts",
        "source_type": "local",
        "source": {"uri": "/data/layouts"},
        "profile": {"num_rows": 600},
        "schema": {"mlflow_tensorspec": {"features": "[]", "targets": None}},
    }
    written_run.info |= {"data_fingerprint": "8022065dd26af961", "data": data}
    written_run.open(0)
    written_run.finish(2)
    for _ in range(2):
        forward(open_sink(store), written_run, "FINISHED")
    run_id = store.run_id(written_run)
    assert store.tags(run_id)["mlflow.note.content"] == "Posterior collapse: partial (2 of 32 units are active)"
    query = "SELECT name, digest, dataset_source_type, dataset_source, dataset_profile FROM datasets"
    [(name, digest, kind, source, profile)] = store.rows(query)
    assert (name, digest, kind) == ("layouts", "8022065dd26af961", "local")
    assert json.loads(source) == {"uri": "/data/layouts"}
    assert json.loads(profile) == {"num_rows": 600}
    assert store.rows("SELECT destination_id FROM inputs WHERE source_type = 'DATASET'") == [(run_id,)]
    assert store.rows("SELECT name, value FROM input_tags") == [("mlflow.data.context", "training")]


def test_the_place_of_an_earlier_attempt_is_not_that_of_a_later_one(store, written_run):
    line = written_run.open(0, job="7_0", host="n1", device="cuda:0", machine={"device_name": "NVIDIA H100"})
    forward(open_sink(store), written_run)
    tags = store.tags(store.run_id(written_run))
    assert (tags["vae_sweep.slurm_job"], tags["vae_sweep.device_name"]) == ("7_0", "NVIDIA H100")
    written_run.open(1, continues=(0, line.n), host="laptop", device="cpu")
    forward(open_sink(store), written_run)
    tags = store.tags(store.run_id(written_run))
    assert (tags["vae_sweep.host"], tags["vae_sweep.device"]) == ("laptop", "cpu")
    assert not {"vae_sweep.slurm_job", "vae_sweep.node", "vae_sweep.device_name"} & tags.keys()


def test_the_sweeps_page_shows_its_table(store):
    sink = open_sink(store)
    parent = sink.ensure_parent({"user": "ada"}).mlflow_run_id
    assert store.tags(parent)["mlflow.note.content"].startswith("How does")
    assert store.tags(parent)["mlflow.user"] == "ada"
    assert sink.log_parent({}, {}, "| cell | ELBO |").problem is None
    assert store.tags(parent)["mlflow.note.content"] == "| cell | ELBO |"
    assert sink.log_parent({}, {}).problem is None
    assert open_sink(store).ensure_parent({}).problem is None
    assert store.tags(parent)["mlflow.note.content"] == "| cell | ELBO |"
    longest = "x" * LONGEST_DESCRIPTION
    assert sink.log_parent({}, {}, longest).problem is None
    assert store.tags(parent)["mlflow.note.content"] == longest
    kind = store.rows("SELECT value FROM experiment_tags WHERE key = 'mlflow.experimentKind'")
    assert kind == [("custom_model_development",)]


def test_where_every_attempt_ran_is_shown_beside_the_run(store, written_run):
    written_run.open(0, provenance="artifacts/provenance.json")
    (written_run.attempt.artifacts / "provenance.json").write_text("first machine")
    line = written_run.saved_epoch(1)
    written_run.open(1, continues=(0, line.n), provenance="artifacts/provenance.json")
    (written_run.attempt.artifacts / "provenance.json").write_text("other machine")
    written_run.end()
    forward(open_sink(store), written_run, "FINISHED")
    files = store.files(store.run_id(written_run))
    assert files["provenance/attempt_0.json"] == b"first machine"
    assert files["provenance/attempt_1.json"] == b"other machine"


@pytest.mark.parametrize("garbled", ["json.JSONDecodeError", "google.protobuf.json_format.ParseError"])
def test_what_no_server_would_answer_is_a_warning_too(store, written_run, monkeypatch, garbled):
    import importlib

    module, _, name = garbled.rpartition(".")
    error = getattr(importlib.import_module(module), name)

    def answer(*arguments, **fields):
        raise error("a login page", "", 0) if "JSON" in garbled else error("a login page")

    monkeypatch.setattr("mlflow.MlflowClient.get_experiment_by_name", answer)
    assert "a login page" in open_sink(store).ensure_parent({}).problem
