"""`vae-sweep run` from the checked sweep to the printed table."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.coordinator import Coordinator
from experiments.datasets import Datasets
from experiments.display import Display, counted
from experiments.failures import OperationError
from experiments.inbox import discard_stops
from experiments.launchers import InlineLauncher, Launcher, LocalLauncher
from experiments.ledger import Ledger, read_trials
from experiments.machine import usable_cores
from experiments.optuna_view import OptunaView, open_storage
from experiments.publish import open_sink, parent_words, publish_parent, write_report
from experiments.slurm_names import keep_job_name
from experiments.stores import TRACKING_VARIABLE, Stores
from experiments.study import coordinator_lock, open_study, study_folder
from experiments.submitting import (
    coordinator_log,
    keep_code,
    keep_launcher,
    kept_launcher,
    refuse_impossible_jobs,
    refuse_unclean_code,
    slurm_launcher,
    start_detached,
    submit_coordinator,
)
from experiments.sweep import Sweep, stored_sweep
from slurm.errors import SlurmError
from slurm.redaction import redacted
from tracking.mlflow_address import shown_uri
from tracking.run_directory import StudyDirectory
from vae_core.config import RunConfig
from vae_core.data import Dataset
from vae_core.data.batches import padded_size, padding_multiple
from vae_core.data.labels import label_mistakes
from vae_core.errors import UserError
from vae_core.models.vae import check_on_meta
from vae_core.objective import loss_mistakes
from vae_core.trainer import DeviceMissingError, resolve_device

_DONE, _SOME_FAILED, _STOPPED_BY_REQUEST, _STOPPED = 0, 1, 3, 130
_FEWEST_IMAGES = 2
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


@dataclass(frozen=True)
class Plan:
    """What a sweep amounts to, checked on the meta device."""

    cells: int
    runs: int
    parameters: list[int]
    images: dict[str, int]

    def words(self) -> str:
        """Return `7 cells x 2 seeds = 14 runs of 120,689 parameters; images: 420 train, 90 val, 90 test`."""
        seeds = counted(self.runs // self.cells, "seed")
        low, high = min(self.parameters), max(self.parameters)
        size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        images = ", ".join(f"{count} {name}" for name, count in self.images.items())
        return (
            f"{counted(self.cells, 'cell')} x {seeds} = {counted(self.runs, 'run')} of {size} parameters; "
            f"images: {images}"
        )


def check_plan(sweep: Sweep, datasets: Datasets) -> Plan:
    """Build and run every distinct model once on torch's meta device, at the smallest and the largest image.

    Raises:
        UserError: the data cannot be prepared, or a model is impossible; all of them at once.
    """
    if sweep.file.launcher.kind != "slurm":
        _refuse_missing_device(sweep)
    cells = sweep.grid() if sweep.file.sampler == "grid" else _samples(sweep)
    parameters: list[int] = []
    mistakes: list[str] = []
    checked: set[str] = set()
    for params in cells:
        config = sweep.config(params, sweep.seeds[0])
        key = "".join(section.model_dump_json() for section in (config.model, config.data, config.loss))
        if key in checked:
            continue
        checked.add(key)
        place = f"{sweep.where}: cell {sweep.cell_name(params)}"
        mistakes += [f"{place}: {message}" for message in _size_mistakes(config, datasets.of(config))]
        if mistakes:
            continue
        try:
            parameters.append(_tried(config, datasets.of(config)))
        except UserError as error:
            mistakes += [f"{place}: {message}" for message in error.messages]
    if mistakes:
        raise UserError(mistakes)
    count = len(cells) if sweep.file.sampler == "grid" else sweep.file.trials or 0
    splits = datasets.of(sweep.base_config).splits
    images = {name: len(indices) for name, indices in splits.items()}
    return Plan(count, count * len(sweep.seeds), parameters, images)


def _refuse_missing_device(sweep: Sweep) -> None:
    """Workers run on this machine: a device that it lacks would only be noticed by each of them."""
    try:
        resolve_device(sweep.base_config.train.device)
    except DeviceMissingError as error:
        raise UserError(f"{sweep.where}: {error}; auto takes what there is") from error


def _tried(config: RunConfig, dataset: Dataset) -> int:
    return check_on_meta(config, _extreme_sizes(config, dataset), len(dataset.label_names))


def _samples(sweep: Sweep) -> list[dict[str, Any]]:
    """Return what a sampler may propose at the edges: the base, every choice and both ends of every range."""
    cells: list[dict[str, Any]] = [{}]
    for path, axis in sweep.file.space.items():
        values = axis if isinstance(axis, list) else [axis.low, axis.high]
        cells += [{path: value} for value in values]
    return cells


def _size_mistakes(config: RunConfig, dataset: Dataset) -> Iterator[str]:
    for name in ("val", "test"):
        count = len(dataset.splits[name])
        if count < _FEWEST_IMAGES:
            yield (
                f"data.{name}_fraction: leaves {count} of {len(dataset)} images in {name}; "
                f"at least {_FEWEST_IMAGES} are needed to measure variances over images"
            )
    yield from label_mistakes(config, dataset)
    yield from loss_mistakes(config.loss, int(dataset.sizes.min()))
    largest = int(dataset.sizes.max())
    if config.model.stride > largest:
        halvings = config.model.stride.bit_length() - 1
        yield (
            f"model.encoder_widths: the encoder halves {halvings} times, to 1/{config.model.stride}, but the longest "
            f"side of any image is {largest} px; use fewer widths"
        )


def _extreme_sizes(config: RunConfig, dataset: Dataset) -> list[tuple[int, int]]:
    sizes = dataset.sizes
    multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
    heights = sorted({padded_size((int(height), int(width)), multiple) for height, width in sizes})
    return [heights[0], heights[-1]] if len(heights) > 1 else heights


@contextmanager
def preparation_progress(console: Console) -> Iterator[Any]:
    """Yield a function (what, done, total) that draws a progress bar while images are prepared."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def run_sweep(
    sweep: Sweep,
    root: Path,
    console: Console,
    launcher: str | None = None,
    workers: int | None = None,
    *,
    allow_dirty: bool = False,
) -> int:
    """Run (or finish) a sweep, print its table, and return the exit code.

    Args:
        sweep: a checked sweep.
        root: folder of the studies and of the MLflow and Optuna stores.
        console: where to show progress and the table.
        launcher: `local`, `inline` or `slurm`; default: the sweep's.
        workers: worker processes; default: the sweep's, else CPU cores / `train.threads`.
        allow_dirty: whether SLURM jobs may run code that is not committed and pushed.
    """
    sweep = sweep.launched(launcher, workers)
    tracking_uri = Stores(root).tracking_uri  # an address that is none is refused before anything is made
    study = StudyDirectory(root.absolute() / sweep.name)
    if sweep.file.launcher.kind == "slurm":
        refuse_unclean_code(study, allow_dirty)
        refuse_impossible_jobs(sweep, study)
    elif sweep.file.launcher.coordinator == "job":
        raise UserError(f"{sweep.where}: launcher.coordinator: job needs launcher.kind: slurm; use detached")
    with preparation_progress(console) as progress:
        datasets = Datasets(sweep.where, progress)
        plan = check_plan(sweep, datasets)
    study = study_folder(root, sweep)
    console.print(sweep.question, style="bold", markup=False, highlight=False)
    console.print(f"{plan.words()}; folder: {study.path}", markup=False, highlight=False, soft_wrap=True)
    with coordinator_lock(study, tracking_uri):
        open_study(study, sweep, datasets.of(sweep.base_config))
        _make_ready(study, sweep, console)
        if sweep.file.launcher.coordinator == "foreground":
            return _coordinate(sweep, study, datasets, console)
    return _coordinate_elsewhere(sweep, study, console)


def _make_ready(study: StudyDirectory, sweep: Sweep, console: Console) -> None:
    """Lift an earlier stop, and keep what coordinators and jobs elsewhere need."""
    study.stop_file.unlink(missing_ok=True)
    discard_stops(study)
    keep_launcher(study, sweep.file.launcher)
    if sweep.file.launcher.kind != "slurm":
        return
    keep_job_name(study)
    if remark := keep_code(study):
        console.print(remark, style="yellow", markup=False, soft_wrap=True)


def coordinate(study: StudyDirectory, console: Console) -> int:
    """Go on with a study from its folder alone, as a detached coordinator or one that is a job does; see `run_sweep`.

    Raises:
        UserError: another coordinator runs the study.
    """
    stored = stored_sweep(study.sweep_file)
    file = stored.file.model_copy(update={"launcher": kept_launcher(study)})
    sweep = replace(stored, file=file)
    with coordinator_lock(study, Stores(study.path.parent).tracking_uri):
        if study.stop_file.exists():  # stopped before this process was ready; only `vae-sweep run` lifts that
            console.print(f"{study.path.name} was stopped", markup=False)
            return _STOPPED
        return _coordinate(sweep, study, Datasets(sweep.where), console)


def _coordinate_elsewhere(sweep: Sweep, study: StudyDirectory, console: Console) -> int:
    """Start a coordinator in the background, or as a job, and say how to follow it."""
    name = f"{study.path.name} --root {study.path.parent}"
    if sweep.file.launcher.coordinator == "job":
        try:
            job = submit_coordinator(sweep, study)
        except SlurmError as error:
            raise OperationError(str(error)) from error
        where = f"job {job}; its log is under {study.slurm}"
    else:
        where = f"process {start_detached(study)}; its log is {coordinator_log(study)}"
    console.print(f"The coordinator is {where}", markup=False, highlight=False, soft_wrap=True)
    lines = [f"Follow it:  vae-sweep attach {name}", f"Stop it:    vae-sweep stop {name}"]
    if sweep.file.launcher.coordinator == "job" and Stores(study.path.parent).are_elsewhere:
        lines.append(f"MLflow and Optuna here: vae-sweep rebuild {name} (the job's are on its node's disk)")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return _DONE


def _launcher(sweep: Sweep, study: StudyDirectory, datasets: Datasets) -> Launcher:
    settings = sweep.file.launcher
    if settings.kind == "inline":
        return InlineLauncher(study)
    if settings.kind == "slurm":
        return slurm_launcher(sweep, study, datasets)
    threads = sweep.base_config.train.threads
    count = settings.workers or max(1, usable_cores() // threads)
    return LocalLauncher(study, count, threads, settings.idle_timeout_s)


def _coordinate(sweep: Sweep, study: StudyDirectory, datasets: Datasets, console: Console) -> int:
    """Reconcile the study to its end, print its table, and return the exit code."""
    launcher = _launcher(sweep, study, datasets)
    stores = Stores(study.path.parent)
    ledger = Ledger(study)
    view = OptunaView(open_storage(stores.optuna_journal), sweep, ledger.trials)
    sink = open_sink(study, sweep)
    sink.ensure_parent(*parent_words(sweep, study))
    with Display(console, launcher.workers) as display:
        coordinator = Coordinator(study, sweep, datasets, ledger, view, sink, launcher, display.show)
        with _signals(coordinator):
            finished = coordinator.run()
    ledger.close()
    if finished:
        report = write_report(study)
        console.print(report.to_console())
    goes_on = not finished and not coordinator.ends_jobs
    status = "FINISHED" if finished else "RUNNING" if goes_on else "KILLED"
    warning = publish_parent(sink, study, status) or coordinator.mlflow_problem
    if warning:
        remedy = f"vae-sweep sync {sweep.name} --root {study.path.parent}"
        console.print(
            f"{warning}; to complete MLflow later: {remedy}",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if not finished:
        console.print(_how_to_go_on(study, goes_on), markup=False, soft_wrap=True)
        return _STOPPED_BY_REQUEST if coordinator.stopped_by_request else _STOPPED
    say_where(study, console)
    failed = [trial for trial in read_trials(study) if trial.state == "FAIL"]
    return _SOME_FAILED if failed else _DONE


def _how_to_go_on(study: StudyDirectory, goes_on: bool) -> str:
    command = shlex.join(["vae-sweep", *(redacted(word) for word in sys.argv[1:])])
    if not goes_on:
        return f"Stopped. Every finished epoch is kept; to go on: {command}"
    name = f"{study.path.name} --root {study.path.parent}"
    return (
        f"Left. The jobs go on with what is queued; to come back: {command}; to stop them: vae-sweep stop {name}; "
        f"to look: vae-sweep status {name}"
    )


def say_where(study: StudyDirectory, console: Console) -> None:
    """Print where the table, the picture and the web pages are."""
    lines = [
        f"Table and picture: {study.report}/table.md, {study.report}/overview.png",
        f"Table again:       vae-sweep report {study.path.name} --root {study.path.parent}",
        f"MLflow + Optuna:   vae-sweep ui --root {study.path.parent}",
    ]
    stores = Stores(study.path.parent)
    if stores.tracking_uri != stores.mlflow_uri:
        lines.append(f"MLflow is at      {shown_uri(stores.tracking_uri)}, as {TRACKING_VARIABLE} says")
    if stores.are_elsewhere:
        lines.append(f"Their databases are on this machine's own disk, not on the network: {stores.place}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _signals(coordinator: Coordinator) -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM, or SIGUSR2 of a job, into an orderly stop; a second SIGINT interrupts at once."""

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        coordinator.request_stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
