"""`vae-sweep stop`, `retry` and `prune`: what people ask of a study, put into its inbox for the coordinator."""

import contextlib
import time
from pathlib import Path

from rich.console import Console

from experiments.display import counted
from experiments.failures import OperationError
from experiments.history import read_history
from experiments.inbox import Request, ask, requests
from experiments.naming import chosen_runs, labels
from experiments.study_files import existing_study, lock_holder
from slurm.errors import SlurmError
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

_PATIENCE_S = 120.0
_POLL_S = 0.3


def stop(root: Path, name: str, console: Console) -> None:
    """Have a study's workers write checkpoints and leave, and end its jobs and its coordinator.

    Raises:
        UserError: no such study.
        OperationError: its coordinator does not stop, or SLURM does not end its jobs.
    """
    study = existing_study(root, name)
    request = ask(study, Request("stop"))
    while request.exists():  # a coordinator removes it; it stays where there is none, or not all was done
        if (holder := lock_holder(study)) is not None:
            console.print(f"Asked the coordinator ({holder}) to stop; waiting for checkpoints", markup=False)
            _await_end(study)
        else:
            _stop_without_coordinator(study, request, console)
    console.print(f"Stopped. To go on: the same vae-sweep run; where it stands: vae-sweep status {name} --root {root}")


def _await_end(study: StudyDirectory) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while lock_holder(study) is not None:
        if time.monotonic() > deadline:
            raise OperationError(
                f"the coordinator has not stopped after {_PATIENCE_S:.0f} s; the request stays in {study.inbox}"
            )
        time.sleep(_POLL_S)


def _stop_without_coordinator(study: StudyDirectory, request: Path, console: Console) -> None:
    """Do what the coordinator would; where one has taken the lock since it was looked at, the request is left to it."""
    from experiments.study import StudyBusyError, coordinator_lock
    from experiments.submitting import stop_workers
    from experiments.sync import close

    with contextlib.suppress(StudyBusyError), coordinator_lock(study):
        try:
            problem = stop_workers(study, _PATIENCE_S)
        except SlurmError as error:
            problem = str(error)
        finally:
            request.unlink(missing_ok=True)  # else the next run would stop at once
        if (refusal := close(study, console)) is not None:
            console.print(refusal, style="yellow", markup=False)
        if problem is not None:
            raise OperationError(f"workers were told to stop, but not all are known to have left: {problem}")


def retry(root: Path, name: str, words: list[str], console: Console) -> None:
    """Ask for another try of failed or pruned runs.

    Raises:
        UserError: no such study or run, or none that has failed.
    """
    study = existing_study(root, name)
    chosen = chosen_runs(study, words) if words else list(labels(study))
    states = {run: read_history(study.run(run)).status for run in chosen}
    wanted = ("failed", "pruned") if words else ("failed",)
    runs = [run for run, state in states.items() if state in wanted]
    if not runs:
        raise UserError(
            f"{name}: no such run has {' or been '.join(wanted)}; see vae-sweep status {name} --root {root}"
        )
    ask(study, Request("retry", runs))
    _say(study, f"{counted(len(runs), 'run')} will be tried again", console)


def prune(root: Path, name: str, words: list[str], console: Console) -> None:
    """Ask for the end of runs before their time.

    Raises:
        UserError: no such study or run, or none that is not at its end.
    """
    study = existing_study(root, name)
    runs = [run for run in chosen_runs(study, words) if read_history(study.run(run)).status is None]
    if not runs:
        raise UserError(f"{name}: these runs have all ended; see vae-sweep status {name} --root {root}")
    ask(study, Request("prune", runs))
    _say(study, f"{counted(len(runs), 'run')} will end after the next optimizer step", console)


def _say(study: StudyDirectory, what: str, console: Console) -> None:
    pending = f" ({counted(len(requests(study)), 'request')} in the inbox)"
    when = (
        "at once" if lock_holder(study) is not None else f"when vae-sweep run goes on with {study.path.name}{pending}"
    )
    console.print(
        f"{what}, {when}. Watch it: vae-sweep attach {study.path.name} --root {study.path.parent}", markup=False
    )
