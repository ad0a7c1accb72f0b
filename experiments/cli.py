"""The `vae-sweep` command. Heavy packages are imported inside the commands, so that `--help` answers at once."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.failures import OperationError
from vae_core.errors import UserError

_FAILED, _MISTAKE = 1, 2
_FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FILE_WIDTH = 120  # characters

app = typer.Typer(
    help="Sweeps of variational autoencoders: one YAML question in, trained runs and an ablation table out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Paint, synthesize, describe and preview data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Root = Annotated[Path, typer.Option("--root", help="Folder of the studies and of the MLflow and Optuna stores.")]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a config field (loss.sigma=0.1), a key of the sweep (seeds=5) or an axis "
        "(space.loss.beta=[1,2]); repeatable.",
    ),
]
StudyName = Annotated[str | None, typer.Option("--study", help="Name of the study; default: the file's name.")]
Launcher = Annotated[str | None, typer.Option("--launcher", help="local (worker processes) or inline (this process).")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Worker processes at once.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; create nothing.")]


def main() -> None:
    """Run the command line; a user's mistake ends with its messages and exit code 2."""
    try:
        app()
    except UserError as error:
        for message in error.messages:
            typer.echo(f"error: {message}", err=True)
        sys.exit(_MISTAKE)
    except OperationError as failure:
        typer.echo(f"error: {failure}", err=True)
        sys.exit(_FAILED)
    except OSError as error:
        if error.errno not in _FULL_OR_READ_ONLY:
            raise
        place = f" ({error.filename})" if error.filename else ""
        typer.echo(
            f"error: {error.strerror}{place}; every finished epoch is kept: make room, then run the same command again",
            err=True,
        )
        sys.exit(_FAILED)


@app.command()
def run(
    sweep: Annotated[str, typer.Argument(help="A sweep file, or the name of a shipped sweep.")],
    changes: Changes = [],  # noqa: B006 - typer reads the default and never changes it
    study: StudyName = None,
    workers: Workers = None,
    launcher: Launcher = None,
    root: Root = Path("runs"),
    dry_run: DryRun = False,
) -> None:
    """Run a sweep to its table; the same command again finishes what is missing."""
    _check_launcher(launcher)
    from experiments.sweep import load_sweep

    checked = load_sweep(sweep, changes, study)
    if dry_run:
        _print_plan(checked)
        return
    from experiments.runner import run_sweep

    raise typer.Exit(run_sweep(checked, root, _console(), launcher, workers))


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A config file, or the name of a shipped base config.")],
    changes: Changes = [],  # noqa: B006 - typer reads the default and never changes it
    study: StudyName = None,
    root: Root = Path("runs"),
) -> None:
    """Train one run in this process; a study of one cell and one seed."""
    from experiments.runner import run_sweep
    from experiments.sweep import single_run

    raise typer.Exit(run_sweep(single_run(config, changes, study), root, _console(), None, None))


@app.command()
def status(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    root: Root = Path("runs"),
) -> None:
    """Show where every run of a study is."""
    from experiments.status import show_status

    show_status(root, study, _console())


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    form: Annotated[str | None, typer.Option("--format", help="md or csv; default: a table for the terminal.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    root: Root = Path("runs"),
) -> None:
    """Print the ablation table of a study, finished or not."""
    if form not in (None, "md", "csv"):
        raise UserError(f"--format {form}: no such format; valid: md, csv")
    from experiments.report import build
    from experiments.study_files import existing_study

    table = build(existing_study(root, study))
    if form is None and output is None:
        _console().print(table.to_console())
        return
    text = table.to_csv() if (form or (output and output.suffix[1:])) == "csv" else table.to_markdown()
    if output is None:
        sys.stdout.write(text)
        return
    _write(output, text)
    typer.echo(f"written: {output}")


@app.command()
def rebuild(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    root: Root = Path("runs"),
) -> None:
    """Make a study's Optuna and MLflow pages anew from its folder."""
    from experiments.rebuild import rebuild as rebuild_views

    rebuild_views(root, study, _console())


@app.command()
def ui(
    root: Root = Path("runs"),
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of MLflow; default: 5000 or a free one.")
    ] = None,
    optuna_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the dashboard; default: 8080 or a free one.")
    ] = None,
) -> None:
    """Open the MLflow pages and the Optuna dashboard on loopback until Ctrl-C."""
    from experiments.web import serve

    serve(root, mlflow_port, optuna_port, _console())


@data_app.command("paint")
def data_paint(
    directory: Annotated[Path, typer.Argument(help="Folder of layout trees (.json).")],
    out: Annotated[Path, typer.Argument(help="Folder for the pictures and the summary.")],
    gamma: Annotated[float, typer.Option(help="Exponent of the _visu.png pictures.")] = 2.0,
) -> None:
    """Paint layout trees as NAME_linear.png (for training) and NAME_visu.png (for people)."""
    from experiments.data_commands import paint

    paint(directory, out, gamma, _console())


@data_app.command("synthesize")
def data_synthesize(
    out: Annotated[Path, typer.Argument(help="Folder for the trees, the pictures and labels.csv.")],
    changes: Changes = [],  # noqa: B006 - typer reads the default and never changes it
    base: Annotated[str, typer.Option(help="Base config whose data section counts.")] = "wireframes-tiny",
) -> None:
    """Write the synthetic pages as files."""
    from experiments.data_commands import synthesize

    synthesize(base, changes, out, _console())


@data_app.command("describe")
def data_describe(
    config: Annotated[str, typer.Argument(help="A config file, or the name of a shipped base config.")],
    changes: Changes = [],  # noqa: B006 - typer reads the default and never changes it
) -> None:
    """Prepare a data set and print its sizes, splits, labels and what was skipped."""
    from experiments.data_commands import describe

    describe(config, changes, _console())


@data_app.command("preview")
def data_preview(
    config: Annotated[str, typer.Argument(help="A config file, or the name of a shipped base config.")],
    changes: Changes = [],  # noqa: B006 - typer reads the default and never changes it
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write.")] = Path("augmentations.png"),
) -> None:
    """Draw what each augmentation of training images does, and the config's own together."""
    from experiments.data_commands import preview

    preview(config, changes, output, _console())


def _print_plan(sweep: "Sweep") -> None:  # type: ignore[name-defined]  # noqa: F821 - imported by the caller
    from experiments.datasets import Datasets
    from experiments.runner import check_plan, preparation_progress

    console = _console()
    with preparation_progress(console) as progress:
        plan = check_plan(sweep, Datasets(sweep.where, progress))
    typer.echo(f"{sweep.question}")
    for params in sweep.grid() if sweep.file.sampler == "grid" else []:
        typer.echo(f"  {sweep.cell_name(params)}")
    typer.echo(plan.words())
    typer.echo("dry run: nothing was created; leave --dry-run out to run it")


def _check_launcher(launcher: str | None) -> None:
    if launcher not in (None, "local", "inline"):
        raise UserError(f"--launcher {launcher}: no such launcher; valid: local, inline")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from error


def _console() -> Console:
    """Return a console as wide as the terminal; a file or a pipe gets lines long enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


if __name__ == "__main__":
    main()
