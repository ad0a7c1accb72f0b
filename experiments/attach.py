"""`vae-sweep attach`: the live table of a study whose coordinator runs elsewhere, from the files alone."""

import time
from pathlib import Path

from rich.console import Console

from experiments.display import Display
from experiments.history import HistoryTail, held_runs, read_info
from experiments.ledger import read_trials
from experiments.report import build
from experiments.run_watch import RunWatch
from experiments.study_files import existing_study, lock_holder
from experiments.submitting import coordinator_jobs
from tracking.run_directory import StudyDirectory

_DONE, _SOME_FAILED, _LEFT = 0, 1, 130
_POLL_S = 1.0
_COORDINATOR_PATIENCE_S = 60.0  # for one that was just started, or whose job was preempted


class Onlooker:
    """A study as somebody sees it who changes nothing."""

    def __init__(self, study: StudyDirectory) -> None:
        self.study = study
        self.runs: dict[str, RunWatch] = {}
        self.warning: str | None = None

    def look(self) -> None:
        """Read what is new."""
        for trial in read_trials(self.study):
            for identifier, _ in trial.runs:
                run = self.study.run(identifier)
                if identifier not in self.runs and run.info_file.exists():
                    self.runs[identifier] = RunWatch(run, read_info(run), len(self.runs), HistoryTail(run))
        held = held_runs(self.study)
        for identifier, watch in self.runs.items():
            watch.tail.poll()
            watch.running = identifier in held and not watch.history.interrupted

    def words(self) -> str | None:
        """Return who coordinates the study."""
        holder = lock_holder(self.study)
        return f"coordinator: {holder}" if holder else "no coordinator at the moment"

    @property
    def told(self) -> bool:
        """Return whether every trial so far has come to its end."""
        trials = read_trials(self.study)
        return bool(trials) and all(trial.state is not None for trial in trials)


def attach(root: Path, name: str, console: Console) -> int:
    """Show the study until its coordinator has ended, then its table; return the exit code.

    Raises:
        UserError: no such study.
    """
    study = existing_study(root, name)
    onlooker = Onlooker(study)
    try:
        with Display(console, workers=None) as display:
            _follow(onlooker, display)
    except KeyboardInterrupt:
        console.print(f"The study goes on. To come back: vae-sweep attach {name} --root {root}", markup=False)
        return _LEFT
    if not onlooker.told:
        console.print(f"No coordinator runs {name}; to go on: the same vae-sweep run", style="yellow", markup=False)
        return _LEFT
    console.print(build(study).to_console())
    console.print(f"Table and picture: {study.report}/table.md, {study.report}/overview.png", markup=False)
    return _SOME_FAILED if any(trial.state == "FAIL" for trial in read_trials(study)) else _DONE


def _follow(onlooker: Onlooker, display: Display) -> None:
    """Look until there has been no coordinator for a while, or there is none and nothing is left to do."""
    seen = time.monotonic()
    while True:
        onlooker.look()
        display.show(onlooker)
        if lock_holder(onlooker.study) is not None:
            seen = time.monotonic()
        elif onlooker.told or time.monotonic() - seen > _COORDINATOR_PATIENCE_S:
            if onlooker.told or not coordinator_jobs(onlooker.study):
                return
            seen = time.monotonic()  # it waits for its node
        time.sleep(_POLL_S)
