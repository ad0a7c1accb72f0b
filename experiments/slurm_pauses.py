"""When to submit jobs again after SLURM refused some, or after they came to nothing."""

import time
from pathlib import Path

from experiments.launchers import LauncherError
from experiments.slurm_logs import newest_log
from tracking.run_directory import StudyDirectory

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0
_MAX_DOUBLINGS = 10
_MAX_FAILED = 3
_FRUITLESS_BEFORE_A_PAUSE = 3
_MAX_TRIALS = 7  # single jobs, over about four minutes
_LOG_TAIL_CHARACTERS = 2000


class Pause:
    """A pause that grows with every disappointment in a row.

    Attributes:
        times: how many there were.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: something worked."""
        self.times = 0
        self._why = ""
        self._until = float("-inf")

    def begin(self, why: str) -> None:
        """Pause, longer than the last time."""
        doubled = 2 ** min(self.times, _MAX_DOUBLINGS)
        self.times += 1
        self._why = why
        self._until = time.monotonic() + min(_FIRST_PAUSE_S * doubled, _LONGEST_PAUSE_S)

    @property
    def is_over(self) -> bool:
        """Whether nothing stands against another attempt."""
        return time.monotonic() >= self._until

    def words(self, then: str) -> str | None:
        """Return why there is a pause and for how long still, or what is done `then`; None: there is none."""
        if not self.times:
            return None
        left_s = self._until - time.monotonic()
        return f"{self._why}; " + (f"the next attempt is in {left_s:.0f} s" if left_s > 0 else then)


class FruitlessJobs:
    """Jobs that ended, or are held, before a worker of theirs had a run; counted until one comes to something.

    After a few of them jobs are submitted one at a time, with pauses between them.

    Args:
        study: the study's folder.
        name: the jobs' name.
    """

    def __init__(self, study: StudyDirectory, name: str) -> None:
        self.pause = Pause()
        self._study = study
        self._name = name
        self._jobs = self._failed = 0

    def reset(self) -> None:
        """Begin anew: a worker has a run, or a job found none left."""
        self._jobs = self._failed = 0
        self.pause.reset()

    def add(self, job: str, outcome: str | None, held: str | None, *, alone: bool) -> None:
        """Count a job.

        Args:
            job: its id.
            outcome: what its newest execution said of itself.
            held: why SLURM holds it; None: it has ended.
            alone: whether no other job is there that may still come to something.

        Raises:
            LauncherError: it was one too many.
        """
        log = newest_log(self._study, job)
        failed = held is None and (outcome == "crashed" or (outcome is None and log is not None))
        self._jobs += 1
        self._failed = self._failed + 1 if failed else 0
        if alone and self._failed >= _MAX_FAILED:
            raise LauncherError(
                f"{self._failed} jobs in a row failed; the last one, {_end(job, log, held)}{_tail(log)}"
            )
        why = f"{self._jobs} jobs in a row ended before a worker had a run; the last one, {_end(job, log, held)}"
        if alone and self.pause.times >= _MAX_TRIALS:
            raise LauncherError(f"{why}; {self._causes()}{_tail(log)}")
        if self._jobs >= _FRUITLESS_BEFORE_A_PAUSE and self.pause.is_over:
            self.pause.begin(why)

    def _causes(self) -> str:
        return (
            f"likely causes: nodes that cannot write to {self._study.slurm}, a prolog of the site's that fails, too "
            "little memory (launcher.slurm.mem) to start a worker, or somebody who cancels the jobs; sacct --name "
            f"{self._name} --format JobID,State,ExitCode,NodeList says more"
        )


def _end(job: str, log: Path | None, held: str | None) -> str:
    if held is not None:
        return f"{job}, is held ({held}): scontrol release {job}"
    return f"{job}, said ({log})" if log else f"{job}, left no log"


def _tail(log: Path | None) -> str:
    return f":\n{log.read_text(encoding='utf-8', errors='replace')[-_LOG_TAIL_CHARACTERS:]}" if log else ""
