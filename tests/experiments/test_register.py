"""`vae-sweep register`: every family leaves as a file that others load, and what cannot leave leaves nothing behind."""

import gzip
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from support.planned import run_inline
from support.study_builder import CONFIG, StudyBuilder

from tracking.mlflow_experiments import StudyIdentity, ensure_experiment
from tracking.mlflow_models import ModelRefusedError, is_model_name, log_model
from tracking.mlflow_store import connect
from vae_core.config import parse_config
from vae_core.data import prepare
from vae_core.models.families import FAMILIES
from vae_core.models.reconstructor import Reconstructor
from vae_core.models.vae import build_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of its database

COUNTS = (1, 2, 3, 6)  # of images; the example has 2
SIZE = (24, 16)
LABELS = 3
SHAPE = {"latent_dim": 5, "encoder_widths": [4, 8], "decoder_widths": [8, 4], "norm_groups": 2, "codes": 12}


def images(count):
    return np.random.default_rng(0).random((count, 1, *SIZE), dtype=np.float32)


def reconstructor(family, **changes):
    """Return an untrained model of the family, whose codes are as far apart as its encodings."""
    model = {"family": family, "network": "conv", "bottleneck": "spatial"}  # one that vq can have too
    config = parse_config({"data": {"pad_multiple": 8}, "model": SHAPE | model | changes}, "test")
    built = build_model(config.model, 1, 0, "cpu", LABELS)
    if family == "vq":
        built.codebook.codes.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    return Reconstructor(built)


class Store:
    """An MLflow store with runs that models can belong to."""

    def __init__(self, folder):
        self.database = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.client = connect(self.uri)
        self.experiment = ensure_experiment(self.client, StudyIdentity("test"), folder / "artifacts", {})

    def log(self, module, name=None):
        run = self.client.create_run(self.experiment).info.run_id
        return log_model(self.uri, run, module, images(2), digest="0" * 16, step=1, tags={}, name=name)

    def statuses(self):
        return statuses(self.database)


def statuses(database):
    """Return the status of every logged model in MLflow's database."""
    with closing(sqlite3.connect(database)) as connection:
        codes = connection.execute("SELECT status FROM logged_models").fetchall()
    return [str(LoggedModelStatus.from_int(code)) for (code,) in codes]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def logged(store):
    """Log an untrained model of every family; a refusal stands in the place of what was logged."""
    found = {}
    for family in FAMILIES:
        try:
            found[family] = store.log(reconstructor(family), f"of {family}").registered_uri
        except ModelRefusedError as refusal:
            found[family] = refusal
    return found


LOAD = """
import sys
import mlflow, numpy, torch
images, found = torch.from_numpy(numpy.load("images.npy")), {}
mlflow.set_tracking_uri(sys.argv[1])
for uri in sys.argv[2:]:
    model = mlflow.pytorch.load_model(uri)
    for count in COUNTS:
        found[f"{uri} {count}"] = model(images[:count]).detach().numpy()
    [shape] = [tensor.shape for tensor in mlflow.models.get_model_info(uri).signature.inputs.inputs]
    assert shape == (-1, *images.shape[1:]), shape
assert not {"vae_core", "tracking", "experiments"} & sys.modules.keys()
numpy.savez("found.npz", **found)
"""


@pytest.fixture(scope="module")
def elsewhere(store, logged, tmp_path_factory):
    """Return "URI COUNT" -> reconstructions, made by a process that has MLflow and torch, and none of this project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.save(folder / "images.npy", images(max(COUNTS)))
    uris = [uri for uri in logged.values() if isinstance(uri, str)]
    script = LOAD.replace("COUNTS", str(COUNTS))
    command = [sys.executable, "-I", "-W", "ignore", "-c", script, store.uri, *uris]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npz")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_reconstructs_any_number_of_images_elsewhere(family, logged, elsewhere):
    assert logged[family] == f"models:/of {family}/1"
    for count in COUNTS:
        with torch.no_grad():
            expected = reconstructor(family)(torch.from_numpy(images(max(COUNTS))[:count])).numpy()
        assert expected.std() > 1e-3
        np.testing.assert_allclose(elsewhere[f"{logged[family]} {count}"], expected, rtol=1e-5, atol=1e-6)


class Branching(torch.nn.Module):
    """Does what depends on its input's values, which torch's exporter cannot follow."""

    def forward(self, values):
        return values + 1 if (values < 0.5).any() else values


class Fixed(torch.nn.Module):
    """Takes as many inputs at once as its example had: Python's `len` makes that a number of the graph."""

    def forward(self, values):
        return values.view(len(values), -1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Branching(), r"the model cannot be exported: Could not guard on data-dependent expression [^\n]*"),
        (Fixed(), r"the model was exported and cannot take 1 of its inputs at once: Guard failed: [^\n]*"),
        (reconstructor("cvae", classification=0.0), r"the model cannot be exported: unknown labels need a cl[^\n]*"),
    ],
    ids=["branching", "fixed", "cvae without a classifier"],
)
def test_a_model_that_cannot_be_exported_is_refused_in_one_line_and_leaves_nothing(store, capfd, module, message):
    before = store.statuses()
    with pytest.raises(ModelRefusedError, match=rf"\A{message}\Z"):
        store.log(module)
    assert store.statuses() == before
    assert capfd.readouterr() == ("", "")


def test_an_upload_that_fails_is_marked_as_failed_and_can_be_repeated(store, monkeypatch):
    before = store.statuses()
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_model_artifacts", broken)
        with pytest.raises(ModelRefusedError, match=r"\AMLflow at sqlite:.*: the disk is full\Z"):
            store.log(torch.nn.Identity())
    assert sorted(store.statuses()) == sorted([*before, "FAILED"])
    store.log(torch.nn.Identity())
    assert sorted(store.statuses()) == sorted([*before, "FAILED", "READY"])


def broken(*arguments):
    raise MlflowException("the disk is full\nand more")


BAD_NAMES = ["it's", "a/b", "a:b", "a?b", "a\\", "", " ", " a", "a\n", ".", "..", "../a", "a" * 257]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_mlflow_cannot_take_is_a_mistake_before_anything_is_done(name, printed_by, tmp_path):
    printed = printed_by("register", "no run", "--name", name, "--root", tmp_path, check=2)
    assert printed.startswith(f"error: --name {name!r}: MLflow cannot register a model under it; valid: 1 to 256 ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pages", "β = 0.1 (4 dims)", 'the "best"', "a%20b#1@c;d,e", "a" * 256])
def test_every_other_name_is_registered_once(name, store):
    assert is_model_name(name)
    logged = store.log(torch.nn.Identity(), name)
    assert logged.registered_uri == f"models:/{name}/1"
    run = logged.run_uri.split("/")[1]
    again = log_model(store.uri, run, torch.nn.Identity(), images(2), digest="0" * 16, step=1, tags={}, name=name)
    assert again == logged


def test_weights_that_are_gone_or_of_another_model_are_mistakes(printed_by, tmp_path):
    dataset = prepare(parse_config(CONFIG, "c.yaml").data)
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, seeds=(0,), fingerprint=dataset.fingerprint)
    builder.done(*builder.cell(loss__beta=1.0), artifacts={"best.pt": "artifacts/best.pt"})
    printed = printed_by("register", "run0x0", "--root", tmp_path, check=2)
    assert "loss.beta=1.0 seed=0: its selected weights cannot be read" in " ".join(printed.split())
    assert "vae-sweep reproduce run0x0" in printed

    file = builder.study.run("run0x0").attempt(0).path / "artifacts" / "best.pt"
    file.parent.mkdir(exist_ok=True)
    torch.save({"other.weight": torch.zeros(3)}, file)
    printed = printed_by("register", "run0x0", "--root", tmp_path, check=2)
    assert "its weights do not fit the models of this version (Error(s) in loading state_dict" in printed
    assert "Traceback" not in printed


LABELLED = """
# Do conditional models learn from labels?
# vae-sweep run labelled.yaml
base: mnist-mlp
set:
  model.family: cvae
  model.latent_dim: 4
  model.encoder_widths: [8]
  model.decoder_widths: [8]
  train.epochs: 1
  train.device: cpu
  evaluate.lpips: "off"
  evaluate.scale_images: 16
cells:
  classifier: {}
  without: {model.classification: 0.0}
"""


def idx(array):
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.fixture
def labelled_root(write_sweep, tmp_path):
    """Train conditional models on pixels at random, with ten labels in turn."""
    data, random = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for prefix, count in (("train", 100), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (data / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (data / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    code, printed = run_inline(write_sweep(LABELLED, "labelled.yaml"), tmp_path / "runs", f"data.path={data}")
    assert code == 0, printed
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_trained_conditional_model_is_registered_unless_it_cannot_tell_labels(
    labelled_root, printed_by, monkeypatch, tmp_path
):
    litter = tmp_path / "cwd"
    litter.mkdir()
    monkeypatch.chdir(litter)
    register = ("register", "--root", labelled_root, "--name", "digits")
    printed = printed_by(*register, "without seed=0", check=1)
    said, error = printed.splitlines()
    assert said.startswith("Exporting ")
    assert error == (
        "error: the model cannot be exported: unknown labels need a classifier; set model.classification above 0"
    )
    assert statuses(labelled_root / "mlflow.db") == []
    printed = printed_by(*register, "classifier seed=0")
    assert "Registered: models:/digits/1, images (1, 28, 28) in, reconstructions out" in printed
    assert statuses(labelled_root / "mlflow.db") == ["READY"]
    assert list(litter.iterdir()) == []
