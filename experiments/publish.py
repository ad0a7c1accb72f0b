"""What a study leaves behind for people: the table and the picture, in its folder and on its MLflow run."""

from pathlib import Path

from experiments.report import Report, build
from tracking.files import write_atomic
from tracking.mlflow_sink import MlflowSink
from tracking.replay import gpu_hours
from tracking.run_directory import StudyDirectory

_FILES = ("table.md", "table.csv", "runs.csv", "overview.png")


def write_report(study: StudyDirectory) -> Report:
    """Write table and picture into the study's report folder and return the report."""
    from experiments.overview import write_overview

    report = build(study)
    study.report.mkdir(exist_ok=True)
    write_atomic(study.report / "table.md", report.to_markdown())
    write_atomic(study.report / "table.csv", report.to_csv())
    write_atomic(study.report / "runs.csv", report.runs_csv())
    write_overview(study, report.results)
    return report


def publish_parent(sink: MlflowSink, study: StudyDirectory, status: str, end_ms: int | None = None) -> str | None:
    """Put the study's files on its MLflow run and end it (now, or at `end_ms`); return what MLflow refused."""
    files: dict[str, Path] = {"sweep.yaml": study.sweep_file, "provenance.json": study.provenance_file}
    if study.code_archive.exists():
        files["code.tar.gz"] = study.code_archive
    files |= {name: study.report / name for name in _FILES if (study.report / name).exists()}
    hours = sum(gpu_hours(study.run(run)) for run in study.run_ids())
    report = sink.log_parent({"gpu_hours": hours} if hours else {}, files)
    return report.problem or sink.finish_parent(status, end_ms).problem
