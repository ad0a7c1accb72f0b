"""`vae-sweep rebuild`: the Optuna study and the MLflow experiment made anew from the study's folder."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from experiments.history import read_history, read_info
from experiments.ledger import read_trials
from experiments.optuna_view import OptunaView, delete_study, open_storage
from experiments.publish import publish_parent, write_report
from experiments.runner import parent_words, say_where
from experiments.stores import Stores
from experiments.study import coordinator_lock
from experiments.study_files import existing_study
from experiments.sweep import stored_sweep
from tracking.mlflow_sink import MlflowSink

_STATUS = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}


def rebuild(root: Path, name: str, console: Console) -> None:
    """Delete the study's views and make them from its journals: same trials, values, metric rows and artifacts.

    Raises:
        UserError: no such study, or a coordinator is running it.
    """
    study = existing_study(root, name)
    with coordinator_lock(study):
        sweep = stored_sweep(study.sweep_file)
        stores = Stores(root)
        storage = open_storage(stores.optuna_journal)
        delete_study(storage, name)
        trials = read_trials(study)
        OptunaView(storage, sweep, trials)
        sink = MlflowSink(stores.mlflow_uri, stores.mlflow_artifacts, name, sweep.question)
        began = min((trial.asked_ms for trial in trials), default=None)
        problems = [sink.delete_study().problem, sink.ensure_parent(*parent_words(sweep, study), began).problem]
        runs = [study.run(run) for trial in trials for run, _ in trial.runs]
        ended = all(run.info_file.exists() for run in runs)
        planned = [run for run in dict.fromkeys(runs) if run.info_file.exists()]  # killed before it planned the rest
        for run in track(planned, "MLflow", console=console, transient=True):
            state = read_history(run).status
            status = _STATUS.get(state or "", "KILLED")
            ended = ended and state is not None
            problems.append(sink.forward(run, read_info(run), final_status=status).problem)
        write_report(study)
        told = [trial.told_ms for trial in trials if trial.told_ms]
        problems.append(publish_parent(sink, study, "FINISHED" if ended else "KILLED", max(told, default=None)))
    for problem in dict.fromkeys(problem for problem in problems if problem):
        console.print(problem, style="yellow", markup=False)
    console.print(f"{len(trials)} trials and {len(runs)} runs are in Optuna and MLflow again.", markup=False)
    say_where(study, console)
