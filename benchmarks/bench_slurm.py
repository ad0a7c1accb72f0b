"""How soon a SLURM job works, how soon a worker's next run does, and how long the full model's checkpoint takes.

Prints a Markdown table for BENCHMARKS.md; medians of 5. Starts a sandbox of its own; without root or SLURM's packages
it measures the checkpoint alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from slurm import sandbox
from tracking.checkpoints import save_checkpoint
from tracking.run_directory import RunDirectory
from vae_core.config import load_base, override, parse_config
from vae_core.data import prepare
from vae_core.events import Epoch
from vae_core.trainer import Trainer

REPETITIONS = 5
GRACE_S = 20.0
SWEEP = """# How soon does a job work?
# vae-sweep run quick.yaml --launcher slurm
base: wireframes-tiny
set: {train.epochs: 2, train.figures_every: 2, train.device: cpu, evaluate.lpips: "off", data.count: 60}
space: {loss.beta: [0.1, 0.2, 0.3, 0.4]}
launcher: {kind: slurm, slurm: {array_parallelism: 1, cpus: 1, time: 10, poll_s: 0.5}}
"""


def main() -> None:
    """Measure and print."""
    print("| what | median | range |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="bench", dir="/tmp") as name:
        folder = Path(name)
        os.environ["VAE_SWEEP_CACHE"] = str(folder / "cache")
        trainer = full_trainer(folder)
        size = checkpoint_words(trainer, folder)
        row(f"checkpoint of `wireframes` (grace {GRACE_S:.0f} s), {size}", checkpoint_s(trainer, folder))
        if reason := sandbox.missing():
            print(f"\nno SLURM: {reason}")
            return
        os.environ |= sandbox.start(folder / "sandbox").environment
        try:
            jobs(folder)
        finally:
            sandbox.stop(folder / "sandbox")


def row(what: str, seconds: list[float]) -> None:
    """Print one line of the table."""
    print(f"| {what} | {median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} |", flush=True)


def full_trainer(folder: Path) -> Trainer:
    """Return a trainer of the full model after one epoch on a few low pages: the state has its full size by then."""
    changes = {"data.count": 12, "data.width": 128, "data.max_height": 256, "data.cache_dir": str(folder / "cache")}
    changes |= {"train.effective_batch": 4, "train.device": "cpu", "evaluate.lpips": "off", "evaluate.scale_images": 2}
    config = parse_config(override(load_base("wireframes", "bench"), changes), "bench")
    trainer = Trainer(config, prepare(config.data))
    next(event for event in trainer.fit() if isinstance(event, Epoch))
    return trainer


def checkpoint_s(trainer: Trainer, folder: Path) -> list[float]:
    """Return the s that a fsynced checkpoint of the full model takes, state and all."""
    attempt = RunDirectory(folder / "run").attempt(0)
    attempt.create()
    found = []
    for step in range(REPETITIONS):
        start = time.perf_counter()
        save_checkpoint(attempt, trainer.state_dict(), step=step, covers=0)
        found.append(time.perf_counter() - start)
    return found


def checkpoint_words(trainer: Trainer, folder: Path) -> str:
    """Return how large the full model and its state are."""
    weights = sum(weight.numel() for weight in trainer.model.parameters())
    attempt = RunDirectory(folder / "sized").attempt(0)
    attempt.create()
    size = save_checkpoint(attempt, trainer.state_dict(), step=0, covers=0).stat().st_size
    return f"{weights:,} parameters, {size / 2**20:.0f} MiB"


def jobs(folder: Path) -> None:
    """Measure sweeps of one job with four runs each."""
    (folder / "quick.yaml").write_text(SWEEP)
    imports = [seconds("import submitit.core.submission") + seconds("import experiments.training") for _ in range(5)]
    first, next_runs = [], []
    for number in range(REPETITIONS):
        study = run(folder, f"quick{number}")
        started, gaps = starts(study)
        first.append(started)
        next_runs += gaps
    row("imports of a job and of its worker", imports)
    row("sbatch to the first optimizer step in the journal", first)
    row("the same beyond the imports", [value - median(imports) for value in first])
    row("end of a run to the next one's attempt line", [gap[0] for gap in next_runs])
    row("end of a run to the next one's first optimizer step", [gap[1] for gap in next_runs])


def seconds(statement: str) -> float:
    """Return how long a new interpreter takes for a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def run(folder: Path, name: str) -> Path:
    """Run the sweep as a study of its own and return its folder."""
    command = [sys.executable, "-m", "experiments.cli", "run", str(folder / "quick.yaml"), "--study", name]
    command += ["--root", str(folder / "runs"), "--allow-dirty"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "runs" / name


def starts(study: Path) -> tuple[float, list[tuple[float, float]]]:
    """Return s from the script to the first step, and per later run the s from the end before it to its start."""
    script = next(study.glob("slurm/*/submission.sh"))
    runs = sorted((times(path) for path in study.glob("runs/*/attempts/0/journal.jsonl")), key=lambda at: at["attempt"])
    gaps = [(now["attempt"] - before["end"], now["first_step"] - before["end"]) for before, now in pairwise(runs)]
    return runs[0]["first_step"] - script.stat().st_mtime, gaps


def times(journal: Path) -> dict[str, float]:
    """Return kind of line -> s since 1970."""
    return {line["kind"]: line["time_ms"] / 1000 for line in map(json.loads, journal.read_text().splitlines())}


if __name__ == "__main__":
    main()
