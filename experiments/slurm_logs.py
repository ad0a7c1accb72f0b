"""Where SLURM jobs of a study write; imports nothing heavy."""

from pathlib import Path

from tracking.run_directory import StudyDirectory


def logs_of(study: StudyDirectory, job: str) -> list[Path]:
    """Return the log files of a job, those of its standard error first."""
    found = [path for folder in study.slurm.glob("*") for path in folder.glob(f"{job}_*_log.*")]
    return sorted(found, key=lambda path: (path.suffix != ".err", path.name))


def newest_log(study: StudyDirectory, job: str) -> Path | None:
    """Return the log of a job that was written to last; None where it never began."""
    found = [path for path in logs_of(study, job) if path.stat().st_size]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
