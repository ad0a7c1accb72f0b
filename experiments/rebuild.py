"""`vae-sweep rebuild`: the Optuna study and the MLflow experiment made anew from the study's folder."""

from pathlib import Path

from rich.console import Console

from experiments.ledger import read_trials
from experiments.optuna_view import OptunaView, delete_study, open_storage
from experiments.publish import open_sink, write_report
from experiments.runner import say_where
from experiments.stores import Stores
from experiments.study import coordinator_lock
from experiments.study_files import existing_study
from experiments.sweep import stored_sweep
from experiments.sync import insist, replay


def rebuild(root: Path, name: str, console: Console) -> None:
    """Delete the study's views and make them from its journals: same trials, values, metric rows and artifacts.

    Raises:
        UserError: no such study, or a coordinator is running it.
        OperationError: MLflow cannot be reached.
    """
    study = existing_study(root, name)
    with coordinator_lock(study):
        sweep = stored_sweep(study.sweep_file)
        storage = open_storage(Stores(root).optuna_journal)
        delete_study(storage, name)
        trials = read_trials(study)
        OptunaView(storage, sweep, trials)
        write_report(study)
        sink = open_sink(study, sweep)
        insist(sink, study, sink.delete_study)
        sent = replay(study, sink, trials, console, at_work=False)
    for remark in sent.remarks:
        console.print(remark, style="yellow", markup=False)
    runs = sum(len(trial.runs) for trial in trials)
    console.print(f"{len(trials)} trials and {runs} runs are in Optuna and MLflow again.", markup=False)
    say_where(study, console)
