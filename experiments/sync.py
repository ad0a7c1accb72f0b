"""`vae-sweep sync`: studies replayed into MLflow, each value once: after an outage, or into another server."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from experiments.display import counted
from experiments.failures import OperationError
from experiments.file_system import is_read_only
from experiments.history import held_runs, read_history, read_info
from experiments.ledger import TrialRecord, read_trials
from experiments.publish import open_sink, parent_words, publish_parent, write_report
from experiments.stores import Stores, checked_address
from experiments.study import StudyBusyError, coordinator_lock, sync_lock
from experiments.study_files import coordinators_store, existing_study
from experiments.sweep import stored_sweep
from tracking.mlflow_address import shown_uri, store_identity
from tracking.mlflow_sink import ForwardReport, MlflowSink
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

_STATUS = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_TRIES = 3  # of each contact that MLflow refuses


@dataclass
class Sent:
    """What a replay has sent of a study, and what MLflow had to say about it."""

    runs: int = 0
    metrics: int = 0
    files: int = 0
    remarks: dict[str, None] = field(default_factory=dict)

    def add(self, report: ForwardReport) -> None:
        """Take in what one call has sent."""
        self.metrics += report.metrics_sent
        self.files += report.files_sent
        if report.problem:
            self.remarks[report.problem] = None


def sync(root: Path, names: list[str], to: str | None, console: Console) -> None:
    """Send what MLflow lacks of the named studies, of all where none is named, and say what was sent where.

    Into the root's own store only where no coordinator writes there; into another server at any time.

    Args:
        root: folder of the studies.
        names: of studies.
        to: a tracking URI; None: where coordinators of the root write.
        console: where progress is shown.

    Raises:
        UserError: no such study, no address of a tracking server, or somebody else is sending the study there.
        OperationError: MLflow cannot be reached, or refused something; what is there stays, and a repetition goes on.
    """
    uri = Stores(root).tracking_uri if to is None else checked_address(to, "--to")
    names = names or sorted(path.parent.name for path in root.glob("*/sweep.yaml"))
    if not names:
        raise UserError(f"--root {root}: holds no study yet; run one first, for example: vae-sweep run beta")
    studies = [existing_study(root, name) for name in names]
    incomplete = [study.path.name for study in studies if not _sync_study(study, uri, console)]
    console.print(f"MLflow: {shown_uri(uri)}", markup=False, highlight=False, soft_wrap=True)
    if incomplete:
        raise OperationError(f"not complete: {', '.join(incomplete)}; what is said above has to be mended first")


def _sync_study(study: StudyDirectory, uri: str, console: Console) -> bool:
    sweep = stored_sweep(study.sweep_file)
    with _written_by_nobody_else(study, uri) as at_work:
        sink = open_sink(study, sweep, uri)
        trials = read_trials(study)
        if not at_work and not is_read_only(study.path):
            write_report(study)
        sent = replay(study, sink, trials, console, at_work=at_work)
    parts = [f"{sent.metrics:,} metric rows", counted(sent.files, "file")]
    what = f"{' and '.join(parts)} sent" if sent.metrics or sent.files else "nothing was missing"
    console.print(f"{study.path.name}: {counted(sent.runs, 'run')}; {what}", markup=False, highlight=False)
    for remark in sent.remarks:
        console.print(remark, style="yellow", markup=False)
    return not sent.remarks


def close(study: StudyDirectory, console: Console) -> str | None:
    """Show in MLflow that a study without a coordinator has stopped; return what MLflow refused, None: nothing.

    The caller holds the study's lock.
    """
    try:
        replay(study, open_sink(study, stored_sweep(study.sweep_file)), read_trials(study), console, at_work=False)
    except OperationError as refusal:
        return str(refusal)
    return None


@contextmanager
def _written_by_nobody_else(study: StudyDirectory, uri: str) -> Iterator[bool]:
    """Be alone in sending the study there; yield whether a coordinator is at work, which then writes elsewhere.

    Raises:
        StudyBusyError: another sync, or the coordinator, is sending it there.
    """
    if is_read_only(study.path):  # an archive: nobody trains there
        yield False
        return
    with ExitStack() as stack:
        stack.enter_context(sync_lock(study))
        try:
            stack.enter_context(coordinator_lock(study))
        except StudyBusyError:
            if coordinators_store(study) in (None, store_identity(uri)):  # None: a rebuild, say
                raise
            yield True
        else:
            yield False


def replay(
    study: StudyDirectory, sink: MlflowSink, trials: list[TrialRecord], console: Console, *, at_work: bool
) -> Sent:
    """Send what the sink's store lacks of a study, and close what is over.

    Args:
        study: the study.
        sink: the study in MLflow.
        trials: its trials.
        console: where progress is shown.
        at_work: whether a coordinator runs the study.

    Raises:
        OperationError: MLflow refused the same thing several times.
    """
    sent = Sent()
    began = min((trial.asked_ms for trial in trials), default=None)
    sweep = stored_sweep(study.sweep_file)
    insist(sink, study, lambda: sink.ensure_parent(*parent_words(sweep, study), began))
    planned = [study.run(run) for run in dict.fromkeys(run for trial in trials for run, _ in trial.runs)]
    runs = [run for run in planned if run.info_file.exists()]  # a killed coordinator had not planned the rest
    alive = held_runs(study)
    over = len(runs) == len(planned)
    for run in track(runs, f"{study.path.name} to MLflow", console=console, transient=True):
        state = read_history(run).status
        open_ended = state is None and (at_work or run.id in alive)
        status = None if open_ended else _STATUS.get(state or "", "KILLED")
        over = over and state is not None
        sent.add(insist(sink, study, partial(sink.forward, run, read_info(run), final_status=status)))
        sent.runs += 1
    told = [trial.told_ms for trial in trials if trial.told_ms]
    ending = "RUNNING" if at_work or alive else "FINISHED" if over else "KILLED"
    if problem := publish_parent(sink, study, ending, max(told, default=None)):
        sent.remarks[problem] = None
    return sent


def insist(sink: MlflowSink, study: StudyDirectory, call: Callable[[], ForwardReport]) -> ForwardReport:
    """Repeat a call that MLflow refuses, after the sink's own pauses.

    Raises:
        OperationError: it refused each time.
    """
    for _ in range(_TRIES):
        time.sleep(sink.wait_s)
        report = call()
        if sink.refusal is None:
            return report
    root = study.path.parent
    elsewhere = [] if sink.uri == Stores(root).tracking_uri else ["--to", shown_uri(sink.uri)]
    again = shlex.join(["vae-sweep", "sync", study.path.name, "--root", str(root), *elsewhere])
    raise OperationError(f"{sink.refusal}; what has arrived stays, and to send the rest: {again}")
