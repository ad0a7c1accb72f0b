"""What tracking, evaluation and data preparation cost, as ratios to the training they serve; medians of 5.

Prints a Markdown table for BENCHMARKS.md.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from tracking.checkpoints import save_checkpoint
from tracking.journal import JournalWriter
from tracking.run_directory import RunDirectory
from vae_core.config import load_base, override, parse_config
from vae_core.data import prepare
from vae_core.events import Epoch
from vae_core.trainer import Trainer

REPETITIONS = 5


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_seconds(action: Callable[[], object]) -> float:
    """Return the median of `REPETITIONS` timings."""
    return median(seconds(action) for _ in range(REPETITIONS))


def next_epoch(trainer: Trainer) -> Epoch:
    """Train until the next epoch ends."""
    return next(event for event in trainer.fit() if isinstance(event, Epoch))


def main() -> None:
    """Measure everything in one process and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}\n"
    )
    print("| what | ms | compared with | ratio |\n|---|---:|---|---:|")
    for what, spent, reference, base in rows:
        print(f"| {what} | {1000 * spent:.1f} | {reference} | {spent / base:.3f} |")


def measure(folder: Path) -> list[tuple[str, float, str, float]]:
    """Return (what, seconds, compared with, its seconds)."""
    changes = {"train.epochs": 10**6, "evaluate.lpips": "off", "data.cache_dir": str(folder / "cache")}
    tree = override(load_base("wireframes-tiny", "benchmark"), changes)
    config = parse_config(tree, "benchmark")
    first = seconds(lambda: prepare(config.data))
    reopened = median_seconds(lambda: prepare(config.data))
    trainer = Trainer(config, prepare(config.data))
    event = next_epoch(trainer)
    epoch = median_seconds(lambda: next_epoch(trainer))
    evaluation = median_seconds(lambda: trainer.evaluator.evaluate(trainer.model, "val", 1.0))
    attempt = RunDirectory(folder / "run").attempt(0)
    attempt.create()
    with JournalWriter(attempt.journal_file) as journal:
        line = median_seconds(lambda: journal.append("epoch", metrics=event.metrics, vectors=event.vectors))
    checkpoint = median_seconds(lambda: save_checkpoint(attempt, trainer.state_dict(), step=1, covers=0))
    unevaluated = epoch - evaluation
    split = Trainer(config, prepare(config.data), pixel_budget=4 * 32 * 64)
    next_epoch(split)
    accumulated = median_seconds(lambda: next_epoch(split))
    named = "an epoch of wireframes-tiny"
    return [
        (named, epoch, named, epoch),
        ("one evaluation (90 images, scale from 256)", evaluation, "the epoch without it", unevaluated),
        ("one journal line, fsynced", line, named, epoch),
        ("one checkpoint, fsynced", checkpoint, named, epoch),
        ("an epoch in micro-batches of 4 images", accumulated, named, epoch),
        ("preparing the data set", first, named, epoch),
        ("reopening the prepared data set", reopened, "preparing it", first),
    ]


if __name__ == "__main__":
    main()
