"""What a run writes beside its numbers: how many keys they have, where it ran, which layers it has."""

import io
import json
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from support.engine import journal_lines

from experiments.runner import run_sweep
from experiments.sweep import load_sweep
from tracking.replay import metric_rows
from tracking.run_directory import RunDirectory, read_chain

EVERYTHING = """
# How many keys has a run with everything on?
# vae-sweep run everything.yaml
base: wireframes-tiny
set:
  data.count: 40
  data.width: 16
  data.max_height: 32
  data.augment.flip_horizontal: 0.5
  data.augment.gaussian_noise: 0.5
  model.family: hierarchical
  model.groups: 12
  model.latent_dim: 12
  model.encoder_widths: [4, 8]
  model.decoder_widths: [8, 4]
  model.norm_groups: 2
  loss.sigma_mode: learned
  loss.terms.ssim: 0.1
  loss.terms.gradient: 0.1
  train.epochs: 1
  train.effective_batch: 8
  train.device: cpu
  evaluate.lpips: "off"
  evaluate.scale_images: 16
space:
  loss.beta: [1.0]
"""
MOST_KEYS = 60
# what this machine, the sweep above and its length leave out
ONLY_WITH_A_GPU = {"system/gpu_percent", "system/gpu_memory_mb", "system/gpu_allocated_mb"}
ONLY_WITH_WEIGHTS = {"val/lpips", "test/lpips"}
ONLY_IN_LARGE_IMAGES = {f"train/term_{name}" for name in ("ms_ssim", "perceptual", "lpips")}
ONLY_LEARNED = {f"train/weight_{name}" for name in ("ssim", "ms_ssim", "gradient", "perceptual", "lpips")}
FURTHER = ONLY_WITH_A_GPU | ONLY_WITH_WEIGHTS | ONLY_IN_LARGE_IMAGES | ONLY_LEARNED | {"train/roughness"}
PREFIXES = {"train", "val", "test", "latent", "time", "system"}


def train(write_sweep, root, text):
    sweep = load_sweep(str(write_sweep(text, "everything.yaml")), [], None)
    assert run_sweep(sweep, root, Console(file=io.StringIO()), launcher="inline") == 0
    [folder] = (root / "everything" / "runs").iterdir()
    return RunDirectory(folder)


@pytest.fixture
def run(write_sweep, tmp_path):
    return train(write_sweep, tmp_path / "runs", EVERYTHING)


@pytest.mark.parametrize(
    "family",
    [
        "  model.family: cvae\n  data.labelled_fraction: 0.5\n",
        "  model.family: vae_gan\n",
        "  model.family: vq\n  model.bottleneck: spatial\n  model.codes: 16\n",
    ],
)
def test_no_family_has_too_many_keys(write_sweep, tmp_path, family):
    text = EVERYTHING.replace("  model.family: hierarchical\n  model.groups: 12\n", family)
    keys = {row.key for row in metric_rows(read_chain(train(write_sweep, tmp_path / "runs", text)))}
    assert len(keys | FURTHER) < MOST_KEYS
    assert {"val/scale", "test/elbo"} <= keys


def test_a_run_with_everything_on(run):
    """One training, because it takes seconds."""
    keys = {row.key for row in metric_rows(read_chain(run))}
    assert {key.partition("/")[0] for key in keys} == PREFIXES
    assert len(keys | FURTHER) < MOST_KEYS
    first, *_ = lines = journal_lines(run.path)
    [epoch] = [line for line in lines if line["kind"] == "epoch"]
    assert all(key.startswith("system/") for key in epoch["system"])
    assert epoch["system"]["system/process_memory_mb"] > 50

    written = json.loads((run.attempt(0).path / first["provenance"]).read_text())
    info = json.loads(run.info_file.read_text())
    study = json.loads((run.path.parents[1] / "provenance.json").read_text())
    assert {name: written[name] for name in ("run", "seed", "cell", "params", "data_fingerprint", "split_hashes")} == {
        name: info[name] for name in ("run", "seed", "cell", "params", "data_fingerprint", "split_hashes")
    }
    assert (written["commit"], written["command"]) == (study["commit"], study["command"])
    assert "diff" not in written  # it is the study's
    assert written["packages"]["torch"] == study["packages"]["torch"]
    assert (written["device"], written["threads"], written["torch"]) == ("cpu", 1, torch.__version__)
    assert first["machine"] == {name: written[name] for name in first["machine"]}
    assert first["machine"]["cpu_count"] == os.cpu_count()

    table = (run.attempt(0).artifacts / "summary.txt").read_text()
    assert table.startswith("input (1, 1, 32, 32), float32 in [0, 1]")
    [result] = [line for line in lines if line["kind"] == "result"]
    assert table.splitlines()[-1].split()[-1] == f"{result['parameters']:,}"

    assert info["data"]["name"] == "synthetic"
    assert info["data"]["profile"]["num_rows"] == 40
    assert info["data"]["profile"]["splits"].keys() == {"train", "val", "test"}
    assert "[-1, 1, -1, 16]" in info["data"]["schema"]["mlflow_tensorspec"]["features"]


LOAD = """
import sys
import mlflow, numpy, torch
mlflow.set_tracking_uri(sys.argv[1])
for uri in sys.argv[2:4]:
    model = mlflow.pytorch.load_model(uri)
    images = torch.from_numpy(numpy.load(sys.argv[4]))
    numpy.save(sys.argv[4] + ".out.npy", model(images).detach().numpy())
    assert mlflow.pyfunc.load_model(uri).metadata.signature.inputs is not None
"""


@pytest.mark.slow
def test_a_registered_model_is_loaded_elsewhere_by_name_and_reconstructs_the_same(tmp_path, monkeypatch, write_sweep):
    import numpy as np
    from mlflow import MlflowClient
    from support.tiny import TINY

    from experiments.register import _module_and_example, register
    from experiments.run_search import find_run

    root = tmp_path / "runs"
    run_sweep(load_sweep(str(write_sweep(TINY)), ["seeds=1"], None), root, Console(file=io.StringIO()), "inline")
    shown = Console(file=io.StringIO(), width=200)
    for _ in range(2):
        register(root, "beta=0.1 seed=0", "tiny-vae", shown)
    assert "Registered: models:/tiny-vae/1" in shown.file.getvalue()
    assert "tiny-vae/2" not in shown.file.getvalue()
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    [version] = client.search_model_versions("name = 'tiny-vae'")
    found = find_run(root, "beta=0.1 seed=0")
    weights = next(found.directory.path.rglob("best.pt")).read_bytes()
    module, example = _module_and_example(found, weights)
    images = np.concatenate([example, 1 - example, example])
    np.save(tmp_path / "images.npy", images)
    uris = ["models:/tiny-vae/1", f"runs:/{version.run_id}/model"]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        LOAD,
        f"sqlite:///{root}/mlflow.db",
        *uris,
        tmp_path / "images.npy",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "images.npy.out.npy"), expected, rtol=1e-5, atol=1e-6)
