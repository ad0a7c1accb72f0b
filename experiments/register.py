"""`vae-sweep register`: the selected weights of a run as an MLflow model, which anybody can load by its name."""

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from experiments.failures import OperationError
from experiments.history import RunHistory, read_history, read_info
from experiments.ledger import read_trials
from experiments.publish import open_sink
from experiments.run_search import FoundRun, find_run
from experiments.stores import Stores
from experiments.study import coordinator_lock
from experiments.sweep import stored_sweep
from experiments.sync import insist, replay
from tracking.errors import first_line
from tracking.mlflow_address import shown_uri
from tracking.mlflow_models import NAME_RULE, ModelRefusedError, is_model_name, log_model
from vae_core.errors import UserError

if TYPE_CHECKING:
    from vae_core.config import RunConfig
    from vae_core.data import Dataset

_EXAMPLES = 2  # images of the input example; with one, torch's exporter would take "one" for a property of the model


def register(root: Path, word: str, name: str | None, console: Console) -> None:
    """Log the selected weights of a finished run as its MLflow model, and register them where a name is given.

    Args:
        root: folder of the studies.
        word: names the run, see `find_run`.
        name: of the registered model.
        console: where the result is shown.

    Raises:
        UserError: no such run, it has not come to its end, or its data are gone; or MLflow takes no such name.
        OperationError: the model cannot be exported, or MLflow cannot be reached or refuses it.
    """
    if name is not None and not is_model_name(name):
        raise UserError(f"--name {name!r}: MLflow cannot register a model under it; valid: {NAME_RULE}")
    found = find_run(root, word)
    history = read_history(found.directory)
    if history.result is None or history.result_attempt is None:
        raise UserError(f"{found.name}: has no result yet; see vae-sweep status {found.study.path.name} --root {root}")
    weights = _weights(found, history.result_attempt, str(history.result["artifacts"]["best.pt"]))
    console.print(f"Exporting {found.name}, epoch {history.result['best_epoch']}", markup=False, highlight=False)
    module, example = _module_and_example(found, weights)
    uri = Stores(root).tracking_uri
    try:
        logged = log_model(
            uri,
            _in_mlflow(found, console),
            module,
            example,
            digest=hashlib.sha256(weights).hexdigest()[:16],
            step=history.result["best_epoch"],
            tags=_tags(found, history),
            name=name,
        )
    except ModelRefusedError as error:
        raise OperationError(str(error)) from error
    shown, done = (logged.run_uri, "Logged") if name is None else (logged.registered_uri, "Registered")
    lines = [
        f"{done}: {shown}, images {tuple(example.shape[1:])} in, reconstructions out",
        f"Load it:  mlflow.set_tracking_uri({shown_uri(uri)!r}); mlflow.pytorch.load_model({shown!r})",
        f"See it:   vae-sweep ui --root {root}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _weights(found: FoundRun, attempt: int, name: str) -> bytes:
    file = found.directory.attempt(attempt).path / name
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"{found.name}: its selected weights cannot be read ({file}: {error.strerror}); copy them there, or train "
            f"again: vae-sweep reproduce {found.id}"
        ) from error


def _in_mlflow(found: FoundRun, console: Console) -> str:
    """Return MLflow's id of the run, which is sent there first where it is missing."""
    sink = open_sink(found.study, stored_sweep(found.study.sweep_file))
    if (known := insist(sink, found.study, lambda: sink.find(found.directory)).mlflow_run_id) is not None:
        return known
    with coordinator_lock(found.study):
        replay(found.study, sink, read_trials(found.study), console, at_work=False)
    sent = insist(sink, found.study, lambda: sink.find(found.directory)).mlflow_run_id
    if sent is None:
        raise OperationError(f"{found.name}: MLflow took it and does not find it")
    return sent


def _module_and_example(found: FoundRun, weights: bytes) -> tuple[Any, npt.NDArray[np.float32]]:
    """Return the model as a function of images, and images of the test split in the most frequent padded size."""
    import io

    import torch

    from vae_core.config import parse_config
    from vae_core.data import prepare
    from vae_core.models.reconstructor import Reconstructor
    from vae_core.models.vae import build_model
    from vae_core.yaml_io import load_yaml

    file = found.directory.config_file
    config = parse_config(load_yaml(file), str(file))
    dataset = prepare(config.data)
    planned = read_info(found.directory)["data_fingerprint"]
    if dataset.fingerprint != planned:
        raise UserError(f"{found.name}: the data set is {dataset.fingerprint} now; the run has seen {planned}")
    model = build_model(config.model, dataset.channels, config.seed, "cpu", len(dataset.label_names))
    try:
        model.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu"))
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{found.name}: its weights do not fit the models of this version ({first_line(error)}); register it with "
            "the code that trained it, which its provenance names"
        ) from error
    return Reconstructor(model), _example(config, dataset)


def _example(config: "RunConfig", dataset: "Dataset") -> npt.NDArray[np.float32]:
    from vae_core.data.batches import load_batch, padded_size, padding_multiple

    multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in dataset.splits["test"]:
        height, width = dataset.sizes[index]
        by_size.setdefault(padded_size((int(height), int(width)), multiple), []).append(int(index))
    chosen = max(by_size.values(), key=len)
    batch = load_batch(dataset, np.resize(np.array(chosen), _EXAMPLES), multiple, "cpu")
    return np.ascontiguousarray(batch.images.numpy())


def _tags(found: FoundRun, history: RunHistory) -> dict[str, str]:
    result = history.result or {}
    return {
        "vae_sweep.run_id": found.id,
        "vae_sweep.study": found.study.path.name,
        "vae_sweep.cell": found.cell,
        "vae_sweep.seed": str(found.seed),
        "vae_sweep.verdict": result["verdict"]["name"],
        "vae_sweep.best_epoch": str(result["best_epoch"]),
    }
