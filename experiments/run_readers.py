"""Reads the runs of a study; thousands of them in several processes, which is most of what a report over them takes."""

from contextlib import ExitStack
from typing import NamedTuple

from experiments.machine import usable_cores
from experiments.other_process import called_elsewhere
from experiments.run_result import RunResult, read_run
from tracking.run_directory import StudyDirectory

_RUNS_PER_PROCESS = 1000  # half a second's worth; starting a process takes a fifth of a second
_MOST_PROCESSES = 8  # beyond, a shared file system is the limit


class RunKey(NamedTuple):
    """A run to read; `is_held`: a worker that may be alive has claimed it."""

    run: str
    seed: int
    is_held: bool


def read_runs(study: StudyDirectory, keys: list[RunKey]) -> list[RunResult]:
    """Return what each run has measured so far, in the order of `keys`.

    Raises:
        UserError: a file of a run cannot be read.
    """
    count = min(usable_cores(), _MOST_PROCESSES, len(keys) // _RUNS_PER_PROCESS)
    if count < 2:
        return read_share(study, keys)
    shares = [slice(place, None, count) for place in range(count)]
    found: dict[int, RunResult] = {}
    with ExitStack() as stack:
        readers = [stack.enter_context(called_elsewhere(read_share, study, keys[share])) for share in shares]
        for share, read in zip(shares, readers, strict=True):
            found |= zip(range(len(keys))[share], read(), strict=True)
    return [found[place] for place in range(len(keys))]


def read_share(study: StudyDirectory, keys: list[RunKey]) -> list[RunResult]:
    """Return what each run has measured so far, read by this process."""
    return [read_run(study, *key) for key in keys]
