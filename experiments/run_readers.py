"""Reads the runs of a study; thousands of them in several processes, which is most of what a report over them takes.

`python -m experiments.run_readers STUDY_FOLDER` is such a process: the runs to read on its standard input, what they
have measured on its standard output, both pickled.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from experiments.machine import usable_cores
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

    A process that dies, of a lack of memory perhaps, is made up for by this one.

    Raises:
        UserError: a file of a run cannot be read.
    """
    count = min(usable_cores(), _MOST_PROCESSES, len(keys) // _RUNS_PER_PROCESS)
    if count < 2:
        return [read_run(study, *key) for key in keys]
    shares = [slice(place, None, count) for place in range(count)]
    found: dict[int, RunResult] = {}
    with ExitStack() as stack:
        readers = [stack.enter_context(_reading(study, keys[share])) for share in shares]
        for share, read in zip(shares, readers, strict=True):
            found |= zip(range(len(keys))[share], read(), strict=True)
    return [found[place] for place in range(len(keys))]


@contextmanager
def _reading(study: StudyDirectory, keys: list[RunKey]) -> Iterator[Callable[[], list[RunResult]]]:
    """Start a process that reads runs, and yield what waits for them; the process ends with the context."""
    with TemporaryFile() as request, TemporaryFile() as answer:  # unlike pipes, they never make a side wait
        pickle.dump([tuple(key) for key in keys], request)
        request.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.run_readers", str(study.path.absolute())],
            stdin=request,
            stdout=answer,
            stderr=subprocess.DEVNULL,  # what fails there is tried again here, where its reason is seen
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

        def read() -> list[RunResult]:
            if process.wait() != 0:
                return [read_run(study, *key) for key in keys]
            answer.seek(0)
            found: list[RunResult] = pickle.load(answer)  # noqa: S301 - our own process wrote it
            return found

        try:
            yield read
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Answer the request on standard input."""
    study = StudyDirectory(Path(sys.argv[1]))
    keys = pickle.load(sys.stdin.buffer)  # noqa: S301 - the process that started this one wrote it
    pickle.dump([read_run(study, *key) for key in keys], sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
