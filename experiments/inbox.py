"""What people ask of a study while it runs, one small file each; the coordinator applies and removes them."""

import contextlib
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

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
    """Return what has been asked for and not yet applied, oldest first; what is no request is passed over."""
    found = []
    for path in _paths(study):
        with contextlib.suppress(FileNotFoundError, ValueError):  # applied in the meantime, or refused by and by
            found.append((path, _read(path)))
    return found


def refuse_malformed(study: StudyDirectory) -> list[str]:
    """Move what is no request out of the way, to its name and `.refused`; return which files and why, to be said."""
    said = []
    for path in _paths(study):
        try:
            _read(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            aside = path.rename(path.with_name(f"{path.name}.refused"))
            said.append(f"{path}: is no request ({error}); it is now {aside.name}")
    return said


def _paths(study: StudyDirectory) -> list[Path]:
    return sorted(path for path in study.inbox.glob("*.json") if not path.name.startswith("."))


def _read(path: Path) -> Request:
    """Return the request in a file.

    Raises:
        ValueError: it holds none.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("what") not in get_args(What):
        raise ValueError(f"`what` must be one of {', '.join(get_args(What))}")
    runs = content.get("runs", [])
    if not isinstance(runs, list) or not all(isinstance(run, str) for run in runs):
        raise ValueError("`runs` must be a list of run ids")
    return Request(content["what"], runs)


def discard_stops(study: StudyDirectory) -> None:
    """Drop requests to stop that nobody applied: whoever starts a study anew wants it to run."""
    for path, request in requests(study):
        if request.what == "stop":
            path.unlink(missing_ok=True)
