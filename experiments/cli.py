"""The `vae-sweep` command. Heavy packages are imported inside the commands, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.failures import FULL_OR_READ_ONLY, OperationError
from vae_core.errors import UserError

_FAILED, _MISTAKE = 1, 2
_FILE_WIDTH = 120  # characters

app = typer.Typer(
    help="Sweeps of variational autoencoders: one YAML question in, trained runs and an ablation table out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Paint, synthesize, describe and preview data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
sandbox_app = typer.Typer(help="A real SLURM on this machine, to try sweeps of jobs on.", no_args_is_help=True)
app.add_typer(sandbox_app, name="sandbox")

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
Launcher = Annotated[
    str | None,
    typer.Option("--launcher", help="local (worker processes), inline (this process) or slurm (jobs of a cluster)."),
]
Profile = Annotated[str | None, typer.Option("--profile", help="slurm: named settings of the sweep or slurm.yaml.")]
CoordinatorPlace = Annotated[
    str | None,
    typer.Option("--coordinator", help="foreground, detached (from this terminal) or job (slurm: a job of its own)."),
]
AllowDirty = Annotated[bool, typer.Option("--allow-dirty", help="slurm: run code that is not committed and pushed.")]
Study = Annotated[str, typer.Argument(help="Name of the study.")]
_RUN_HELP = "Runs: ids or their beginnings, cells, or cells with a seed (`beta=4 seed=1`)."
Runs = Annotated[list[str], typer.Argument(help=_RUN_HELP)]
_ANY_RUN_HELP = "Runs of any study: ids or their beginnings, STUDY/CELL, or cells with a seed (`beta/beta=4 seed=1`)."
NamedRuns = Annotated[list[str], typer.Argument(help=_RUN_HELP)]
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
        if error.errno not in FULL_OR_READ_ONLY:
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
    profile: Profile = None,
    coordinator: CoordinatorPlace = None,
    allow_dirty: AllowDirty = False,
    root: Root = Path("runs"),
    dry_run: DryRun = False,
) -> None:
    """Run a sweep to its table; the same command again finishes what is missing."""
    _check_choice("--launcher", launcher, ("local", "inline", "slurm"))
    _check_choice("--coordinator", coordinator, ("foreground", "detached", "job"))
    from experiments.sweep import load_sweep

    named = {"profile": profile, "coordinator": coordinator, "kind": launcher}
    options = [f"launcher.{name}={value}" for name, value in named.items() if value is not None]
    checked = load_sweep(sweep, [*changes, *options], study).launched(None, workers)
    if dry_run:
        _print_plan(checked, root)
        return
    from experiments.runner import run_sweep

    raise typer.Exit(run_sweep(checked, root, _console(), allow_dirty=allow_dirty))


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

    raise typer.Exit(run_sweep(single_run(config, changes, study), root, _console()))


@app.command(hidden=True)
def coordinate(study: Study, root: Root = Path("runs")) -> None:
    """Go on with a study from its folder alone; what detached coordinators and coordinators in jobs run."""
    from experiments.runner import coordinate as go_on
    from experiments.study_files import existing_study

    go_on(existing_study(root.absolute(), study), _console())  # whatever became of it, it need not be started again


@app.command()
def attach(study: Study, root: Root = Path("runs")) -> None:
    """Watch a study whose coordinator runs elsewhere; Ctrl-C ends the watching alone."""
    from experiments.attach import attach as watch

    raise typer.Exit(watch(root.absolute(), study, _console()))


@app.command()
def stop(study: Study, root: Root = Path("runs")) -> None:
    """Stop a study: workers write checkpoints and leave, jobs are cancelled; `run` goes on later."""
    from experiments.asking import stop as ask_to_stop

    ask_to_stop(root.absolute(), study, _console())


@app.command()
def retry(study: Study, runs: Runs = [], root: Root = Path("runs")) -> None:  # noqa: B006 - never changed
    """Give failed or pruned runs another try, all failed ones where none is named."""
    from experiments.asking import retry as ask_to_retry

    ask_to_retry(root.absolute(), study, runs, _console())


@app.command()
def prune(study: Study, runs: NamedRuns, root: Root = Path("runs")) -> None:
    """End runs before their time, after a checkpoint."""
    from experiments.asking import prune as ask_to_prune

    ask_to_prune(root.absolute(), study, runs, _console())


@app.command()
def logs(
    study: Study,
    runs: Runs = [],  # noqa: B006 - never changed
    root: Root = Path("runs"),
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each log to print.")] = 20,
) -> None:
    """Find the logs of a study's runs, workers and SLURM jobs, and print the ends of the newest."""
    from experiments.log_files import show_logs

    show_logs(root.absolute(), study, runs, lines, _console())


@app.command()
def doctor(
    root: Root = Path("runs"),
    profile: Profile = None,
) -> None:
    """Check this machine, the run root and the site's SLURM, each with a verdict and a remedy."""
    from experiments.doctor import show_checks

    raise typer.Exit(show_checks(root, profile, _console()))


@sandbox_app.command("start")
def sandbox_start(
    nodes: Annotated[int, typer.Option(min=1, max=8, help="Nodes.")] = 2,
    gpus: Annotated[int, typer.Option(min=0, max=8, help="Fake GPUs of each node.")] = 2,
) -> None:
    """Start a SLURM of one's own on this machine, with fake GPUs; needs root and Debian's packages."""
    from experiments.sandbox_command import start

    start(_console(), nodes, gpus)


@sandbox_app.command("stop")
def sandbox_stop() -> None:
    """Cancel the sandbox's jobs and end its daemons."""
    from experiments.sandbox_command import stop as stop_sandbox

    stop_sandbox(_console())


@sandbox_app.command("status")
def sandbox_status() -> None:
    """Show the sandbox's daemons, nodes and jobs."""
    from experiments.sandbox_command import status as sandbox_state

    sandbox_state(_console())


@sandbox_app.command("env")
def sandbox_env() -> None:
    """Print the line that makes a shell use the sandbox: eval "$(vae-sweep sandbox env)"."""
    from experiments.sandbox_command import env

    env()


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
    studies: Annotated[list[str], typer.Argument(help="Names of the studies.")],
    metrics: Annotated[
        list[str],
        typer.Option("--metric", help="Key of a column (test/ssim, or ssim); repeatable. Default: those that matter."),
    ] = [],  # noqa: B006 - typer reads the default and never changes it
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Cell to compare with (or its values); default: the sweep's.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="md, html, latex, csv or json; default: a table for the terminal.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder for all formats and figures, or a file for one.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    root: Root = Path("runs"),
) -> None:
    """Print or write the ablation table of one or more studies, finished or not."""
    from experiments.report_command import show_report

    show_report(root, studies, metrics, baseline, form, output, _console(), open_page=open_page)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help=_ANY_RUN_HELP)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write to; default: one below ROOT/compare.")
    ] = None,
    root: Root = Path("runs"),
) -> None:
    """Set runs side by side: config, test metrics, verdicts, provenance, and reconstructions of the same images."""
    from experiments.compare import compare as set_side_by_side

    set_side_by_side(root, runs, output, _console())


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help=_ANY_RUN_HELP)],
    into: Annotated[
        Path | None, typer.Option("-o", "--into", help="Root of the new study; default: ROOT/reproductions.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Relative difference that still counts as rounding.")
    ] = 1e-5,
    code: Annotated[
        str,
        typer.Option("--code", help="here: this checkout's; snapshot: what the study's jobs ran; commit: the study's."),
    ] = "here",
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="PATH=VALUE", help="A field that changes no result, such as data.path."),
    ] = [],  # noqa: B006 - never changed
    root: Root = Path("runs"),
) -> None:
    """Train a run again from its config, code, data and seed, and compare every metric; exit code 1: they differ."""
    from experiments.reproduce import reproduce as train_again

    raise typer.Exit(train_again(root, run, into, changes, tolerance, code, _console()))


@app.command()
def rebuild(
    study: Annotated[str, typer.Argument(help="Name of the study.")],
    root: Root = Path("runs"),
) -> None:
    """Make a study's Optuna and MLflow pages anew from its folder."""
    from experiments.rebuild import rebuild as rebuild_views

    rebuild_views(root, study, _console())


@app.command()
def sync(
    studies: Annotated[list[str], typer.Argument(help="Names of studies; default: all of the root.")] = [],  # noqa: B006
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URI", help="Another MLflow: http://HOST:PORT, or postgresql://, sqlite:///FILE."),
    ] = None,
    root: Root = Path("runs"),
) -> None:
    """Send to MLflow what it lacks of studies, each value once: after an outage, or into another server."""
    from experiments.sync import sync as send_missing

    send_missing(root.absolute(), studies, to, _console())


@app.command()
def register(
    run: Annotated[str, typer.Argument(help=_ANY_RUN_HELP)],
    name: Annotated[str | None, typer.Option("--name", help="Register it in MLflow under this name.")] = None,
    root: Root = Path("runs"),
) -> None:
    """Make a run's selected weights an MLflow model for mlflow.pytorch.load_model; with --name, a registered one."""
    from experiments.register import register as register_model

    register_model(root.absolute(), run, name, _console())


@app.command()
def ui(
    root: Root = Path("runs"),
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of MLflow; default: 5000 or a free one.")
    ] = None,
    optuna_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the dashboard; default: 8080 or a free one.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all of this machine's. There is no password.")
    ] = "127.0.0.1",
    allowed_hosts: Annotated[
        list[str],
        typer.Option("--allowed-hosts", help="Another name by which browsers reach it, as of a proxy; repeatable."),
    ] = [],  # noqa: B006 - never changed
) -> None:
    """Open the MLflow pages and the Optuna dashboard until Ctrl-C; on loopback unless --host says otherwise."""
    from experiments.web import serve

    serve(root, mlflow_port, optuna_port, _console(), host, allowed_hosts)


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


def _print_plan(sweep: "Sweep", root: Path) -> None:  # type: ignore[name-defined]  # noqa: F821 - imported by the caller
    from experiments.datasets import Datasets
    from experiments.runner import check_plan, preparation_progress
    from experiments.stores import Stores

    console = _console()
    _ = Stores(root).tracking_uri  # refuses an address that is none
    with preparation_progress(console) as progress:
        datasets = Datasets(sweep.where, progress)
        plan = check_plan(sweep, datasets)
    typer.echo(f"{sweep.question}")
    for params in sweep.grid() if sweep.file.sampler == "grid" else []:
        typer.echo(f"  {sweep.cell_name(params)}")
    typer.echo(plan.words())
    if sweep.file.launcher.kind == "slurm":
        from experiments.submitting import refuse_impossible_jobs, script, slurm_answers
        from tracking.run_directory import StudyDirectory

        study = StudyDirectory(root.absolute() / sweep.name)
        if slurm_answers():
            refuse_impossible_jobs(sweep, study)
        else:
            typer.echo("no SLURM answers here: whether it would take these jobs is not checked")
        typer.echo(f"\n{script(sweep, study, datasets, plan.runs)}\n")
    typer.echo("dry run: nothing was created; leave --dry-run out to run it")


def _check_choice(option: str, value: str | None, valid: tuple[str, ...]) -> None:
    if value is not None and value not in valid:
        raise UserError(f"{option} {value}: no such {option.strip('-')}; valid: {', '.join(valid)}")


def _console() -> Console:
    """Return a console as wide as the terminal; a file or a pipe gets lines long enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


if __name__ == "__main__":
    main()
