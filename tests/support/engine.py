"""Reading back what a sweep left behind, by means that share no code with what wrote it."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import optuna
import torch


def journal_lines(run: Path) -> list[dict]:
    """Return the lines of every attempt of a run, as plain JSON."""
    lines: list[dict] = []
    for attempt in sorted((run / "attempts").iterdir(), key=lambda path: int(path.name)):
        journal = attempt / "journal.jsonl"
        texts = journal.read_text().splitlines() if journal.exists() else []
        lines += [{**json.loads(text), "in_attempt": int(attempt.name)} for text in texts]
    return lines


def best_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the attempt that came to the end."""
    ended = [line["in_attempt"] for line in journal_lines(run) if line["kind"] == "end" and line["status"] == "done"]
    assert len(ended) == 1, f"{run} ended {len(ended)} times"
    return torch.load(run / "attempts" / str(ended[0]) / "artifacts" / "best.pt", weights_only=True)


def all_weights(study: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return run id -> weights of every run of a study."""
    return {run.name: best_weights(run) for run in sorted((study / "runs").iterdir())}


def assert_same_weights(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for run in left:
        assert left[run].keys() == right[run].keys()
        for name in left[run]:
            assert torch.equal(left[run][name], right[run][name]), (run, name)


def mlflow_rows(root: Path) -> Counter:
    """Return (study's run id, key, step) -> how often it stands in MLflow's database, nested runs only."""
    connection = sqlite3.connect(root / "mlflow.db")
    try:
        rows = connection.execute(
            "SELECT tags.value, metrics.key, metrics.step FROM metrics "
            "JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'vae_sweep.run_id'"
        ).fetchall()
    finally:
        connection.close()
    return Counter(rows)


def mlflow_runs(root: Path) -> list[tuple[str, str]]:
    """Return (name, status) of every nested run."""
    connection = sqlite3.connect(root / "mlflow.db")
    try:
        return connection.execute(
            "SELECT runs.name, runs.status FROM runs "
            "JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'vae_sweep.run_id' ORDER BY runs.name"
        ).fetchall()
    finally:
        connection.close()


def expected_rows(study: Path) -> set[tuple[str, str, int]]:
    """Return the (run, key, step) that the journals say MLflow should hold."""
    rows = set()
    for run in (study / "runs").iterdir():
        for line in journal_lines(run):
            if line["kind"] == "epoch":
                rows |= {(run.name, key, line["epoch"]) for key in [*line["metrics"], *line.get("system", ())]}
            if line["kind"] == "result":
                rows |= {(run.name, key, line["best_epoch"]) for key in line["metrics"] if key != "test/scale"}
    return rows


def optuna_trials(root: Path, study: str) -> list[tuple]:
    """Return (number, state, params, value, intermediate values) of every trial."""
    from experiments.optuna_view import open_storage

    found = optuna.load_study(study_name=study, storage=open_storage(root / "optuna.journal"))
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in found.get_trials()
    ]
