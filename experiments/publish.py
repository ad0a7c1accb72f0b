"""What a study leaves behind for people: the table and the picture, in its folder and on its MLflow run."""

from pathlib import Path

from experiments.markdown_table import escaped
from experiments.report import Report, build
from experiments.stores import Stores
from experiments.study_files import read_facts, study_identity
from experiments.sweep import Sweep
from tracking.files import write_atomic
from tracking.mlflow_sink import LONGEST_DESCRIPTION, MlflowSink
from tracking.replay import gpu_hours
from tracking.run_directory import StudyDirectory

_TABLE = "table.md"
_FILES = (_TABLE, "report.html", "table.csv", "runs.csv", "overview.png")


def open_sink(study: StudyDirectory, sweep: Sweep, uri: str | None = None) -> MlflowSink:
    """Return the study in MLflow: at a tracking URI, by default where its coordinator writes."""
    stores = Stores(study.path.parent)
    uri = uri or stores.tracking_uri
    return MlflowSink(uri, stores.artifacts_of(uri), study_identity(study), escaped(sweep.question))


def parent_words(sweep: Sweep, study: StudyDirectory) -> tuple[dict[str, object], dict[str, object]]:
    """Return the tags and the params of the sweep's MLflow run."""
    provenance = read_facts(study.provenance_file) if study.provenance_file.exists() else {}
    tags: dict[str, object] = {"study": sweep.name, "torch": provenance.get("packages", {}).get("torch")}
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


def shortened(table: str) -> str:
    """Return a report in Markdown as a description in MLflow; of a long one only question and answers."""
    if len(table) <= LONGEST_DESCRIPTION:
        return table
    parts = [part for part in table.split("\n\n") if not part.startswith(("|", "- "))]
    kept = [f"The whole table is among the artifacts: {_TABLE}."]
    while parts and sum(map(len, [*kept, parts[0]])) + 2 * len(kept) <= LONGEST_DESCRIPTION:
        kept.insert(-1, parts.pop(0))
    return "\n\n".join(kept)


def publish_parent(sink: MlflowSink, study: StudyDirectory, status: str, end_ms: int | None = None) -> str | None:
    """Put the study's files on its MLflow run and end it (now, or at `end_ms`); return what MLflow refused."""
    files: dict[str, Path] = {"sweep.yaml": study.sweep_file}
    if study.provenance_file.exists():
        files["provenance.json"] = study.provenance_file
    if study.code_archive.exists():
        files["code.tar.gz"] = study.code_archive
    files |= {name: study.report / name for name in _FILES if (study.report / name).exists()}
    table = study.report / "table.md"
    description = shortened(table.read_text(encoding="utf-8")) if table.exists() else ""
    hours = sum(gpu_hours(study.run(run)) for run in study.run_ids())
    report = sink.log_parent({"gpu_hours": hours} if hours else {}, files, description)
    return report.problem or sink.finish_parent(status, end_ms).problem
