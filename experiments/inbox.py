"""What people ask of a study while it runs, one small file each; the coordinator applies and removes them."""

import contextlib
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from tracking.files import read_json, write_json
from tracking.run_directory import StudyDirectory

What = Literal["stop", "retry", "prune"]


@dataclass(frozen=True)
class Request:
    """One thing asked for; `runs` holds run ids, and is empty where the whole study is meant."""

    what: What
    runs: list[str] = field(default_factory=list)


def ask(study: StudyDirectory, request: Request) -> Path:
    """Put the request into the study's inbox and return its file."""
    study.inbox.mkdir(exist_ok=True)  # of a study from before there was one
    path = study.inbox / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    write_json(path, asdict(request))
    return path


def requests(study: StudyDirectory) -> list[tuple[Path, Request]]:
    """Return what has been asked for and not yet applied, oldest first."""
    found = []
    for path in sorted(path for path in study.inbox.glob("*.json") if not path.name.startswith(".")):
        with contextlib.suppress(FileNotFoundError):  # applied in the meantime
            found.append((path, Request(**read_json(path))))
    return found


def discard_stops(study: StudyDirectory) -> None:
    """Drop requests to stop that nobody applied: whoever starts a study anew wants it to run."""
    for path, request in requests(study):
        if request.what == "stop":
            path.unlink(missing_ok=True)
