"""`vae-sweep status`: where every run of a study is, read from the files alone."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.display import duration
from experiments.history import RunHistory, held_runs, read_history, run_state
from experiments.ledger import read_trials
from experiments.study_files import existing_study
from tracking.replay import gpu_hours


def show_status(root: Path, name: str, console: Console) -> None:
    """Print one line per run and the counts.

    Raises:
        UserError: no such study.
    """
    study = existing_study(root, name)
    held = held_runs(study)
    table = Table(title=name)
    columns = ["cell", "seed", "state", "attempt", "epoch", "val ELBO", "SSIM", "AU", "verdict", "time"]
    runs = [(trial, run, seed) for trial in read_trials(study) for run, seed in trial.runs]
    histories = {run: read_history(study.run(run)) for _, run, _ in runs}
    in_jobs = any(history.place.get("job") for history in histories.values())
    for column in [*columns, *(["GPU-hours", "job", "node"] if in_jobs else [])]:
        table.add_column(column, justify="left" if column in ("cell", "state", "verdict") else "right", no_wrap=True)
    counts: dict[str, int] = {}
    hours = {run: gpu_hours(study.run(run)) for run in histories} if in_jobs else {}
    for trial, run, seed in runs:
        state = run_state(histories[run], run in held)
        counts[state] = counts.get(state, 0) + 1
        place = histories[run].place
        where = [f"{hours[run]:.3f}", place.get("job") or "", place.get("host") or ""] if in_jobs else []
        table.add_row(trial.cell, str(seed), state, *_cells(histories[run]), *where)
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) or "no trials yet")
    if in_jobs:
        console.print(f"{sum(hours.values()):.3f} GPU-hours", highlight=False)
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
