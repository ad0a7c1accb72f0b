"""The report's files: one of a chosen format, or a folder of all of them with the studies' pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.contrasts import MOST_CELLS
from experiments.report import Report
from tracking.files import write_atomic
from vae_core.errors import UserError

FORMATS: dict[str, Callable[[Report], str]] = {
    "md": Report.to_markdown,
    "html": Report.to_html,
    "latex": Report.to_latex,
    "csv": Report.to_csv,
    "json": Report.to_json,
}
_SUFFIXES = {"md": "md", "html": "html", "latex": "tex", "csv": "csv", "json": "json"}


def format_of(path: Path) -> str | None:
    """Return the format that a file's name asks for; None for a name that asks for none."""
    return next((name for name, suffix in _SUFFIXES.items() if path.suffix == f".{suffix}"), None)


def write_one(report: Report, form: str, output: Path) -> Path:
    """Write one format into `output`, or as `report.<suffix>` where that is a folder, and return the file's path.

    Raises:
        UserError: it cannot be written.
    """
    is_folder = output.is_dir() or not output.suffix
    return _write(_in_folder(form, output) if is_folder else output, FORMATS[form](report))


def write_all(report: Report, folder: Path) -> Iterator[Path]:
    """Write every format and a picture per study into a folder; yields each path once it is there.

    Raises:
        UserError: `folder` is a file, or cannot be written.
    """
    if folder.is_file():
        known = ", ".join(f".{suffix}" for suffix in _SUFFIXES.values())
        raise UserError(f"-o {folder}: is a file, and its name asks for no format; end it in {known}, or name a folder")
    for form, text in FORMATS.items():
        yield _write(_in_folder(form, folder), text(report))
    yield _write(folder / "runs.csv", report.runs_csv())
    for table in report.tables:
        if len(table.results.cells) <= MOST_CELLS:
            from experiments.charts import png_of
            from experiments.overview import overview

            picture = png_of(overview(table.study, table.results))
            yield _write(folder / "figures" / f"{table.results.name}.png", picture)


def _in_folder(form: str, folder: Path) -> Path:
    return folder / f"report.{_SUFFIXES[form]}"


def _write(path: Path, content: str | bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from error
    return path
