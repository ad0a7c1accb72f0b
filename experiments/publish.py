"""What a study leaves behind for people: the table and the picture, in its folder and on its MLflow run."""

from pathlib import Path

from experiments.report import Report, build
from experiments.stores import Stores
from experiments.study_files import read_facts, study_identity
from experiments.sweep import Sweep
from tracking.files import write_atomic
from tracking.mlflow_sink import MlflowSink
from tracking.replay import gpu_hours
from tracking.run_directory import StudyDirectory

_FILES = ("table.md", "report.html", "table.csv", "runs.csv", "overview.png")


def open_sink(study: StudyDirectory, sweep: Sweep, uri: str | None = None) -> MlflowSink:
    """Return the study in MLflow: at a tracking URI, by default where its coordinator writes."""
    stores = Stores(study.path.parent)
    uri = uri or stores.tracking_uri
    return MlflowSink(uri, stores.artifacts_of(uri), study_identity(study), sweep.question)


def parent_words(sweep: Sweep, study: StudyDirectory) -> tuple[dict[str, object], dict[str, object]]:
    """Return the tags and the params of the sweep's MLflow run."""
    provenance = read_facts(study.provenance_file)
    tags: dict[str, object] = {"study": sweep.name, "torch": provenance["packages"]["torch"]}
    tags |= {name: provenance[name] for name in ("commit", "dirty", "user") if provenance.get(name) is not None}
    seeds = ",".join(str(seed) for seed in sweep.seeds)
    return tags, {"sampler": sweep.file.sampler, "seeds": seeds, "objective": sweep.file.objective.metric}


def write_report(study: StudyDirectory) -> Report:
    """Write table, page and picture into the study's report folder and return the report."""
    from experiments.overview import write_overview

    report = build(study)
    study.report.mkdir(exist_ok=True)
    write_atomic(study.report / "table.md", report.to_markdown(with_costs=False))  # equal runs leave equal files
    write_atomic(study.report / "table.csv", report.to_csv())
    write_atomic(study.report / "runs.csv", report.runs_csv())
    write_atomic(study.report / "report.html", report.to_html())
    write_overview(study, report.tables[0].results)
    return report


def publish_parent(sink: MlflowSink, study: StudyDirectory, status: str, end_ms: int | None = None) -> str | None:
    """Put the study's files on its MLflow run and end it (now, or at `end_ms`); return what MLflow refused."""
    files: dict[str, Path] = {"sweep.yaml": study.sweep_file, "provenance.json": study.provenance_file}
    if study.code_archive.exists():
        files["code.tar.gz"] = study.code_archive
    files |= {name: study.report / name for name in _FILES if (study.report / name).exists()}
    table = study.report / "table.md"
    description = table.read_text(encoding="utf-8") if table.exists() else ""
    hours = sum(gpu_hours(study.run(run)) for run in study.run_ids())
    report = sink.log_parent({"gpu_hours": hours} if hours else {}, files, description)
    return report.problem or sink.finish_parent(status, end_ms).problem
