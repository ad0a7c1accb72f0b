"""A trained model in MLflow's own terms: with input example and signature, loadable by `mlflow.pytorch.load_model`."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tracking.mlflow_store import TAG, connect, refusals, shown_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

_NAME = "model"  # of every run's model: `runs:/<run>/model`
_DIGEST = f"{TAG}weights_digest"
_MODEL_ID = f"{TAG}model_id"


class ModelRefusedError(Exception):
    """MLflow cannot be reached, or refused the model."""


@dataclass(frozen=True)
class LoggedModel:
    """Where a model is found: `runs:/.../model`, and `models:/NAME/VERSION` where it was registered."""

    run_uri: str
    registered_uri: str | None


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
    the example's size, any number of them.

    Args:
        uri: tracking URI of the store that has the run.
        mlflow_run_id: MLflow's id of the run.
        module: one tensor in, one out; on the CPU.
        example: an input, `(B, ...)` with B of 2 or more.
        digest: of the weights; a model of the run with the same digest is not logged again.
        step: epoch of the weights.
        tags: of the model.
        name: of the registered model; made where there is none.

    Raises:
        ModelRefusedError: the store cannot be reached, or refuses.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own imports, and torch's exporter, warn
        try:
            client = connect(uri)
            model_id = _model_of(client, mlflow_run_id, digest)
            if model_id is None:
                model_id = _log(client, mlflow_run_id, module, example, step, tags | {_DIGEST: digest})
            registered = _register(client, name, model_id, mlflow_run_id) if name else None
        except refusals() as error:
            raise ModelRefusedError(f"MLflow at {shown_uri(uri)}: {str(error).splitlines()[0]}") from error
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

    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name=_NAME, source_run_id=run_id, tags=tags, model_type="VAE")
    model_id = str(model.model_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _NAME
        _save(module, example, path, model_id, run_id)
        client.log_model_artifacts(model_id, str(path))
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    client.finalize_logged_model(model_id, "READY")
    return model_id


def _save(module: "nn.Module", example: npt.NDArray[np.float32], path: Path, model_id: str, run_id: str) -> None:
    import mlflow.pytorch
    import torch
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        output = module(torch.from_numpy(example)).numpy()
    inputs, outputs = (Schema([TensorSpec(one.dtype, (-1, *one.shape[1:]))]) for one in (example, output))
    mlflow.pytorch.save_model(
        module,
        str(path),
        mlflow_model=Model(model_id=model_id, run_id=run_id),
        signature=ModelSignature(inputs, outputs),
        input_example=example,
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
        serialization_format="pt2",
    )


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
