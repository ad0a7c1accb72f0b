"""Where SLURM jobs of a study write; imports nothing heavy."""

import math
import time
from pathlib import Path

from tracking.run_directory import StudyDirectory


def logs_of(study: StudyDirectory, job: str) -> list[Path]:
    """Return the log files of a job, those of its standard error first."""
    found = [path for folder in study.slurm.glob("*") for path in folder.glob(f"{job}_*_log.*")]
    return sorted(found, key=lambda path: (path.suffix != ".err", path.name))


def newest_log(study: StudyDirectory, job: str) -> Path | None:
    """Return the log that says most of a job's end, its standard error first; None where it never began."""
    return next((path for path in logs_of(study, job) if path.stat().st_size), None)


def submitted_jobs(study: StudyDirectory, newer_than_s: float = math.inf) -> set[str]:
    """Return the ids of all jobs of a study that were ever submitted, or of those submitted less than so many s ago."""
    since = time.time() - newer_than_s
    found = [path for path in study.slurm.glob("*/*_submitted.pkl") if path.lstat().st_mtime > since]
    return {path.name.removesuffix("_submitted.pkl") for path in found}
