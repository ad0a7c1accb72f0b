"""Talks to one MLflow store: opening it, finding and making runs, and sending only what is not there yet.

Only this module and mlflow_sink.py need mlflow, which is imported when a store is first opened.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tracking.mlflow_address import DATABASES
from tracking.mlflow_files import KnownRun, files_of
from tracking.replay import MetricRow

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # limits of MLflow's log_batch
T = TypeVar("T")
_SQLITE = "sqlite:///"
_ENVIRONMENT = {  # defaults only: what the user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it logs the errors that it also raises
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def connect(uri: str) -> "MlflowClient":
    """Open the store at a tracking URI; a missing SQLite file is made first, whole or not at all.

    Raises:
        MlflowException, SQLAlchemyError, OSError: see `refusals`.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_RETRIES] = "0"  # whatever the user has set: a create that is repeated makes two runs
    from mlflow import MlflowClient

    path = _sqlite_file(uri)
    if path is not None and not path.exists():
        _create_database(path)
    if uri.partition(":")[0].partition("+")[0] in DATABASES:
        _probe(uri)
        _forget_engine(uri)  # it may hold a file that was deleted since
    return MlflowClient(tracking_uri=uri)


def refusals() -> tuple[type[Exception], ...]:
    """Return the exceptions by which MLflow, its database, its server or its files refuse."""
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError
    from urllib3.exceptions import HTTPError

    # a database's driver may not be installed; what requests raises are OSErrors; what a proxy says in the server's
    # place, and addresses that a library does not read, are ValueErrors
    return MlflowException, SQLAlchemyError, HTTPError, OSError, ImportError, ParseError, ValueError


def file_identity(uri: str) -> tuple[int, int] | None:
    """Return (device, inode) of a SQLite store, to notice that it was deleted; None for other stores."""
    path = _sqlite_file(uri)
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def find(client: "MlflowClient", experiment_id: str, identifying: Mapping[str, str]) -> str | None:
    """Return the id of the experiment's run with these tags; None: there is none."""
    found = _search(client, experiment_id, identifying)
    return str(found[0].info.run_id) if found else None


def _search(client: "MlflowClient", experiment_id: str, identifying: Mapping[str, str]) -> Sequence[Any]:
    """Return the runs with these tags, the oldest first, deleted ones last."""
    from mlflow.entities import ViewType

    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identifying.items())
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1, order_by=order)
    return found or client.search_runs([experiment_id], query, ViewType.DELETED_ONLY, max_results=1, order_by=order)


def find_or_create(
    client: "MlflowClient",
    experiment_id: str,
    identifying: Mapping[str, str],
    name: str,
    tags: Mapping[str, str],
    start_ms: int | None,
) -> KnownRun:
    """Return the run with the `identifying` tags; a missing one is made with `name`, `tags`, `start_ms`.

    A run that was deleted in the web page is taken out of the bin: made anew, it would be there twice after a restore.
    """
    found = _search(client, experiment_id, identifying)
    if not found:
        run = client.create_run(experiment_id, start_time=start_ms, tags={**identifying, **tags}, run_name=name)
        return KnownRun(run.info.run_id, tags=dict(run.data.tags), asked=True)
    run = found[0]
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)
    return KnownRun(
        run.info.run_id,
        run.info.status,
        latest=dict(run.data.metrics),
        params=set(run.data.params),
        tags=dict(run.data.tags),
        datasets={item.dataset.digest for item in run.inputs.dataset_inputs} if run.inputs else set(),
    )


def ask_contents(client: "MlflowClient", run: KnownRun) -> None:
    """Ask once which (key, step) and which files the run holds."""
    if run.asked:
        return
    run.rows = {(row.key, row.step) for key in run.latest for row in client.get_metric_history(run.id, key)}
    run.files = dict(files_of(client, run.id))
    run.asked = True


def send_metrics(client: "MlflowClient", run: KnownRun, rows: Iterable[MetricRow]) -> int:
    """Send the first row of every (key, step) that the run does not have; return how many."""
    from mlflow.entities import Metric

    new: dict[tuple[str, int], Metric] = {}
    for row in rows:
        if (row.key, row.step) not in run.rows:
            new.setdefault((row.key, row.step), Metric(row.key, row.value, row.time_ms, row.step))
    for batch in _batches(list(new.values()), _BATCH["metrics"]):
        client.log_batch(run.id, metrics=batch)
    run.rows |= new.keys()
    run.latest |= {metric.key: metric.value for metric in new.values()}
    return len(new)


def send_params(client: "MlflowClient", run: KnownRun, params: Mapping[str, str]) -> None:
    """Send the params that the run does not have; MLflow never changes one."""
    from mlflow.entities import Param

    new = [Param(key, value) for key, value in params.items() if key not in run.params]
    for batch in _batches(new, _BATCH["params"]):
        client.log_batch(run.id, params=batch)
    run.params |= {param.key for param in new}


def send_tags(client: "MlflowClient", run: KnownRun, tags: Mapping[str, str]) -> None:
    """Set the tags that differ."""
    from mlflow.entities import RunTag

    new = [RunTag(key, value) for key, value in tags.items() if run.tags.get(key) != value]
    for batch in _batches(new, _BATCH["tags"]):
        client.log_batch(run.id, tags=batch)
    run.tags |= {tag.key: tag.value for tag in new}


def remove_tag(client: "MlflowClient", run: KnownRun, key: str) -> None:
    """Take a tag off the run where it has it."""
    if key in run.tags:
        client.delete_tag(run.id, key)
        del run.tags[key]


def send_dataset(client: "MlflowClient", run: KnownRun, digest: str, data: Mapping[str, Any]) -> None:
    """Say which data set the run was trained on, unless that is known.

    Args:
        client: of the store.
        run: the run.
        digest: the data's fingerprint.
        data: `name`, `source_type`, `source` (a mapping), `schema` and `profile` as far as known.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    if digest in run.datasets:
        return
    texts = {name: json.dumps(data[name]) for name in ("schema", "profile") if data.get(name)}
    source = json.dumps(data.get("source") or {})
    dataset = Dataset(data.get("name") or "data", digest, data.get("source_type") or "unknown", source, **texts)
    client.log_inputs(run.id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])])
    run.datasets.add(digest)


def set_status(client: "MlflowClient", run: KnownRun, status: str, end_ms: int | None = None) -> None:
    """Set RUNNING, FINISHED, FAILED or KILLED where it differs; an ended run gets its end time."""
    if run.status == status:
        return
    if status == "RUNNING":
        client.update_run(run.id, status=status)
    else:
        client.set_terminated(run.id, status, end_time=end_ms)
    run.status = status


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def _create_database(path: Path) -> None:
    """Make a migrated store under another name, then give it its own: a kill leaves none or a whole one."""
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        MlflowClient(tracking_uri=f"{_SQLITE}{unfinished}")
        _forget_engine(f"{_SQLITE}{unfinished}")
        os.link(unfinished, path)
    except FileExistsError:
        return  # another study's coordinator, or the web page, was faster
    finally:
        unfinished.unlink(missing_ok=True)


def _probe(uri: str) -> None:
    """Fail at once where a database cannot be opened: MLflow itself would try again for most of an hour."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA schema_version" if uri.startswith(_SQLITE) else "SELECT 1")


def _forget_engine(uri: str) -> None:
    """Close the connections that MLflow keeps per URI for the life of the process."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import utils

    engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()
        utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
