"""`vae-sweep logs`: where the logs of runs, workers and SLURM jobs lie, and what they end with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.naming import chosen_runs, labels
from experiments.slurm_logs import logs_of
from experiments.study_files import existing_study
from tracking.journal import read_journal
from tracking.run_directory import RunDirectory, StudyDirectory


@dataclass(frozen=True)
class AttemptLog:
    """Who executed an attempt of a run, where, and which files that wrote."""

    run: str
    attempt: int
    worker: str
    host: str
    job: str | None
    files: list[Path]


def show_logs(root: Path, name: str, words: list[str], lines: int, console: Console) -> None:
    """List the logs of the named runs (of all, where none is named) and print the ends of the newest attempt's.

    Raises:
        UserError: no such study or run.
    """
    study = existing_study(root, name)
    titles = labels(study)
    chosen = chosen_runs(study, words) if words else list(titles)
    table = Table(title=f"logs of {name}")
    for column in ("run", "cell", "attempt", "job", "node", "log"):
        table.add_column(column, overflow="fold")
    newest: dict[str, AttemptLog] = {}
    for run in chosen:
        for log in _attempts(study, study.run(run)):
            files = "\n".join(str(path) for path in log.files) or "not there (an inline worker has none)"
            table.add_row(run, titles[run], str(log.attempt), log.job or "-", log.host, files)
            newest[run] = log
    console.print(table)
    for path in dict.fromkeys(path for log in newest.values() for path in log.files) if words else []:
        _print_end(path, lines, console)
    if not words:
        console.print(f"The ends of a run's logs: vae-sweep logs {name} RUN --root {root}", markup=False)


def _attempts(study: StudyDirectory, run: RunDirectory) -> Iterator[AttemptLog]:
    for number in run.attempts():
        journal = read_journal(run.attempt(number).journal_file)
        if journal and journal[0].kind == "attempt":
            first = journal[0].fields
            job = first.get("job")
            files = logs_of(study, job) if job else [study.workers / f"{first['worker']}.log"]
            files = [path for path in files if path.exists()]
            yield AttemptLog(run.id, number, first["worker"], first["host"], job, files)


def _print_end(path: Path, lines: int, console: Console) -> None:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:] if lines else []
    if text:
        console.rule(str(path), style="dim")
        console.print("\n".join(text), markup=False, highlight=False, soft_wrap=True)
