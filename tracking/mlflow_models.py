"""A trained model in MLflow's own terms: with input example and signature, loadable by `mlflow.pytorch.load_model`."""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tracking.errors import first_line
from tracking.mlflow_address import shown_reason, shown_uri
from tracking.mlflow_experiments import TAG
from tracking.mlflow_store import connect, refusals

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model
    from torch import nn

_NAME = "model"  # of every run's model: `runs:/<run>/model`
_DIGEST = f"{TAG}weights_digest"
_MODEL_ID = f"{TAG}model_id"

_LONGEST_NAME = 256  # characters that MLflow's database has for it
# MLflow refuses / and : and dots in front; its queries stumble over ' and \, and `models:/NAME/1` ends at a ?
_NOT_IN_NAMES = frozenset("/:'\\?")
NAME_RULE = rf"1 to {_LONGEST_NAME} printable characters, none of them / : ' \ ?, no dot in front, no space at an end"


class ModelRefusedError(Exception):
    """The model cannot be exported, or MLflow cannot be reached or refuses it."""


@dataclass(frozen=True)
class LoggedModel:
    """Where a model is found: `runs:/.../model`, and `models:/NAME/VERSION` where it was registered."""

    run_uri: str
    registered_uri: str | None


def is_model_name(name: str) -> bool:
    """Return whether MLflow can register a model under `name`, find it again, and load it by `models:/NAME/1`."""
    is_plain = name.isprintable() and not _NOT_IN_NAMES & set(name)
    return is_plain and 0 < len(name) <= _LONGEST_NAME and name == name.strip() and not name.startswith(".")


def log_model(
    uri: str,
    mlflow_run_id: str,
    module: "nn.Module",
    example: npt.NDArray[np.float32],
    *,
    digest: str,
    step: int,
    tags: dict[str, str],
    name: str | None = None,
) -> LoggedModel:
    """Log a module as the model of a run, once, and register it where a name is given, once.

    It is exported by torch, without pickle, in which a stranger's file could hide code: weights and graph for images of
    the example's size, any number of them. MLflow hears of it once the exported file has been loaded and tried.

    Args:
        uri: tracking URI of the store that has the run.
        mlflow_run_id: MLflow's id of the run.
        module: one tensor in, one out; on the CPU.
        example: an input, `(B, ...)` with B of 2 or more.
        digest: of the weights; a model of the run with the same digest is not logged again.
        step: epoch of the weights.
        tags: of the model.
        name: of the registered model, see `is_model_name`; made where there is none.

    Raises:
        ModelRefusedError: the module cannot be exported, or not for any number of images; or the store cannot be
            reached, or refuses.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own imports, and torch's exporter, warn
        try:
            client = connect(uri)
            model_id = _model_of(client, mlflow_run_id, digest)
            if model_id is None:
                model_id = _log(client, mlflow_run_id, module, example, step, tags | {_DIGEST: digest})
            registered = None if name is None else _register(client, name, model_id, mlflow_run_id)
        except refusals() as error:
            raise ModelRefusedError(f"MLflow at {shown_uri(uri)}: {shown_reason(error, uri)}") from error
    return LoggedModel(f"runs:/{mlflow_run_id}/{_NAME}", registered)


def _model_of(client: "MlflowClient", run_id: str, digest: str) -> str | None:
    """Return the id of the run's model with these weights, where it arrived whole."""
    run = client.get_run(run_id)
    query = f"source_run_id = '{run_id}' AND tags.`{_DIGEST}` = '{digest}'"
    found = client.search_logged_models([run.info.experiment_id], query)
    return next((str(model.model_id) for model in found if model.status == "READY"), None)


def _log(
    client: "MlflowClient",
    run_id: str,
    module: "nn.Module",
    example: npt.NDArray[np.float32],
    step: int,
    tags: dict[str, str],
) -> str:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models.model import MLMODEL_FILE_NAME

    experiment = client.get_run(run_id).info.experiment_id
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _NAME
        description = _exported(module, example, path, run_id)
        model = client.create_logged_model(experiment, name=_NAME, source_run_id=run_id, tags=tags, model_type="VAE")
        model_id = str(model.model_id)
        try:
            description.model_id = model_id
            description.save(str(path / MLMODEL_FILE_NAME))
            client.log_model_artifacts(model_id, str(path))
            client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
            client.finalize_logged_model(model_id, "READY")
        except BaseException:
            with suppress(*refusals()):  # the first trouble is the one to tell
                client.finalize_logged_model(model_id, "FAILED")
            raise
    return model_id


def _exported(module: "nn.Module", example: npt.NDArray[np.float32], path: Path, run_id: str) -> "Model":
    """Save the module in the folder `path`, and return MLflow's description of it, which lacks the model's id.

    It is loaded as others will load it, and tried with other numbers of images than the example's: one that became
    part of the graph fails here.
    """
    import mlflow.pytorch
    import torch

    trouble = "cannot be exported"
    try:
        with _quietly():
            description = _save(module, example, path, run_id)
            trouble = "was exported and cannot be loaded"
            loaded = mlflow.pytorch.load_model(str(path))
            for count in (1, len(example) + 1):
                trouble = f"was exported and cannot take {count} of its inputs at once"
                loaded(torch.from_numpy(np.resize(example, (count, *example.shape[1:]))))
    except Exception as error:  # torch's exporter raises whatever the module's code makes it stumble over
        raise ModelRefusedError(f"the model {trouble}: {first_line(error)}") from error
    return description


def _save(module: "nn.Module", example: npt.NDArray[np.float32], path: Path, run_id: str) -> "Model":
    import mlflow.pytorch
    import torch
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        output = module(torch.from_numpy(example)).numpy()
    inputs, outputs = (Schema([TensorSpec(one.dtype, (-1, *one.shape[1:]))]) for one in (example, output))
    description = Model(run_id=run_id)
    mlflow.pytorch.save_model(
        module,
        str(path),
        mlflow_model=description,
        signature=ModelSignature(inputs, outputs),
        input_example=example,
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
    )
    return description


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep off the terminal what torch's exporter writes beside its exception: its log, and the graph so far."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _register(client: "MlflowClient", name: str, model_id: str, run_id: str) -> str:
    """Return the URI of the registered version that is this model; it is made where there is none."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    versions: Any = client.search_model_versions(f"name = '{name}'")
    version = next((found.version for found in versions if found.tags.get(_MODEL_ID) == model_id), None)
    if version is None:
        # a server knows its models; without one, MLflow would look this up in the store of its global settings
        is_served = client.tracking_uri.startswith(("http://", "https://"))
        source = f"models:/{model_id}" if is_served else client.get_logged_model(model_id).artifact_location
        tags = {_MODEL_ID: model_id}  # what MLflow itself knows of it, a search does not return
        version = client.create_model_version(name, source, run_id=run_id, tags=tags, model_id=model_id).version
    return f"models:/{name}/{version}"
