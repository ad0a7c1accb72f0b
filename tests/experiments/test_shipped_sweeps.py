"""Every sweep that ships: its head, its plan, and a run at toy size to its table."""

import io
import os
import re
from importlib import resources
from pathlib import Path

import pytest
from rich.console import Console

from experiments.runner import run_sweep
from experiments.sweep import Sweep, load_sweep, shipped_sweeps

DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
FASHION = DATA / "fashion-mnist"
TOY = ["train.epochs=1", "evaluate.lpips=off", "evaluate.scale_images=16", "train.figures_every=9", "train.device=cpu"]
SQUEEZENET = DATA / "torch_home" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"


def text_of(name):
    return (resources.files("sweeps") / f"{name}.yaml").read_text(encoding="utf-8")


def toy(name, monkeypatch):
    """Return the sweep with few images, one epoch and one seed."""
    changes = list(TOY)
    if "data.path" in text_of(name):
        if not FASHION.is_dir():
            pytest.skip(f"no test data at {DATA}")
        changes += [f"data.path={FASHION}", "data.limit=60", "data.val_fraction=0.3"]
    else:
        changes.append("data.count=40")
    if "squeezenet" in text_of(name):
        if not SQUEEZENET.is_file():
            pytest.skip(f"no SqueezeNet weights under {SQUEEZENET.parent}")
        monkeypatch.setenv("TORCH_HOME", str(DATA / "torch_home"))
    if "skip_warmup_epochs: 5" in text_of(name):
        changes[0] = "train.epochs=6"  # so that the skips open
    changes.append("trials=2" if "sampler: tpe" in text_of(name) else "seeds=1")
    return load_sweep(name, changes)


@pytest.mark.parametrize("name", shipped_sweeps())
def test_it_says_its_question_and_the_command_that_answers_it(name):
    question, command, *_ = text_of(name).splitlines()
    assert re.fullmatch(r"# [A-Z].*\?", question)
    assert command.startswith(f"# vae-sweep run {name}")


@pytest.mark.parametrize("name", shipped_sweeps())
def test_it_runs_to_its_table_at_toy_size(name, monkeypatch, tmp_path):
    sweep = toy(name, monkeypatch)
    if sweep.file.sampler == "grid":
        every = sweep.grid()
        chosen = every[:2] if name == "scale" else [every[0], every[-1]]  # the largest model takes a minute
        monkeypatch.setattr(Sweep, "grid", lambda _: chosen)
    console = Console(file=io.StringIO(), width=160)
    assert run_sweep(sweep, tmp_path / "runs", console, "inline", None) == 0
    table = (tmp_path / "runs" / name / "report" / "table.md").read_text()
    assert len(re.findall(r"^\|.*\| \w+ 1/1 \| 1 \|$", table, re.MULTILINE)) == 2
