"""`vae-sweep status`: where every run of a study is, read from the files alone."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.display import duration
from experiments.history import RunHistory, held_runs, read_history, run_state
from experiments.ledger import read_trials
from experiments.study_files import existing_study


def show_status(root: Path, name: str, console: Console) -> None:
    """Print one line per run and the counts.

    Raises:
        UserError: no such study.
    """
    study = existing_study(root, name)
    held = held_runs(study)
    table = Table(title=name)
    for column in ("cell", "seed", "state", "attempt", "epoch", "val ELBO", "SSIM", "AU", "verdict", "time"):
        table.add_column(column, justify="left" if column in ("cell", "state", "verdict") else "right", no_wrap=True)
    counts: dict[str, int] = {}
    for trial in read_trials(study):
        for run, seed in trial.runs:
            history = read_history(study.run(run))
            state = run_state(history, run in held)
            counts[state] = counts.get(state, 0) + 1
            table.add_row(trial.cell, str(seed), state, *_cells(history))
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) or "no trials yet")
    console.print(f"Table: vae-sweep report {name} --root {root}", markup=False, soft_wrap=True)


def _cells(history: RunHistory) -> list[str]:
    latest = next((metrics for metrics in reversed(history.epochs.values()) if "val/elbo" in metrics), None)
    numbers = ["", "", ""]
    if latest:
        units = f"{latest['latent/active_units']:.0f}"
        numbers = [f"{latest['val/elbo']:.2f}", f"{latest['val/ssim']:.3f}", units]
    verdict = history.result["verdict"]["name"] if history.result else ""
    if history.end and history.end["status"] == "failed":
        verdict = history.end["failure"]
    attempt = "" if history.attempt is None else str(history.attempt)
    spent = duration(sum(history.seconds.values()))
    return [attempt, str(max(history.epochs, default=0)), *numbers, verdict, spent]
