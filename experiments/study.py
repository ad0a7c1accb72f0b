"""A study's folder: made from a sweep, found again by the same sweep, refused to a different one."""

import fcntl
import json
import os
import shlex
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.ledger import TrialRecord
from experiments.study_files import holder_words, read_facts
from experiments.sweep import Sweep, resolved_text, stored_sweep
from slurm.redaction import redacted
from slurm.snapshot import source_root
from tracking.files import write_atomic, write_json
from tracking.mlflow_address import store_identity
from tracking.provenance import collect
from tracking.run_directory import RunDirectory, StudyDirectory
from vae_core.config import RunConfig, identity
from vae_core.data import Dataset
from vae_core.errors import UserError
from vae_core.yaml_io import dump_yaml

_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 5, 0.1
_FIXED_KEYS = ("sampler", "sampler_seed", "objective")


class StudyBusyError(UserError):
    """Another coordinator holds the study's lock."""


def open_study(study: StudyDirectory, sweep: Sweep, dataset: Dataset) -> None:
    """Write the sweep's study, or check that the one found is the same experiment; the caller holds its lock.

    New values on an axis are welcome, vanished ones keep their runs; anything that would change what existing runs
    mean is refused.

    Raises:
        UserError: the study exists with another base config, seeds, sampler, objective, axes or data.
    """
    data_file = study.path / "data.json"
    if study.sweep_file.exists():
        _check_same(sweep, stored_sweep(study.sweep_file), read_facts(data_file), dataset)
    else:
        write_json(data_file, {"fingerprint": dataset.fingerprint, **dataset.describe()})
        provenance = without_secrets(collect(source_root())) | {"study_id": uuid.uuid4().hex}
        write_json(study.provenance_file, provenance)
    write_atomic(study.sweep_file, resolved_text(sweep))


def plan_run(
    study: StudyDirectory, trial: TrialRecord, config: RunConfig, run_id: str, dataset: Dataset
) -> RunDirectory:
    """Write a run's config and description where they are missing, and return its folder."""
    run = study.run(run_id)
    run.create()
    text = dump_yaml(config.model_dump(mode="json"))
    if not run.config_file.exists() or run.config_file.read_text(encoding="utf-8") != text:
        write_atomic(run.config_file, text)  # an execution-only field may have changed, such as the data's path
    if not run.info_file.exists():
        info = {
            "run": run_id,
            "study": study.path.name,
            "trial": trial.number,
            "seed": config.seed,
            "cell": trial.cell,
            "params": trial.params,
            "epochs": config.train.epochs,
            "data_fingerprint": dataset.fingerprint,
            "split_hashes": dataset.split_hashes,
            "data": _data_words(config, dataset),
        }
        write_json(run.info_file, info)
    return run


def _data_words(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """Return the data set in MLflow's terms: name, source, schema and profile."""
    source, path = config.data.source, config.data.path
    heights, widths = dataset.sizes[:, 0], dataset.sizes[:, 1]
    size = [int(axis[0]) if (axis == axis[0]).all() else -1 for axis in (heights, widths)]
    shape = [-1, dataset.channels, *size]
    images = [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": shape}}]
    made = {"source_type": "code", "source": {"tags": {"generator": source}}}
    read = {"source_type": "local", "source": {"uri": str(path)}}
    return {
        "name": Path(path).name if path else source,
        **(read if path else made),
        "schema": {"mlflow_tensorspec": {"features": json.dumps(images), "targets": None}},
        "profile": {
            "num_rows": len(dataset),
            "num_elements": int((heights * widths).sum()) * dataset.channels,
            "splits": {name: len(indices) for name, indices in dataset.splits.items()},
            "heights_px": [int(heights.min()), int(heights.max())],
            "widths_px": [int(widths.min()), int(widths.max())],
        },
    }


def study_folder(root: Path, sweep: Sweep) -> StudyDirectory:
    """Return the sweep's folder, made where it is missing.

    Raises:
        UserError: `root` cannot hold it.
    """
    if "?" in str(root.absolute()):
        raise UserError(f"--root {root}: MLflow's database address cannot hold a '?'; choose another folder")
    study = StudyDirectory(root.absolute() / sweep.name)
    try:
        study.create()
    except OSError as error:
        raise UserError(f"--root {root}: {study.path} cannot be made ({error.strerror})") from error
    return study


@contextmanager
def coordinator_lock(study: StudyDirectory, tracking_uri: str | None = None) -> Iterator[None]:
    """Hold the study's lock; the kernel releases it however this process ends.

    Args:
        study: the study.
        tracking_uri: of a coordinator, where it writes to MLflow; None: somebody else who must be alone.

    Raises:
        StudyBusyError: somebody else holds it; the message says who, where and since when.
    """
    store = {"store": store_identity(tracking_uri)} if tracking_uri else {}
    with _held(study.lock_file, f"{study.path}: another coordinator is running this study", store):
        yield


@contextmanager
def sync_lock(study: StudyDirectory) -> Iterator[None]:
    """Be the only `vae-sweep sync` that sends a study; two would each make what MLflow lacks.

    Raises:
        StudyBusyError: another one is sending it.
    """
    with _held(study.sync_lock_file, f"{study.path}: another vae-sweep sync is sending this study", {}):
        yield


@contextmanager
def _held(path: Path, refusal: str, more: Mapping[str, str]) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take_lock(descriptor, refusal)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since, **more})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _check_same(sweep: Sweep, stored: Sweep, data: dict[str, Any], dataset: Dataset) -> None:
    differences = _tree_differences(identity(stored.base_config), identity(sweep.base_config))
    before, now = stored.file.model_dump(), sweep.file.model_dump()
    differences += [f"{key}: {before[key]} -> {now[key]}" for key in _FIXED_KEYS if before[key] != now[key]]
    if stored.seeds != sweep.seeds:
        differences.append(f"seeds: {stored.seeds} -> {sweep.seeds}")
    if set(stored.axes) != set(sweep.axes):
        differences.append(f"space: {sorted(stored.axes)} -> {sorted(sweep.axes)}")
    for name in stored.file.cells.keys() & sweep.file.cells.keys():
        differences += _tree_differences(stored.file.cells[name], sweep.file.cells[name], f"cells.{name}: ")
    if not differences and data["fingerprint"] != dataset.fingerprint:
        differences.append(f"the data's fingerprint: {data['fingerprint']} -> {dataset.fingerprint}")
    if differences:
        raise UserError(
            f"{sweep.where}: the study {sweep.name!r} was run with other settings; "
            f"undo the change, or give the new one a name with --study NAME ({'; '.join(differences)})"
        )


def _take_lock(descriptor: int, refusal: str) -> None:
    """Lock the file; somebody who only looks whether it is locked holds it for a moment."""
    for attempts_left in reversed(range(_LOCK_ATTEMPTS)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not attempts_left:
                raise StudyBusyError(f"{refusal} ({holder_words(descriptor)})") from error
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def without_secrets(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return provenance with what setup lines and `--set` options may hold left out: others read it."""
    lines = (provenance["diff"] or "").splitlines(keepends=True)
    diff = "".join(redacted(line) for line in lines) if lines else provenance["diff"]
    command = shlex.join(redacted(word) for word in shlex.split(provenance["command"]))
    return provenance | {"command": command, "diff": diff}


def _tree_differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    differences = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += _tree_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            differences.append(f"{prefix}{key}: {old} -> {new}")
    return differences
