"""Study folders as coordinator and workers leave them, without any training."""

import time
from pathlib import Path

from experiments.ledger import Ledger
from tracking.files import write_atomic, write_json
from tracking.journal import JournalWriter
from tracking.queue import QueueEntry, claim, enqueue
from tracking.run_directory import StudyDirectory
from vae_core.yaml_io import dump_yaml

CONFIG = {
    "data": {"source": "synthetic", "count": 30, "width": 16, "max_height": 24},
    "model": {"latent_dim": 4, "encoder_widths": [4, 8], "decoder_widths": [8, 4], "norm_groups": 2},
    "evaluate": {"likelihood": "gaussian", "scale_images": 256, "select": "val/elbo"},
}
FINGERPRINT = "f" * 16


class StudyBuilder:
    """Writes one study; `space` maps dotted paths to lists of values."""

    def __init__(
        self,
        path: Path,
        space: dict,
        *,
        seeds=(0, 1),
        config=None,
        baseline=None,
        fingerprint=FINGERPRINT,
        objective=("val/elbo", "maximize"),
    ) -> None:
        self.study = StudyDirectory(path)
        self.study.create()
        self.seeds = seeds
        self.config = config or CONFIG
        self.fingerprint = fingerprint
        sweep = {
            "name": path.name,
            "question": "What does the axis do?",
            "space": space,
            "cells": {},
            "axes": space,
            "seeds": list(seeds),
            "sampler": "grid",
            "trials": None,
            "objective": dict(zip(("metric", "direction"), objective, strict=True)),
            "baseline": baseline or {},
            "config": self.config,
        }
        write_atomic(self.study.sweep_file, dump_yaml(sweep))
        data = {"fingerprint": fingerprint, "splits": {"test": {"images": 5}}}
        write_json(self.study.path / "data.json", data)
        write_json(self.study.provenance_file, {"commit": None, "dirty": None, "packages": {"torch": "2.4.0"}})
        self._ledger = Ledger(self.study)

    def cell(self, **params) -> list[str]:
        """Record a trial (`__` in a name stands for the dot) and return the ids of its runs."""
        params = {path.replace("__", "."): value for path, value in params.items()}
        number = len(self._ledger.trials)
        runs = [(f"run{number}x{seed}", seed) for seed in self.seeds]
        name = " ".join(f"{path}={value}" for path, value in params.items())
        self._ledger.ask(params, name, runs)
        for run, seed in runs:
            info = {"run": run, "trial": number, "seed": seed, "cell": name, "params": params, "epochs": 2}
            info["data_fingerprint"] = self.fingerprint
            self.study.run(run).create()
            write_json(self.study.run(run).info_file, info)
            tree = {section: dict(fields) for section, fields in self.config.items()}
            for path, value in params.items():
                section, _, field = path.partition(".")
                tree.setdefault(section, {})[field] = value
            write_atomic(self.study.run(run).config_file, dump_yaml({**tree, "seed": seed}))
        return [run for run, _ in runs]

    def done(
        self,
        run: str,
        verdict="none",
        lpips_tag="measured",
        tags=None,
        artifacts=None,
        epochs=2,
        gpus=None,
        parameters=1234,
        vectors=None,
        **metrics,
    ) -> None:
        """Give a run some epochs and a result; `metrics` are its test metrics, or others with their group."""
        values = {"elbo": -20.0, "reconstruction": 15.0, "kl": 5.0, "ssim": 0.5, "mse": 0.01, "active_units": 3.0}
        values |= metrics
        with self._attempt(run, lpips_tag, tags, gpus) as journal:
            self._epochs(journal, epochs)
            if gpus:
                time.sleep(0.002)  # journals count ms; a run in no time has no GPU-hours
            journal.append(
                "result",
                metrics={name if "/" in name else f"test/{name}": float(value) for name, value in values.items()},
                vectors=vectors or {},
                verdict={"name": verdict, "because": "planted", "numbers": {}},
                best_epoch=min(2, epochs),
                best_value=-20.0,
                epochs=epochs,
                parameters=parameters,
                artifacts=artifacts or {},
            )
            journal.append("end", status="done", failure=None, reason=None, traceback=None)

    def failed(self, run: str, failure="nan", reason="val/elbo is nan") -> None:
        """Let a run fail after one epoch."""
        with self._attempt(run, "measured") as journal:
            self._epochs(journal, 1)
            journal.append("end", status="failed", failure=failure, reason=reason, traceback="...")

    def pruned(self, run: str, epochs=1) -> None:
        """Let a run be pruned after some epochs."""
        with self._attempt(run, "measured") as journal:
            self._epochs(journal, epochs)
            journal.append("end", status="pruned", failure=None, reason="pruned", traceback=None)

    def running(self, run: str) -> None:
        """Let a worker hold a run that has finished one epoch."""
        enqueue(self.study, QueueEntry(run, 0, 0))
        assert claim(self.study, "w1", {"host": "elsewhere", "pid": 1, "start_time": None}).entry.run == run
        with self._attempt(run, "measured") as journal:
            self._epochs(journal, 1)

    def _attempt(self, run: str, lpips: str, tags=None, gpus=None) -> JournalWriter:
        attempt = self.study.run(run).attempt(0)
        attempt.create()
        journal = JournalWriter(attempt.journal_file)
        tags = {"lpips": lpips, **(tags or {})}
        journal.append("attempt", attempt=0, worker="w1", continues=None, start_step=0, tags=tags, gpus=gpus)
        return journal

    def _epochs(self, journal: JournalWriter, count: int) -> None:
        for epoch in range(1, count + 1):
            metrics = {"val/elbo": -30.0 + epoch, "val/ssim": 0.1 * epoch}
            journal.append("epoch", epoch=epoch, step=epoch, metrics=metrics, vectors={}, seconds=1.5)


def beta_study(path: Path, **options) -> StudyBuilder:
    """Return a study of beta = 0.1, 1, 100 with two seeds, which collapses at 100."""
    builder = StudyBuilder(path, {"loss.beta": [0.1, 1.0, 100.0]}, baseline={"loss.beta": 1.0}, **options)
    for number, beta in enumerate((0.1, 1.0, 100.0)):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(
                run,
                verdict="full" if beta == 100 else "none",
                elbo=(-10.0, -8.0, -30.0)[number] + seed,
                kl=(9.0, 4.0, 0.01)[number] + 0.1 * seed,
                mse=(0.004, 0.006, 0.02)[number] + 0.0001 * seed,
                active_units=(4, 2, 0)[number],
            )
    return builder
