"""Studies that are planned and queued, with nothing trained: as a coordinator that was killed at once leaves them."""

import io
from pathlib import Path

from rich.console import Console

from experiments.ledger import Ledger
from experiments.study import open_study, plan_run, study_folder
from experiments.submitting import keep_launcher
from experiments.sweep import load_sweep
from tracking.queue import QueueEntry, enqueue
from tracking.run_directory import StudyDirectory
from vae_core.config import run_id
from vae_core.data import prepare


def planned(sweep_file: Path, root: Path, *options: str) -> StudyDirectory:
    """Plan and queue the runs of a sweep and return its study; `run_inline` goes on with it."""
    sweep = load_sweep(str(sweep_file), list(options)).launched("inline", None)
    study = study_folder(root, sweep)
    dataset = prepare(sweep.base_config.data)
    open_study(study, sweep, dataset)
    keep_launcher(study, sweep.file.launcher)
    ledger = Ledger(study)
    for params in sweep.grid():
        configs = [sweep.config(params, seed) for seed in sweep.seeds]
        runs = [(run_id(config, dataset.fingerprint), config.seed) for config in configs]
        trial = ledger.ask(params, sweep.cell_name(params), runs)
        for config, (run, _) in zip(configs, runs, strict=True):
            plan_run(study, trial, config, run, dataset)
            enqueue(study, QueueEntry(run, 0, len(study.run_ids()) - 1))
    ledger.close()
    return study


def run_inline(sweep_file: Path, root: Path, *options: str) -> tuple[int, str]:
    """Run a sweep in this process; return the exit code and what was printed."""
    from experiments.runner import run_sweep

    console = Console(file=io.StringIO(), width=160)
    code = run_sweep(load_sweep(str(sweep_file), list(options)), root, console, "inline", None)
    return code, console.file.getvalue()
