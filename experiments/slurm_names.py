"""By which name the scheduler is asked for a study's jobs."""

import hashlib
from pathlib import Path

from tracking.files import read_json, write_json
from tracking.run_directory import StudyDirectory


def job_name(study: StudyDirectory) -> str:
    """Return the name of a study's jobs: the one that the study keeps, else one made from the path as it is spelled."""
    file = _file(study)
    kept = read_json(file) if file.is_file() else {}
    if kept and kept["folder"] == _identity(study):
        return str(kept["name"])
    place = hashlib.sha256(str(study.path.absolute()).encode()).hexdigest()[:6]
    return f"vae-sweep-{study.path.name}-{place}"


def keep_job_name(study: StudyDirectory) -> None:
    """Have the study keep the name, so that it is one however the path is spelled later; the caller holds its lock."""
    write_json(_file(study), {"name": job_name(study), "folder": _identity(study)})


def _identity(study: StudyDirectory) -> int | None:
    """Return what a copy of the folder does not have: its jobs are others."""
    return study.path.stat().st_ino if study.path.is_dir() else None


def _file(study: StudyDirectory) -> Path:
    return study.path / "jobs.json"
