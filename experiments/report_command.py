"""`vae-sweep report`: the table on the terminal, one format on standard output, or files."""

import shlex
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.report import Report, build
from experiments.report_files import FORMATS, format_of, write_all, write_one
from experiments.study_files import existing_study
from vae_core.errors import UserError

_LEFT_BEHIND = ("table.md", "report.html", "overview.png")


def show_report(
    root: Path,
    names: Sequence[str],
    metrics: Sequence[str],
    baseline: str | None,
    form: str | None,
    output: Path | None,
    console: Console,
    *,
    open_page: bool,
) -> None:
    """Print or write the report on one or more studies, and say where it is.

    Args:
        root: folder of the studies.
        names: of the studies.
        metrics: keys of the columns; empty: those that matter.
        baseline: name of the cell to compare with; None: each sweep's own.
        form: one of `FORMATS`; None: what the name of `output` asks for, else all.
        output: a file, or a folder; None: the terminal, or standard output for a `form`.
        console: where to print.
        open_page: whether to show the page in a browser.

    Raises:
        UserError: no such study, metric, baseline or format; a file that cannot be written.
    """
    if form is not None and form not in FORMATS:
        raise UserError(f"--format {form}: no such format; valid: {', '.join(FORMATS)}")
    studies = [existing_study(root, name) for name in dict.fromkeys(names)]
    if open_page:
        form, output = _page_place(form, output, root, names)
    form = form or (format_of(output) if output else None)
    with console.status("Reading the studies"):
        report = build(studies, metrics=metrics or None, baseline=baseline)
    if output is not None:
        _write(report, form, output, console, open_page=open_page)
    elif form is not None:
        sys.stdout.write(FORMATS[form](report))
    else:
        console.print(report.to_console())
        _say_where(report, root, console)


def _page_place(form: str | None, output: Path | None, root: Path, names: Sequence[str]) -> tuple[str | None, Path]:
    """Return the format and the place of a page that is to be opened."""
    if form not in (None, "html"):
        raise UserError(f"--open shows the page; --format {form} makes none: leave --format out, or say html")
    if output is not None:
        form = form or format_of(output)
        if form not in (None, "html"):
            raise UserError(f"--open shows the page; -o {output} is none: end its name in .html, or name a folder")
        return form, output
    if len(set(names)) > 1:
        raise UserError("--open: a page on several studies needs a place; add -o DIR")
    return "html", root.absolute() / names[0] / "report" / "report.html"


def _write(report: Report, form: str | None, output: Path, console: Console, *, open_page: bool) -> None:
    page = None
    with console.status("Writing"):
        for path in [write_one(report, form, output)] if form else write_all(report, output):
            console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
            page = path if path.suffix == ".html" else page
    if page is not None:
        address = page.absolute().as_uri()
        if not (open_page and webbrowser.open(address)):
            console.print(f"To see it, open {address} in a browser", markup=False, highlight=False, soft_wrap=True)


def _say_where(report: Report, root: Path, console: Console) -> None:
    """Say where the files are that `run` left, and how to get those of these numbers."""
    for table in report.tables:
        found = [path for name in _LEFT_BEHIND if (path := table.study.report / name).is_file()]
        if found:
            console.print(
                f"Files of the last run: {', '.join(map(str, found))}", markup=False, highlight=False, soft_wrap=True
            )
    names = " ".join(shlex.quote(table.results.name) for table in report.tables)
    command = f"vae-sweep report {names} --root {shlex.quote(str(root))}"
    words = f"Page, LaTeX, CSV and JSON: {command} -o DIR; page alone: {command} --open"
    console.print(words, markup=False, highlight=False, soft_wrap=True)
