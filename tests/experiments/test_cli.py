"""The command line as a user meets it: help, dry run, and mistakes that create nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import cli

COMMAND = [sys.executable, "-m", "experiments.cli"]


def vae_sweep(*arguments, cwd=None):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=cwd, stdin=subprocess.DEVNULL
    )


def test_help_names_every_command():
    output = vae_sweep("--help").stdout
    for command in ("run", "train", "status", "report", "rebuild", "ui", "data"):
        assert command in output
    output = vae_sweep("data", "--help").stdout
    for command in ("paint", "synthesize", "describe"):
        assert command in output


def test_a_dry_run_prints_the_plan_and_creates_nothing(write_sweep, tmp_path):
    root = tmp_path / "runs"
    result = vae_sweep("run", write_sweep(), "--root", root, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "loss.beta=0.1" in result.stdout
    assert "2 cells x 2 seeds = 4 runs" in result.stdout
    assert not root.exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_address_that_is_none_is_refused_before_anything_is_created(write_sweep, tmp_path, monkeypatch, dry):
    root = tmp_path / "runs"
    monkeypatch.setenv("VAE_SWEEP_MLFLOW_URI", "htp://nowhere")
    result = vae_sweep("run", write_sweep(), "--root", root, *dry)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "VAE_SWEEP_MLFLOW_URI htp://nowhere: MLflow knows no tracking server of the kind 'htp'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not root.exists()


MISTAKES = [
    ("space: {loss.bta: [1.0]}", "space.loss.bta: no such field; did you mean loss.beta"),
    ("space: {loss.beta: [strong]}", "space.loss.beta: should be a valid number; got 'strong'"),
    ("space:\n  loss.beta: [1.0]\n  loss.beta: [2.0]", "line 6, column 3: the key 'loss.beta' is written twice"),
    ("space: {loss.beta: [-1.0]}", "space.loss.beta: should be greater than or equal to 0; got -1.0"),
    ("space: {model.block: [resnt]}", "space.model.block: no such block; did you mean resnet?"),
    ("set: {data.source: trees, data.path: /nowhere/at/all}", "data.path: /nowhere/at/all"),
    ("set: {data.source: fashion-mnist, data.path: /nowhere/at/all}", "data.path: /nowhere/at/all"),
    ("set: {data.path: '${env:SURELY_NOT_SET}'}", "the environment variable 'SURELY_NOT_SET' is not set"),
    (
        "set: {data.count: 10, data.val_fraction: 0.01, data.test_fraction: 0.3}",
        "data.val_fraction: leaves 1 of 10 images in val",
    ),
]


@pytest.mark.parametrize(("keys", "message"), MISTAKES)
def test_a_mistake_is_one_clear_message_exit_code_2_and_nothing_created(write_sweep, tmp_path, keys, message):
    sweep = write_sweep(f"# Q?\n# c\nbase: wireframes-tiny\n{keys}\n", "wrong.yaml")
    work = tmp_path / "work"
    work.mkdir()
    result = vae_sweep("run", sweep, cwd=work)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert str(sweep) in result.stderr
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.stderr + result.stdout
    assert list(work.iterdir()) == []


def test_an_impossible_model_is_refused_before_anything_is_created(write_sweep, tmp_path):
    root = tmp_path / "runs"
    options = ["--set", "space.model.encoder_widths=[[4, 8], [4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]]"]
    result = vae_sweep("run", write_sweep(), "--root", root, *options)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "the encoder halves 18 times" in result.stderr
    assert not root.exists()


def test_a_conditional_model_without_labels_is_refused_before_anything_is_created(write_sweep, tmp_path):
    (tmp_path / "pages").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pages" / f"{number}.png")
    root = tmp_path / "runs"
    changes = {"data.source": "folder", "data.path": tmp_path / "pages", "model.family": "cvae"}
    options = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    result = vae_sweep("run", write_sweep(), "--root", root, *options)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "model.family: cvae needs labels of at least 2 classes, and the data set has 0" in result.stderr
    assert "Traceback" not in result.stderr
    assert not root.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_device_that_is_missing_here_is_refused_before_anything_is_created(write_sweep, tmp_path, dry):
    root = tmp_path / "runs"
    result = vae_sweep("run", write_sweep(), "--root", root, "--set", "train.device=cuda", *dry)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "train.device: cuda was asked for, but torch sees no CUDA device" in result.stderr
    assert not root.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "nothing"), "holds no study named 'nothing'"),
        (("status", "nothing"), "holds no study named 'nothing'"),
        (("rebuild", "nothing"), "holds no study named 'nothing'"),
        (("ui",), "holds no study yet"),
        (("run", "betta"), "did you mean beta"),
        (("run", "beta", "--launcher", "cloud"), "--launcher cloud: no such launcher; valid: local, inline"),
        (("report", "x", "--format", "pdf"), "--format pdf: no such format; valid: md, html, latex, csv, json"),
        (("data", "paint", "/nowhere", "out"), "/nowhere"),
        (("train", "wireframe-tiny"), "no base config named 'wireframe-tiny'"),
    ],
)
def test_other_mistakes_too(tmp_path, arguments, message):
    result = vae_sweep(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message_and_exit_code_1(monkeypatch, capsys):
    def full():
        raise OSError(28, "No space left on device", "/runs/tiny/trials.jsonl")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "No space left on device (/runs/tiny/trials.jsonl); every finished epoch is kept" in capsys.readouterr().err


def test_data_commands_leave_files_that_the_sources_read_back(tmp_path):
    changes = ["--set", "data.count=20", "--set", "data.width=24"]
    assert vae_sweep("data", "synthesize", tmp_path / "pages", *changes).returncode == 0
    assert len(list((tmp_path / "pages" / "trees").glob("*.json"))) == 20
    result = vae_sweep("data", "paint", tmp_path / "pages" / "trees", tmp_path / "painted")
    assert result.returncode == 0, result.stderr
    assert "painted 20 layouts" in result.stdout
    assert len(list((tmp_path / "painted").glob("*_linear.png"))) == 20
    described = vae_sweep(
        "data",
        "describe",
        "wireframes-tiny",
        "--set",
        "data.source=trees",
        "--set",
        f"data.path={tmp_path}/pages/trees",
    )
    assert described.returncode == 0, described.stderr
    assert '"images": 20' in described.stdout
    assert Path(tmp_path / "painted" / "summary.csv").read_text().count("painted") == 20
