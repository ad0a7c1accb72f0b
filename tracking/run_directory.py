"""Where everything of a study lies, and the one history of a run that its attempts add up to.

Nothing is shared between attempts. Attempt k+1 names in its first line the (attempt, n) it continues from,
and readers follow that chain, so that whatever a late worker writes into an earlier attempt is never read.
"""

from dataclasses import dataclass
from pathlib import Path

from tracking.journal import Line, read_journal


@dataclass(frozen=True)
class AttemptDirectory:
    """`attempts/<number>/`: one execution of a run, written by one worker."""

    path: Path

    @property
    def number(self) -> int:
        """The attempt's number, as in its folder's name."""
        return int(self.path.name)

    @property
    def journal_file(self) -> Path:
        """The journal of this execution."""
        return self.path / "journal.jsonl"

    @property
    def heartbeat_file(self) -> Path:
        """The two counters of `heartbeat.Heartbeat`."""
        return self.path / "heartbeat"

    @property
    def checkpoints(self) -> Path:
        """The folder of the kept checkpoints."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """The folder of figures, best weights and tables."""
        return self.path / "artifacts"

    def create(self) -> None:
        """Make the attempt's folders where they are missing."""
        for folder in (self.checkpoints, self.artifacts):
            folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class RunDirectory:
    """`runs/<run id>/`: one training, in one or more attempts."""

    path: Path

    @property
    def id(self) -> str:
        """The run id, as in the folder's name."""
        return self.path.name

    @property
    def config_file(self) -> Path:
        """The resolved config, as YAML."""
        return self.path / "config.yaml"

    @property
    def info_file(self) -> Path:
        """Trial, seed, cell, swept values and data fingerprint, as JSON."""
        return self.path / "run.json"

    @property
    def prune_file(self) -> Path:
        """While it exists, the run's worker ends the run at the next optimizer step."""
        return self.path / "prune"

    def create(self) -> None:
        """Make the run's folders where they are missing."""
        (self.path / "attempts").mkdir(parents=True, exist_ok=True)

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts that have a folder, ascending."""
        return sorted(int(name) for name in _folder_names(self.path / "attempts") if name.isdecimal())

    def attempt(self, number: int) -> AttemptDirectory:
        """Return the folder of an attempt, which need not exist."""
        return AttemptDirectory(self.path / "attempts" / str(number))


@dataclass(frozen=True)
class StudyDirectory:
    """`<root>/<study>/`: the sweep, its queue and its runs."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        """The sweep as resolved."""
        return self.path / "sweep.yaml"

    @property
    def provenance_file(self) -> Path:
        """Commit, packages and hardware, see `provenance.collect`."""
        return self.path / "provenance.json"

    @property
    def trials_file(self) -> Path:
        """The journal of every ask, report and tell of the coordinator."""
        return self.path / "trials.jsonl"

    @property
    def lock_file(self) -> Path:
        """Held by flock while a coordinator lives."""
        return self.path / "coordinator.lock"

    @property
    def sync_lock_file(self) -> Path:
        """Return the file that `vae-sweep sync` locks."""
        return self.path / "sync.lock"

    @property
    def queue(self) -> Path:
        """The folder of runs waiting for a worker."""
        return self.path / "queue"

    @property
    def claimed(self) -> Path:
        """The folder of runs that a worker has taken."""
        return self.path / "claimed"

    @property
    def done(self) -> Path:
        """The folder of attempts that their worker has ended."""
        return self.path / "done"

    @property
    def workers(self) -> Path:
        """The folder of the workers' logs."""
        return self.path / "workers"

    @property
    def inbox(self) -> Path:
        """The folder of what people ask of the coordinator."""
        return self.path / "inbox"

    @property
    def stop_file(self) -> Path:
        """While it exists, workers write a checkpoint and leave."""
        return self.path / "stop"

    @property
    def code(self) -> Path:
        """The snapshot of the code that jobs run."""
        return self.path / "code"

    @property
    def code_archive(self) -> Path:
        """The same in one file, for the views."""
        return self.path / "code.tar.gz"

    @property
    def slurm(self) -> Path:
        """The folder of sbatch scripts and job logs."""
        return self.path / "slurm"

    @property
    def report(self) -> Path:
        """The folder of the table and the overview picture."""
        return self.path / "report"

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    def create(self) -> None:
        """Make the study's folders where they are missing."""
        for folder in (self.queue, self.claimed, self.done, self.inbox, self.workers, self.report, self.runs):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self, run_id: str) -> RunDirectory:
        """Return the folder of a run, which need not exist."""
        return RunDirectory(self.runs / run_id)

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that have a folder, sorted."""
        return sorted(_folder_names(self.runs))


@dataclass(frozen=True)
class ChainLine:
    """A line of a run's history and the attempt that wrote it."""

    attempt: int
    line: Line


def read_chain(run: RunDirectory) -> list[ChainLine]:
    """Return the run's history, oldest line first.

    It starts from the newest attempt with a valid first line and follows `continues` backwards; of an earlier
    attempt only the lines up to the named `n` count.
    """
    for number in reversed(run.attempts()):
        if chain := read_chain_of(run, number):
            return chain
    return []


def read_chain_of(run: RunDirectory, attempt: int) -> list[ChainLine]:
    """Return the history that ends with the given attempt; empty where it has no valid first line."""
    parts: list[list[ChainLine]] = []
    number: int | None = attempt
    last_n: int | None = None
    while number is not None:
        lines = read_journal(run.attempt(number).journal_file)
        if not lines or lines[0].kind != "attempt":
            break
        parts.append([ChainLine(number, line) for line in lines if last_n is None or line.n <= last_n])
        number, last_n = _continues(lines[0], number)
    return [line for part in reversed(parts) for line in part]


def _continues(first: Line, attempt: int) -> tuple[int | None, int | None]:
    origin = first.fields.get("continues")
    if origin is None:
        return None, None
    if origin["attempt"] >= attempt:
        raise ValueError(f"attempt {attempt} says that it continues from attempt {origin['attempt']}, a later one")
    return int(origin["attempt"]), int(origin["n"])


def _folder_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.is_dir()]
