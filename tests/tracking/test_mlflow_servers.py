"""The sink against real servers: MLflow over HTTP with artifact proxy, PostgreSQL behind it, connections that break."""

import io
import itertools
import sys
from collections import Counter

import pytest
import sqlalchemy
from PIL import Image
from support.mlflow_server import MISSING_POSTGRES, breaking_proxy, mlflow_server, postgres

from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import MlflowSink

DATA = {
    "name": "pages",
    "source_type": "code",
    "source": {"tags": {"generator": "synthetic"}},
    "profile": {"num_rows": 600},
}
COUNTS = itertools.count()


class Database:
    """What lies behind a server, read with plain SQL."""

    def __init__(self, url, server):
        self.engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        self.server = server

    def rows(self, query, **values):
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query), values)]

    def runs(self, study):
        """Return (study's run id or None for the parent) -> (MLflow's id, name, status)."""
        query = """
            SELECT runs.run_uuid, runs.name, runs.status, own.value FROM runs
            JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = :study
            LEFT JOIN tags AS own ON own.run_uuid = runs.run_uuid AND own.key = 'vae_sweep.run_id'
        """
        found = self.rows(query, study=study)
        assert len({row[3] for row in found}) == len(found), f"a run stands there twice: {found}"
        return {row[3]: row[:3] for row in found}

    def pairs(self, mlflow_id):
        rows = self.rows("SELECT key, step FROM metrics WHERE run_uuid = :run", run=mlflow_id)
        return Counter(rows)

    def datasets(self, mlflow_id):
        query = """
            SELECT datasets.name, datasets.digest FROM inputs
            JOIN datasets ON datasets.dataset_uuid = inputs.source_id
            WHERE inputs.destination_id = :run AND inputs.source_type = 'DATASET'
        """
        return self.rows(query, run=mlflow_id)

    def files(self, mlflow_id):
        [(uri,)] = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = :run", run=mlflow_id)
        assert uri.startswith("mlflow-artifacts:/")
        folder = self.server.artifacts / uri.removeprefix("mlflow-artifacts:/").lstrip("/")
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def over_sqlite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow-server")
    database = f"sqlite:///{folder}/mlflow.db"
    with mlflow_server(database, folder) as server:
        yield Database(database, server)


@pytest.fixture(scope="session")
def over_postgres(tmp_path_factory):
    if MISSING_POSTGRES:
        pytest.skip(MISSING_POSTGRES)
    folder = tmp_path_factory.mktemp("postgres-server")
    with postgres(folder) as database, mlflow_server(database, folder / "server") as server:
        yield Database(database, server)


def png(color):
    content = io.BytesIO()
    Image.new("RGB", (300, 150), color).save(content, "PNG")
    return content.getvalue()


def finished_run(write_run, name, epochs=3, keys=("train/kl", "val/elbo")):
    run = write_run(name)
    run.info |= {"data_fingerprint": "8022065dd26af961", "data": DATA}
    run.open(0, host="n1", device="cpu")
    for epoch in range(1, epochs + 1):
        run.saved_epoch(epoch, keys=keys)
        folder = run.attempt.artifacts / "figures"
        folder.mkdir(exist_ok=True)
        (folder / f"reconstructions_{epoch:04d}.png").write_bytes(png("teal"))
        names = [f"artifacts/figures/reconstructions_{epoch:04d}.png"]
        run.journal.append("figures", epoch=epoch, files=names)
    run.result(epochs)
    run.end()
    return run


def new_study():
    return f"study {next(COUNTS)}"


def send(url, study, runs, artifact_root=None):
    """Send everything until it is complete, as `vae-sweep sync` does; return the rows sent, and how often refused."""
    now = [0.0]
    sink = MlflowSink(url, artifact_root, StudyIdentity(study), "?", clock=lambda: now[0])
    sent, refused = 0, 0

    def insist(call):
        nonlocal refused
        for _ in range(4):
            report = call()
            if sink.refusal is None:
                return report
            refused += 1
            now[0] += sink.wait_s
        raise AssertionError(report.problem)

    insist(lambda: sink.ensure_parent({"commit": "abc"}, {"sampler": "grid"}, 1))
    for run in runs:
        report = insist(lambda: sink.forward(run.directory, run.info, final_status="FINISHED"))  # noqa: B023
        assert report.complete
        sent += report.metrics_sent
    insist(lambda: sink.log_parent({}, {"config.yaml": runs[0].directory.config_file}))
    insist(lambda: sink.finish_parent("FINISHED", 2))
    return sent, refused


def assert_everything_once(database, study, runs):
    found = database.runs(study)
    assert {key: row[1:] for key, row in found.items()} == {
        None: (study, "FINISHED"),
        **{run.directory.id: ("beta=4.0 seed=1", "FINISHED") for run in runs},
    }
    for run in runs:
        pairs = database.pairs(found[run.directory.id][0])
        assert set(pairs.values()) == {1}
        assert set(pairs) == {(k, e) for k in ("train/kl", "val/elbo") for e in (1, 2, 3)} | {("test/elbo", 3)}
        files = database.files(found[run.directory.id][0])
        assert files["checkpoints/best.pt"] == b"content of best.pt"
        pictures = [name for name in files if name.startswith("images/")]
        assert len(pictures) == 6
        assert sum(name.endswith("+compressed.webp") for name in pictures) == 3
        assert database.datasets(found[run.directory.id][0]) == [("pages", "8022065dd26af961")]
    assert list(database.files(found[None][0])) == ["config.yaml"]


def requests_of_a_whole_study(proxy, write_run, study):
    """Return how many requests it takes when nothing breaks; the experiment is there afterwards."""
    proxy.arm(None)
    send(proxy.url, study, [finished_run(write_run, f"run of {study}")])
    return len(proxy.seen)


def test_a_connection_that_breaks_while_a_batch_is_answered_loses_and_doubles_nothing(over_sqlite, write_run):
    study, run = new_study(), finished_run(write_run, "run_a")
    with breaking_proxy(over_sqlite.server) as proxy:
        proxy.arm(None)
        send(proxy.url, study, [run])
        [batch] = [
            number for number, (_, path) in enumerate(proxy.seen, 1) if path.endswith("log-batch") and number > 8
        ][:1]
        for when in ("before", "after"):
            study, run = new_study(), finished_run(write_run, f"run_{when}")
            proxy.arm(batch, when)
            _, refused = send(proxy.url, study, [run])
            assert refused == 1
            assert_everything_once(over_sqlite, study, [run])
    assert send(over_sqlite.server.url, study, [run])[0] == 0
    assert_everything_once(over_sqlite, study, [run])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("behind", ["over_sqlite", "over_postgres"])
def test_whichever_request_breaks_everything_is_there_once(behind, when, write_run, request):
    database = request.getfixturevalue(behind)
    with breaking_proxy(database.server) as proxy:
        count = requests_of_a_whole_study(proxy, write_run, new_study())
        assert count > 20
        for cut_at in range(1, count + 1):
            study, run = new_study(), finished_run(write_run, f"run {behind} {when} {cut_at}")
            proxy.arm(cut_at, when)
            _, refused = send(proxy.url, study, [run])
            assert refused == 1, proxy.seen[cut_at - 1]
            assert_everything_once(database, study, [run])


def test_postgres_serves_a_sink_without_a_server_in_between(over_postgres, write_run, tmp_path):
    study, run = new_study(), finished_run(write_run, "run_a")
    url = over_postgres.engine.url.render_as_string(hide_password=False)
    assert send(url, study, [run], tmp_path / "artifacts")[0] == 7
    assert send(url, study, [run], tmp_path / "artifacts")[0] == 0
    found = over_postgres.runs(study)
    assert set(over_postgres.pairs(found["run_a"][0]).values()) == {1}
    assert len(list((tmp_path / "artifacts").rglob("best.pt"))) == 1


def test_a_password_in_the_address_is_not_shown(tmp_path):
    sink = MlflowSink("postgresql://me:geheim@127.0.0.1:9/mlflow", tmp_path, StudyIdentity("beta"), "?")
    problem = sink.ensure_parent({}).problem
    assert "geheim" not in problem
    assert problem.startswith("MLflow at postgresql://me:***@127.0.0.1:9/mlflow: ")


def test_a_missing_database_driver_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    sink = MlflowSink("postgresql://me@127.0.0.1:9/mlflow", tmp_path, StudyIdentity("beta"), "?")
    assert "psycopg" in sink.ensure_parent({}).problem
