"""Calls a function in a process of its own, so that several cores can work at one report.

`python -m experiments.other_process` is such a process: function and arguments on its standard input, the result on its
standard output, both pickled. Unlike a fork it is safe beside threads, and it never runs its caller's script again.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextmanager
def called_elsewhere(
    function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> Iterator[Callable[[], _Result]]:
    """Start `function(*args, **kwargs)` in another process, and yield what waits for its result.

    Where that process cannot be started, fails or is killed, waiting for it calls the function here, which raises what
    there is to raise. The process ends with the context.

    Args:
        function: of a module; it and its arguments can be pickled, and it prints nothing.
    """
    with TemporaryFile() as request, TemporaryFile() as answer:  # unlike pipes, they never make a side wait
        pickle.dump((function, args, kwargs), request)
        request.seek(0)
        process = _started(request, answer)

        def result() -> _Result:
            if process is None or process.wait() != 0:
                return function(*args, **kwargs)
            answer.seek(0)
            found: _Result = pickle.load(answer)  # noqa: S301 - our own process wrote it
            return found

        try:
            yield result
        finally:
            if process is not None:
                process.kill()
                process.wait()


def _started(request: IO[bytes], answer: IO[bytes]) -> "subprocess.Popen[bytes] | None":
    """Return the process, or None where this user or machine may start no more of them."""
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.other_process"],
            stdin=request,
            stdout=answer,
            stderr=subprocess.DEVNULL,  # what fails there is tried again here, where its reason is seen
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except OSError:
        return None


def main() -> None:
    """Answer the request on standard input."""
    function, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 - the process that started this one wrote it
    pickle.dump(function(*args, **kwargs), sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
