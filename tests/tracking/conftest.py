"""Run directories as workers leave them, and a migrated MLflow store that every test gets a copy of."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracking.files import write_atomic, write_json
from tracking.journal import JournalWriter
from tracking.run_directory import RunDirectory


class WrittenRun:
    """Writes a run's journals; the measured values are a function of epoch and key alone."""

    def __init__(self, path, trial=0, seed=1, params=None):
        self.directory = RunDirectory(path)
        self.directory.create()
        self.params = {"loss.beta": 4.0} if params is None else params
        self.info = {"trial": trial, "seed": seed, "cell": "loss.beta=4.0", "params": self.params}
        write_json(self.directory.info_file, self.info)
        write_atomic(self.directory.config_file, "loss: {beta: 4.0}\n")

    def open(self, number, continues=None, tags=None, **place):
        self.attempt = self.directory.attempt(number)
        self.attempt.create()
        self.journal = JournalWriter(self.attempt.journal_file)
        origin = None if continues is None else {"attempt": continues[0], "n": continues[1]}
        return self.journal.append("attempt", attempt=number, worker="w", continues=origin, tags=tags or {}, **place)

    def epoch(self, epoch, offset=0.0, keys=("train/kl", "val/elbo")):
        metrics = {key: offset + epoch + index / 8 for index, key in enumerate(keys)}
        return self.journal.append("epoch", epoch=epoch, step=10 * epoch, metrics=metrics, vectors={}, seconds=1.0)

    def checkpoint(self, epoch, covers):
        return self.journal.append("checkpoint", step=10 * epoch, epoch=epoch, file="x.pt", covers=covers)

    def saved_epoch(self, epoch, offset=0.0, keys=("train/kl", "val/elbo")):
        line = self.epoch(epoch, offset, keys)
        self.checkpoint(epoch, line.n)
        return line

    def figures(self, epoch):
        folder = self.attempt.artifacts / "figures"
        folder.mkdir(exist_ok=True)
        path = folder / f"reconstructions_{epoch:03d}.png"
        path.write_bytes(b"png" * epoch)
        return self.journal.append("figures", epoch=epoch, files=[str(path.relative_to(self.attempt.path))])

    def result(self, best_epoch):
        artifacts = {}
        for name in ("best.pt", "kl_spectrum.csv", "summary.txt"):
            (self.attempt.artifacts / name).write_text(f"content of {name}")
            artifacts[name] = f"artifacts/{name}"
        self.journal.append(
            "result",
            metrics={"test/elbo": -3.5},
            vectors={},
            verdict={"name": "partial", "because": "2 of 32 units are active"},
            best_epoch=best_epoch,
            best_value=1.0,
            epochs=best_epoch,
            parameters=7,
            artifacts=artifacts,
        )

    def end(self, status="done", failure=None, reason=None):
        return self.journal.append("end", status=status, failure=failure, reason=reason, traceback=None)

    def finish(self, epochs, first_epoch=1):
        for epoch in range(first_epoch, epochs + 1):
            self.saved_epoch(epoch)
        self.figures(epochs)
        self.result(epochs)
        return self.end()


@pytest.fixture
def written_run(tmp_path):
    return WrittenRun(tmp_path / "runs" / "run_a")


@pytest.fixture
def write_run(tmp_path):
    def write(name, **fields):
        return WrittenRun(tmp_path / "runs" / name, **fields)

    return write


FRESH_STORE = """
import sys
from pathlib import Path
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import MlflowSink

assert "mlflow" not in sys.modules
root = Path(sys.argv[1])
sink = MlflowSink(f"sqlite:///{root}/mlflow.db", root / "mlartifacts", StudyIdentity("beta"), "?")
for report in (sink.ensure_parent({"commit": "abc"}), sink.delete_study()):
    assert report.problem is None, report.problem
"""


@dataclass(frozen=True)
class Template:
    path: Path
    returncode: int
    output: str
    litter: list[Path]


@pytest.fixture(scope="session")
def store_template(tmp_path_factory):
    """A migrated and empty store, made by the sink in a process and a working folder of its own."""
    folder = tmp_path_factory.mktemp("template")
    cwd = tmp_path_factory.mktemp("elsewhere")
    finished = subprocess.run(
        [sys.executable, "-c", FRESH_STORE, folder / "root"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Template(folder / "root" / "mlflow.db", finished.returncode, finished.stdout, list(cwd.iterdir()))


class Store:
    """A SQLite store of MLflow, read with plain SQL: an observer that shares no code with the sink."""

    def __init__(self, folder, template):
        self.path = folder / "mlflow.db"
        self.artifacts = folder / "mlartifacts"
        self.uri = f"sqlite:///{self.path}"
        self._template = template
        self.make()

    def make(self):
        self.path.parent.mkdir(exist_ok=True)
        shutil.copyfile(self._template, self.path)

    def rows(self, query, *values):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def run_id(self, run):
        query = "SELECT run_uuid FROM tags WHERE key = 'vae_sweep.run_id' AND value = ?"
        [(found,)] = self.rows(query, run.directory.id)
        return found

    def metrics(self, run):
        query = "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ? ORDER BY key, step"
        return self.rows(query, self.run_id(run))

    def steps(self, run, key):
        return [step for name, step, _, _ in self.metrics(run) if name == key]

    def pairs(self, run):
        return Counter((key, step) for key, step, _, _ in self.metrics(run))

    def tags(self, mlflow_run_id):
        return dict(self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", mlflow_run_id))

    def params(self, mlflow_run_id):
        return dict(self.rows("SELECT key, value FROM params WHERE run_uuid = ?", mlflow_run_id))

    def info(self, mlflow_run_id):
        query = "SELECT name, status, start_time, end_time, lifecycle_stage FROM runs WHERE run_uuid = ?"
        [row] = self.rows(query, mlflow_run_id)
        return row

    def files(self, mlflow_run_id):
        [(uri,)] = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", mlflow_run_id)
        folder = Path(uri.removeprefix("file://"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path, store_template):
    return Store(tmp_path / "stores", store_template.path)
