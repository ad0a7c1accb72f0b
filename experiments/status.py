"""`vae-sweep status`: where every run of a study is, read from the files alone."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.display import duration
from experiments.history import RunHistory, held_runs, read_history, run_state
from experiments.ledger import read_trials
from experiments.study_files import existing_study
from tracking.replay import gpu_hours


def show_status(root: Path, name: str, console: Console) -> None:
    """Print one line per run and the counts; of runs in SLURM jobs also where, and the GPU-hours.

    Raises:
        UserError: no such study.
    """
    study = existing_study(root, name)
    runs = [(trial.cell, seed, study.run(run)) for trial in read_trials(study) for run, seed in trial.runs]
    histories = {run.id: read_history(run) for _, _, run in runs}
    in_jobs = any(history.place.get("job") for history in histories.values())
    hours = {run.id: gpu_hours(run) for _, _, run in runs} if in_jobs else {}
    held = held_runs(study)
    states = [run_state(histories[run.id], run.id in held) for _, _, run in runs]
    table = _empty_table(name, in_jobs)
    for (cell, seed, run), state in zip(runs, states, strict=True):
        place = histories[run.id].place
        where = [f"{hours[run.id]:.3f}", place.get("job") or "", place.get("host") or ""] if in_jobs else []
        table.add_row(cell, str(seed), state, *_cells(histories[run.id]), *where)
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states).items()) or "no trials yet"
    console.print(counts, *([f"{sum(hours.values()):.3f} GPU-hours"] if in_jobs else []), sep="; ", highlight=False)
    console.print(f"Table: vae-sweep report {name} --root {root}", markup=False, soft_wrap=True)


def _empty_table(name: str, in_jobs: bool) -> Table:
    table = Table(title=name)
    columns = ["cell", "seed", "state", "attempt", "epoch", "val ELBO", "SSIM", "AU", "verdict", "time"]
    for column in columns + (["GPU-hours", "job", "node"] if in_jobs else []):
        table.add_column(column, justify="left" if column in ("cell", "state", "verdict") else "right", no_wrap=True)
    return table


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
