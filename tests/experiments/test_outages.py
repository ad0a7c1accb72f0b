"""A real sweep with MLflow as a server that is away: the whole time, from half-way on, or for a while."""

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest
from support.engine import expected_rows, journal_lines
from support.mlflow_server import mlflow_server
from support.tiny import TINY

COMMAND = [sys.executable, "-m", "experiments.cli"]
TIMEOUT_S = 600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as running:
        yield running


@pytest.fixture
def sweep(tmp_path, request):
    path = tmp_path / f"away-{len(request.node.name)}.yaml"
    path.write_text(TINY.lstrip().replace("train.epochs: 3", "train.epochs: 40"))
    return path


def vae_sweep(server, *arguments):
    environment = os.environ | {"VAE_SWEEP_MLFLOW_URI": server.url}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, stdout=-1, stderr=-2, text=True)


def rows_of(server, study):
    query = """
        SELECT own.value, metrics.key, metrics.step FROM metrics
        JOIN tags AS own ON own.run_uuid = metrics.run_uuid AND own.key = 'vae_sweep.run_id'
        JOIN runs ON runs.run_uuid = metrics.run_uuid
        JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = ?
    """
    return Counter(_read(server, query, study))


def runs_of(server, study):
    query = """
        SELECT runs.name, runs.status FROM runs
        JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.name = ?
    """
    return sorted(_read(server, query, study))


def _read(server, query, *values):
    with closing(sqlite3.connect(server.database.removeprefix("sqlite:///"))) as connection:
        return connection.execute(query, values).fetchall()


def epochs_written(root):
    runs = root.glob("*/runs/*/attempts")
    return sum(line["kind"] == "epoch" for attempts in runs for line in journal_lines(attempts.parent))


def assert_complete_after_sync(server, root, study):
    for expected in ("sent", "nothing was missing"):
        syncing = vae_sweep(server, "sync", study, "--root", root)
        output, _ = syncing.communicate(timeout=TIMEOUT_S)
        assert syncing.returncode == 0, output
        assert expected in output
    rows = rows_of(server, study)
    assert set(rows) == expected_rows(root / study)
    assert set(rows.values()) == {1}
    names = [f"beta={beta} seed={seed}" for beta in ("0.1", "100.0") for seed in (0, 1)]
    assert runs_of(server, study) == sorted((name, "FINISHED") for name in [study, *names])


@pytest.mark.parametrize("away", ["the whole time", "from half-way on", "for a while"])
def test_after_sync_every_row_is_there_once(server, sweep, tmp_path, away):
    root = tmp_path / "runs"
    if server.process is None:
        server.start()
    if away == "the whole time":
        server.kill()
    running = vae_sweep(server, "run", sweep, "--root", root, "--workers", 2)
    if away != "the whole time":
        while epochs_written(root) < 60:
            assert running.poll() is None, running.stdout.read()
            time.sleep(0.1)
        server.kill()
        if away == "for a while":
            time.sleep(2)
            server.start()
    output, _ = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, output
    if away != "for a while":
        assert f"MLflow at {server.url}" in output
        assert f"vae-sweep sync {sweep.stem}" in output
        refused = vae_sweep(server, "sync", "--root", root)
        words, _ = refused.communicate(timeout=TIMEOUT_S)
        assert refused.returncode == 1
        assert words.splitlines()[-1].startswith(f"error: MLflow at {server.url}: ")
        server.start()
        assert_complete_after_sync(server, root, sweep.stem)
    else:
        vae_sweep(server, "sync", "--root", root).communicate(timeout=TIMEOUT_S)
        rows = rows_of(server, sweep.stem)
        assert set(rows) == expected_rows(root / sweep.stem)
        assert set(rows.values()) == {1}
