"""`vae-sweep compare`: runs of any studies of a root side by side, on the terminal, as Markdown and as a picture."""

import hashlib
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from experiments.compare_pictures import draw_side_by_side
from experiments.compare_runs import ComparedRun, compared_runs, warnings
from experiments.compare_tables import tables
from experiments.grid import Grid
from tracking.files import write_atomic
from vae_core.errors import UserError

_NAMED = 4  # more runs than these do not all stand in the folder's name
_DIGITS = 8  # of a run id


def compare(root: Path, names: list[str], output: Path | None, console: Console) -> None:
    """Show and write what several runs differ in: config, test metrics, verdict, provenance, reconstructions.

    Args:
        root: folder of the studies.
        names: the runs, see `run_search.find_run`; the others are compared with the first.
        output: folder for `comparison.md` and `reconstructions.png`; default: one below `ROOT/compare`.
        console: where the tables are shown.

    Raises:
        UserError: a name is unknown or ambiguous, or the folder cannot be written.
    """
    runs = compared_runs(root, names)
    folder = output or root / "compare" / _folder_name(runs)
    _make(folder)
    alarms, grids = warnings(runs), tables(runs)
    for alarm in alarms:
        console.print(Panel(Text(alarm, style="bold red"), border_style="red"))
    for grid in grids:
        console.print(grid.to_console())
    picture, note = draw_side_by_side(runs)
    _write(folder, _markdown(runs, alarms, grids, picture is not None, note), picture)
    files = [folder / "comparison.md", *([folder / "reconstructions.png"] if picture else [])]
    lines = [] if picture else [note]
    lines.append(f"Written: {', '.join(str(path) for path in files)}")
    study = runs[0].found.study.path
    lines.append(f"With all seeds and intervals: vae-sweep report {study.name} --root {study.parent}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _folder_name(runs: list[ComparedRun]) -> str:
    ids = [run.found.id[:_DIGITS] for run in runs]
    if len(set(ids)) == len(ids) <= _NAMED:
        return "-".join(ids)
    places = " ".join(str(run.found.directory.path) for run in runs)
    return f"{ids[0]}-and-{len(ids) - 1}-more-{hashlib.sha256(places.encode()).hexdigest()[:_DIGITS]}"


def _markdown(runs: list[ComparedRun], alarms: list[str], grids: list[Grid], has_picture: bool, note: str) -> str:
    title = "# " + " against ".join(run.found.name for run in runs)
    shown = f"## Reconstructions\n\n![{note}](reconstructions.png)\n\n{note}." if has_picture else note
    parts = [title, *(f"> **{alarm}**" for alarm in alarms), *(grid.to_markdown().rstrip() for grid in grids), shown]
    return "\n\n".join(parts) + "\n"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {folder}: cannot be made ({error.strerror})") from error


def _write(folder: Path, text: str, picture: bytes | None) -> None:
    try:
        write_atomic(folder / "comparison.md", text)
        if picture is not None:
            write_atomic(folder / "reconstructions.png", picture)
    except OSError as error:
        raise UserError(f"-o {folder}: cannot be written ({error.strerror})") from error
