"""`trials.jsonl`: what the coordinator decided, and the truth from which the Optuna study can be made anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tracking.journal import JournalWriter, Line, read_journal
from tracking.run_directory import StudyDirectory

TrialEnd = Literal["COMPLETE", "FAIL", "PRUNED"]


@dataclass
class TrialRecord:
    """One trial: its swept values, its runs in the order of their seeds, and what was reported and told.

    Attributes:
        runs: (run id, seed) of every run.
        asked_ms, told_ms: milliseconds since 1970.
        reports: epoch -> value of the first seed's run.
        value: mean over seeds; None for a failed trial; of a pruned one its newest report.
    """

    number: int
    params: dict[str, Any]
    cell: str
    runs: list[tuple[str, int]]
    asked_ms: int
    reports: dict[int, float] = field(default_factory=dict)
    state: TrialEnd | None = None
    value: float | None = None
    told_ms: int | None = None


class Ledger:
    """Reads and appends the trials of one study; there is one writer, the coordinator."""

    def __init__(self, study: StudyDirectory) -> None:
        self.trials: list[TrialRecord] = []
        self.retried: dict[str, int] = {}  # run id -> the attempt after which somebody asked for another try
        for line in read_journal(study.trials_file):
            self._apply(line)
        self._writer = JournalWriter(study.trials_file)

    def ask(self, params: Mapping[str, Any], cell: str, runs: list[tuple[str, int]]) -> TrialRecord:
        """Record the next trial and return it."""
        entries = [{"run": run, "seed": seed} for run, seed in runs]
        number = len(self.trials)
        self._apply(self._writer.append("ask", trial=number, params=dict(params), cell=cell, runs=entries))
        return self.trials[number]

    def report(self, trial: int, step: int, value: float) -> None:
        """Record an intermediate value; a step that has one keeps it."""
        if step not in self.trials[trial].reports:
            self._apply(self._writer.append("report", trial=trial, step=step, value=value))

    def tell(self, trial: int, state: TrialEnd, value: float | None) -> None:
        """Record the end of a trial; a second end is ignored."""
        if self.trials[trial].state is None:
            self._apply(self._writer.append("tell", trial=trial, state=state, value=value))

    def retry(self, run: str, attempt: int) -> None:
        """Record that the run gets another try after its attempt number `attempt`; its trials are open again."""
        self._apply(self._writer.append("retry", run=run, attempt=attempt))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _apply(self, line: Line) -> None:
        _apply(self.trials, line)
        if line.kind == "retry":
            self.retried[line.fields["run"]] = line.fields["attempt"]


def read_trials(study: StudyDirectory) -> list[TrialRecord]:
    """Return the trials recorded so far, without opening the file for writing."""
    trials: list[TrialRecord] = []
    for line in read_journal(study.trials_file):
        _apply(trials, line)
    return trials


def _apply(trials: list[TrialRecord], line: Line) -> None:
    fields = line.fields
    match line.kind:
        case "ask":
            runs = [(entry["run"], entry["seed"]) for entry in fields["runs"]]
            trials.append(TrialRecord(fields["trial"], fields["params"], fields["cell"], runs, line.time_ms))
        case "report":
            trials[fields["trial"]].reports[fields["step"]] = fields["value"]
        case "tell":
            trial = trials[fields["trial"]]
            trial.state, trial.value, trial.told_ms = fields["state"], fields["value"], line.time_ms
        case "retry":
            for trial in trials:
                if fields["run"] in dict(trial.runs):
                    trial.state = trial.value = trial.told_ms = None
