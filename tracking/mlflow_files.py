"""What MLflow holds of one of its runs, and the files of it."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.images import LOGGED_IMAGES, same_picture, thumbnail
from tracking.replay import Upload

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass
class KnownRun:
    """What MLflow is known to hold of one of its runs.

    `rows` and `files` (name to bytes) only once `asked`; `verified` names the files compared or sent by this process;
    `datasets` are digests.
    """

    id: str
    status: str = "RUNNING"
    rows: set[tuple[str, int]] = field(default_factory=set)
    latest: dict[str, float] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)
    asked: bool = False


def send_files(client: "MlflowClient", run: KnownRun, items: Iterable[Upload]) -> tuple[int, list[str]]:
    """Send what MLflow lacks of the files; return how many that were, and which are not on this disk."""
    sent, missing = 0, []
    for item in items:
        if item.name in run.verified:
            continue
        if not item.path.exists():
            missing.append(str(item.path))
            continue
        sent += upload(client, run, item)
        if item.is_thumbnail and LOGGED_IMAGES not in run.tags:
            client.set_tag(run.id, LOGGED_IMAGES, "True")
            run.tags[LOGGED_IMAGES] = "True"
    return sent, missing


def upload(client: "MlflowClient", run: KnownRun, item: Upload) -> bool:
    """Put a file on the run, unless one of its name and size is there; return whether it was sent.

    Of a picture it is the key and the step that name it: drawn anew by a later attempt, it replaces the earlier one.
    """
    name = _name_there(run, item.name)
    if name in run.verified:
        return False
    source: Path | bytes | None = thumbnail(item.path) if item.is_thumbnail else item.path
    if source is None:
        return False
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    is_new = run.files.get(name) != size
    if is_new:
        _send(client, run, source, name)
    run.files[name] = size
    run.verified.add(name)
    return is_new


def files_of(client: "MlflowClient", run_id: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
    """Yield (name, bytes) of every file of a run."""
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from files_of(client, run_id, item.path)
        else:
            yield item.path, item.file_size or 0


def _name_there(run: KnownRun, name: str) -> str:
    """Return the name under which MLflow has a picture of the same key and step, else `name`."""
    if same := same_picture(name):
        return next((there for there in run.files if same_picture(there) == same), name)
    return name


def _send(client: "MlflowClient", run: KnownRun, source: Path | bytes, name: str) -> None:
    folder, _, base = name.rpartition("/")
    if isinstance(source, Path) and source.name == base:
        client.log_artifact(run.id, str(source), folder or None)
        return
    with tempfile.TemporaryDirectory() as renamed:
        target = Path(renamed, base)
        if isinstance(source, Path):
            shutil.copyfile(source, target)
        else:
            target.write_bytes(source)
        client.log_artifact(run.id, str(target), folder or None)
