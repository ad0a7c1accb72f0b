"""`vae-sweep run` from the checked sweep to the printed table."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.coordinator import Coordinator
from experiments.datasets import Datasets
from experiments.display import Display, counted
from experiments.launchers import InlineLauncher, Launcher, LocalLauncher
from experiments.ledger import Ledger, read_trials
from experiments.optuna_view import OptunaView, open_storage
from experiments.publish import publish_parent, write_report
from experiments.stores import Stores
from experiments.study import coordinator_lock, open_study, study_folder
from experiments.sweep import Sweep
from tracking.files import read_json
from tracking.mlflow_sink import MlflowSink
from tracking.run_directory import StudyDirectory
from vae_core.config import RunConfig
from vae_core.data import Dataset
from vae_core.data.batches import padded_size, padding_multiple
from vae_core.data.labels import label_mistakes
from vae_core.errors import UserError
from vae_core.models.vae import check_on_meta
from vae_core.objective import loss_mistakes
from vae_core.trainer import DeviceMissingError, resolve_device

_DONE, _SOME_FAILED, _STOPPED = 0, 1, 130
_FEWEST_IMAGES = 2


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


def run_sweep(sweep: Sweep, root: Path, console: Console, launcher: str | None, workers: int | None) -> int:
    """Run (or finish) a sweep, print its table, and return the exit code.

    Args:
        sweep: a checked sweep.
        root: folder of the studies and of the MLflow and Optuna stores.
        console: where to show progress and the table.
        launcher: `local` or `inline`; default: the sweep's.
        workers: worker processes; default: the sweep's, else CPU cores / `train.threads`.
    """
    with preparation_progress(console) as progress:
        datasets = Datasets(sweep.where, progress)
        plan = check_plan(sweep, datasets)
    study = study_folder(root, sweep)
    console.print(sweep.question, style="bold", markup=False, highlight=False)
    console.print(f"{plan.words()}; folder: {study.path}", markup=False, highlight=False, soft_wrap=True)
    with coordinator_lock(study):
        open_study(study, sweep, datasets.of(sweep.base_config))
        finished = _coordinate(sweep, study, datasets, _launcher(sweep, study, launcher, workers), console)
    if not finished:
        command = shlex.join(["vae-sweep", *sys.argv[1:]])
        console.print(f"Stopped. Every finished epoch is kept; to go on: {command}", markup=False, soft_wrap=True)
        return _STOPPED
    failed = [trial for trial in read_trials(study) if trial.state == "FAIL"]
    return _SOME_FAILED if failed else _DONE


def _launcher(sweep: Sweep, study: StudyDirectory, kind: str | None, workers: int | None) -> Launcher:
    settings = sweep.file.launcher
    if (kind or settings.kind) == "inline":
        return InlineLauncher(study)
    threads = sweep.base_config.train.threads
    count = workers or settings.workers or max(1, (os.cpu_count() or 1) // threads)
    return LocalLauncher(study, count, threads, settings.idle_timeout_s)


def _coordinate(sweep: Sweep, study: StudyDirectory, datasets: Datasets, launcher: Launcher, console: Console) -> bool:
    """Reconcile the study to its end; return False where it was stopped."""
    stores = Stores(study.path.parent)
    ledger = Ledger(study)
    view = OptunaView(open_storage(stores.optuna_journal), sweep, ledger.trials)
    sink = MlflowSink(stores.mlflow_uri, stores.mlflow_artifacts, sweep.name, sweep.question)
    sink.ensure_parent(*parent_words(sweep, study))
    with Display(console, launcher.workers) as display:
        coordinator = Coordinator(study, sweep, datasets, ledger, view, sink, launcher, display.show)
        with _signals(coordinator):
            finished = coordinator.run()
    ledger.close()
    if finished:
        report = write_report(study)
        console.print(report.to_console())
    warning = publish_parent(sink, study, "FINISHED" if finished else "KILLED") or coordinator.warning
    if warning:
        console.print(
            f"{warning}; to complete MLflow later: vae-sweep rebuild {sweep.name}", style="yellow", markup=False
        )
    if finished:
        say_where(study, console)
    return finished


def parent_words(sweep: Sweep, study: StudyDirectory) -> tuple[dict[str, object], dict[str, object]]:
    """Return the tags and the params of the sweep's MLflow run."""
    provenance = read_json(study.provenance_file)
    tags: dict[str, object] = {"study": sweep.name, "torch": torch.__version__}
    tags |= {name: provenance[name] for name in ("commit", "dirty") if provenance.get(name) is not None}
    seeds = ",".join(str(seed) for seed in sweep.seeds)
    return tags, {"sampler": sweep.file.sampler, "seeds": seeds, "objective": sweep.file.objective.metric}


def say_where(study: StudyDirectory, console: Console) -> None:
    """Print where the table, the picture and the web pages are."""
    lines = [
        f"Table and picture: {study.report}/table.md, {study.report}/overview.png",
        f"Table again:       vae-sweep report {study.path.name} --root {study.path.parent}",
        f"MLflow + Optuna:   vae-sweep ui --root {study.path.parent}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _signals(coordinator: Coordinator) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into an orderly stop; a second SIGINT interrupts at once."""

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        coordinator.request_stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
