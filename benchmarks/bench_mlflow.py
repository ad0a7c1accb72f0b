"""How many metrics a second reach MLflow on SQLite, and what logging costs a training's optimizer step; medians of 5.

The sink sends what journals hold: at once, as `vae-sweep sync` does; what has come in 2 s, as a coordinator does, of
eight runs that together measure 3,000 values a second; and after each epoch. Beside it, in the same process and store,
one `log_metric` for each value. The runs exist before the clock starts.
Prints Markdown tables for BENCHMARKS.md.
"""

import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tracking.files import write_atomic, write_json
from tracking.heartbeat import Heartbeat
from tracking.journal import JournalWriter
from tracking.mlflow_experiments import StudyIdentity
from tracking.mlflow_sink import MlflowSink
from tracking.run_directory import RunDirectory
from tracking.system_metrics import SystemMetrics

REPETITIONS = 5
RUNS = 8  # at once
EPOCHS = 96  # of each
PER_LOOK = 24  # epochs of a run in 2 s: 8 runs x 24 epochs x 32 keys / 2 s = 3,072 values a second
KEYS = [f"{group}/metric_{name}" for group in ("train", "val", "latent", "system") for name in "abcdefgh"]
SINGLE = 200  # values sent with log_metric
STEPS = 20_000
STEPS_PER_EPOCH = 100


class Writer:
    """A run's journal, written epoch by epoch as a worker does."""

    def __init__(self, folder: Path, name: str) -> None:
        self.run = RunDirectory(folder / name)
        self.run.create()
        self.info: dict[str, Any] = {"trial": 0, "seed": 0, "cell": f"loss.beta={name}", "params": {"loss.beta": name}}
        write_json(self.run.info_file, self.info)
        write_atomic(self.run.config_file, "loss: {beta: 4.0}\n")
        attempt = self.run.attempt(0)
        attempt.create()
        self.journal = JournalWriter(attempt.journal_file)
        self.journal.append("attempt", attempt=0, worker="w", continues=None, tags={})
        self.epochs = 0

    def epoch(self) -> None:
        """Write the next epoch and the checkpoint that covers it."""
        self.epochs += 1
        metrics = {key: self.epochs + index / 8 for index, key in enumerate(KEYS)}
        line = self.journal.append("epoch", epoch=self.epochs, step=self.epochs, metrics=metrics, vectors={}, seconds=1)
        self.journal.append("checkpoint", step=self.epochs, epoch=self.epochs, file="x.pt", covers=line.n)

    def end(self) -> None:
        """Come to the end."""
        self.journal.append("end", status="done", failure=None, reason=None, traceback=None)
        self.journal.close()


def opened(root: Path, study: str, folder: Path) -> tuple[MlflowSink, list[Writer]]:
    """Return a sink and runs that MLflow knows already."""
    sink = MlflowSink(f"sqlite:///{root}/mlflow.db", root / "mlartifacts", StudyIdentity(study), "How fast?")
    writers = [Writer(folder / study, str(number)) for number in range(RUNS)]
    for report in (sink.ensure_parent({}), *(sink.forward(writer.run, writer.info) for writer in writers)):
        if report.problem:
            raise RuntimeError(report.problem)
    return sink, writers


def backlog(root: Path, study: str, folder: Path) -> float:
    """Return the metrics a second of runs that are sent when they are over, statuses and all."""
    sink, writers = opened(root, study, folder)
    for writer in writers:
        for _ in range(EPOCHS):
            writer.epoch()
        writer.end()
    start = time.perf_counter()
    sent = sum(sink.forward(writer.run, writer.info, final_status="FINISHED").metrics_sent for writer in writers)
    return _checked(sent) / (time.perf_counter() - start)


def live(root: Path, study: str, folder: Path, per_look: int = PER_LOOK) -> float:
    """Return the metrics a second of runs sent every `per_look` epochs; writing the journals does not count."""
    sink, writers = opened(root, study, folder)
    sent, seconds = 0, 0.0
    for _ in range(EPOCHS // per_look):
        for writer in writers:
            for _ in range(per_look):
                writer.epoch()
        start = time.perf_counter()
        sent += sum(sink.forward(writer.run, writer.info).metrics_sent for writer in writers)
        seconds += time.perf_counter() - start
    for writer in writers:
        writer.end()
    start = time.perf_counter()
    sent += sum(sink.forward(writer.run, writer.info, final_status="FINISHED").metrics_sent for writer in writers)
    return _checked(sent) / (seconds + time.perf_counter() - start)


def one_by_one(root: Path, study: str, folder: Path) -> float:
    """Return the metrics a second of MLflow's own `log_metric`, one call per value."""
    from mlflow import MlflowClient

    sink, writers = opened(root, study, folder)
    for writer in writers:
        writer.end()
    run_id = sink.forward(writers[0].run, writers[0].info, final_status="FINISHED").mlflow_run_id
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    start = time.perf_counter()
    for number in range(SINGLE):
        client.log_metric(run_id, KEYS[number % len(KEYS)], float(number), step=number)
    return SINGLE / (time.perf_counter() - start)


def _checked(sent: int) -> int:
    if sent != RUNS * EPOCHS * len(KEYS):
        raise RuntimeError(f"{sent} of {RUNS * EPOCHS * len(KEYS)} metrics were sent")
    return sent


def step_cost_ms(folder: Path) -> tuple[float, float]:
    """Return ms per optimizer step of what a worker does at each step, and with the lines of every epoch added.

    At a step: the heartbeat's counter and the look at what is asked for. At an epoch: the sample of the machine, the
    journal's line with its fsync.
    """
    attempt = RunDirectory(folder / "steps").attempt(0)
    attempt.create()
    metrics = dict.fromkeys(KEYS, 1.0)
    with (
        JournalWriter(attempt.journal_file) as journal,
        Heartbeat(attempt.heartbeat_file) as beat,
        SystemMetrics("cpu") as system,
    ):
        start = time.perf_counter()
        for _ in _watched(STEPS):
            beat.advance()
        bare = time.perf_counter() - start
        for _ in range(STEPS // STEPS_PER_EPOCH):
            journal.append("epoch", epoch=1, step=1, metrics=metrics, vectors={}, system=system.since_last())
        return 1000 * bare / STEPS, 1000 * (time.perf_counter() - start) / STEPS


def _watched(steps: int) -> Iterator[None]:
    """Pass on steps with the worker's clock beside them."""
    looked = time.monotonic()
    for _ in range(steps):
        if time.monotonic() - looked > 1.0:
            looked = time.monotonic()
        yield


def main() -> None:
    """Measure and print the tables."""
    warnings.simplefilter("ignore")
    ways: dict[str, Callable[..., float]] = {
        "sent when the runs are over": backlog,
        "sent every 2 s": live,
        "sent after each epoch": partial(live, per_look=1),
        "one `log_metric` per value": one_by_one,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(REPETITIONS):
            for name, way in ways.items():
                rates[name].append(way(Path(folder), f"{name} {repetition}".replace("`", ""), Path(folder) / "runs"))
        costs = [step_cost_ms(Path(folder) / str(repetition)) for repetition in range(REPETITIONS)]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print("| into MLflow on SQLite | metrics/s, median | range |\n|---|---:|---:|")
    for name, values in rates.items():
        print(f"| {name} | {median(values):,.0f} | {min(values):,.0f} to {max(values):,.0f} |")
    print("\n| in the training process | ms per optimizer step, median | range |\n|---|---:|---:|")
    for name, values in zip(
        ("each step", f"with an epoch every {STEPS_PER_EPOCH} steps"), zip(*costs, strict=True), strict=True
    ):
        print(f"| {name} | {median(values):.4f} | {min(values):.4f} to {max(values):.4f} |")


if __name__ == "__main__":
    main()
