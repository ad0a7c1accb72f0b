"""How long `vae-sweep report` takes over a large study, and how much memory; a fresh process each time.

Writes 2,000 cells x 5 seeds = 10,000 finished runs with 30 test metrics and 20 epochs each, as coordinator and workers
leave them. Prints a Markdown table for BENCHMARKS.md. `bench_report.py FOLDER` keeps the study there.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tracking.files import write_json
from tracking.journal import Line, encode_line
from tracking.run_directory import StudyDirectory
from vae_core.yaml_io import dump_yaml

CELLS, SEEDS, EPOCHS, METRICS, DIMS = 2000, 5, 20, 30, 16
FINGERPRINT = "b" * 16
NAMES = ("elbo", "reconstruction", "kl", "objective", "elbo_per_pixel", "mse", "ssim", "lpips", "scale", "active_units")
REPETITIONS = 5
FORMATS = ("csv", "md", "json", "html")
_MEASURED = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    "print(used.ru_utime + used.ru_stime, used.ru_maxrss); sys.exit(code)"
)


def main() -> None:
    """Write the study, measure every format and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder)
        if not (root / "search").is_dir():
            write_study(StudyDirectory(root / "search"))
        size = sum(file.stat().st_size for file in root.rglob("journal.jsonl"))
        print(
            f"{platform.machine()}, {os.cpu_count()} cores; {CELLS * SEEDS} runs, {size / 2**20:.0f} MiB of journals\n"
        )
        print("| format | s | s of CPU | peak memory, MiB |\n|---|---:|---:|---:|")
        for form in FORMATS:
            found = [measure(root, form) for _ in range(REPETITIONS)]
            wall, cpu, memory = (median(column) for column in zip(*found, strict=True))
            print(f"| {form} | {wall:.1f} | {cpu:.1f} | {memory:.0f} |")


def measure(root: Path, form: str) -> tuple[float, float, float]:
    """Return how long one report took (s), its CPU time (s) and its peak memory (MiB)."""
    command = [sys.executable, "-m", "experiments.cli", "report", "search", "--root", str(root), "--format", form]
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True, check=True)
    spent = time.perf_counter() - start
    cpu, kilobytes = result.stdout.split()
    return spent, float(cpu), int(kilobytes) / 1024


def write_study(study: StudyDirectory) -> None:
    """Write a finished study of `CELLS` cells, without the fsyncs that a coordinator would spend."""
    study.create()
    draw = random.Random(0)
    axes = {"loss.beta": {"low": 0.01, "high": 10.0, "log": True}, "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    sweep = {
        "name": study.path.name,
        "question": "How long does a report take?",
        "space": axes,
        "cells": {},
        "axes": axes,
        "seeds": SEEDS,
        "sampler": "tpe",
        "trials": CELLS,
        "objective": {"metric": "val/elbo", "direction": "maximize"},
        "baseline": {},
        "config": {"model": {"latent_dim": DIMS}, "evaluate": {"select": "val/elbo", "likelihood": "gaussian"}},
    }
    study.sweep_file.write_text(dump_yaml(sweep))
    write_json(study.path / "data.json", {"fingerprint": FINGERPRINT, "splits": {"test": {"images": 90}}})
    write_references(study)
    trials: list[dict[str, object]] = []
    for number in range(CELLS):
        params = {"loss.beta": round(draw.uniform(0.01, 10), 6), "optim.lr": round(draw.uniform(1e-4, 1e-2), 8)}
        cell = " ".join(f"{path}={value}" for path, value in params.items())
        runs = [{"run": f"{number:05x}{seed:07x}", "seed": seed} for seed in range(SEEDS)]
        trials.append({"kind": "ask", "trial": number, "params": params, "cell": cell, "runs": runs})
        for entry in runs:
            write_run(study, str(entry["run"]), int(entry["seed"]), number, cell, params, draw)
        trials += [{"kind": "report", "trial": number, "step": step, "value": step} for step in range(1, EPOCHS + 1)]
        trials.append({"kind": "tell", "trial": number, "state": "COMPLETE", "value": 1.0})
    write_journal(study.trials_file, trials)


def write_references(study: StudyDirectory) -> None:
    """Write the reference rows as they are once they have been measured."""
    evaluate = ["gaussian", None]
    key = {
        "version": 1,
        "data_fingerprint": FINGERPRINT,
        "latent_dims": [DIMS],
        "likelihood": evaluate,
        "lpips": True,
    }
    rows = [{"name": "mean image", "components": None, "metrics": {"test/mse": 0.04}}]
    mse = [0.04 / (place + 1) for place in range(DIMS + 1)]
    write_json(study.path / "references.json", {"key": key, "rows": rows, "pca_mse": mse, "notes": []})


def write_run(
    study: StudyDirectory, run: str, seed: int, trial: int, cell: str, params: dict[str, float], draw: random.Random
) -> None:
    """Write a finished run: its description and the journal of its one attempt."""
    folder = study.run(run)
    attempt = folder.attempt(0)
    attempt.path.mkdir(parents=True)
    info = {"run": run, "study": study.path.name, "trial": trial, "seed": seed, "cell": cell, "params": params}
    folder.info_file.write_text(
        json.dumps({**info, "epochs": EPOCHS, "data_fingerprint": FINGERPRINT}, indent=2) + "\n"
    )
    tags = {"lpips": "measured", "weights": "last step"}
    place = {"worker": "w1", "host": "node", "pid": 1, "device": "cuda", "job": "7", "gpus": 1.0, "wait_s": 2.0}
    lines: list[dict[str, object]] = [
        {"kind": "attempt", "attempt": 0, **place, "continues": None, "start_step": 0, "after": None, "tags": tags},
        {"kind": "first_step", "step": 1},
    ]
    for epoch in range(1, EPOCHS + 1):
        metrics = {f"train/m{place}": draw.random() for place in range(METRICS - len(NAMES) - 2)}
        metrics |= {f"val/{name}": draw.random() for name in NAMES}
        metrics |= {"latent/active_units": 16.0, "latent/variance": draw.random()}
        step = 27 * epoch
        lines.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "step": step,
                "metrics": metrics,
                "vectors": vectors(draw),
                "seconds": 1.5,
            }
        )
        lines.append({"kind": "checkpoint", "step": step, "epoch": epoch, "file": "x.pt", "covers": len(lines) - 1})
    metrics = {f"test/{name}": draw.random() for name in NAMES}
    metrics |= {f"test/m{place}": draw.random() for place in range(METRICS - len(NAMES))}
    metrics["test/active_units"] = float(draw.randint(0, DIMS))
    verdict = {"name": "none", "because": "16 of 16 units active", "numbers": {"rate": 3.0}}
    lines.append(
        {
            "kind": "result",
            "metrics": metrics,
            "vectors": vectors(draw),
            "verdict": verdict,
            "best_epoch": draw.randint(1, EPOCHS),
            "best_value": 0.5,
            "epochs": EPOCHS,
            "parameters": 120_689,
            "artifacts": {"best.pt": "artifacts/best.pt"},
        }
    )
    lines.append({"kind": "end", "status": "done", "failure": None, "reason": None, "traceback": None})
    write_journal(attempt.journal_file, lines)


def vectors(draw: random.Random) -> dict[str, list[float]]:
    """Return the vectors per latent dimension that every evaluation leaves."""
    names = ("kl_per_dim", "mu_std_per_dim", "latent_variance_per_dim")
    return {name: [draw.random() for _ in range(DIMS)] for name in names}


def write_journal(path: Path, entries: list[dict[str, object]]) -> None:
    """Write journal lines with their numbers and checksums."""
    with path.open("wb") as file:
        for n, entry in enumerate(entries):
            kind = str(entry.pop("kind"))
            file.write(encode_line(Line(n, 1_700_000_000_000 + n, kind, entry)))


if __name__ == "__main__":
    main()
