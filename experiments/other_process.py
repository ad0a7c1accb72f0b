"""Calls a function in a process of its own, so that several cores can work at one report.

`python -m experiments.other_process` is such a process: function and arguments on its standard input, the result on its
standard output, both pickled. Unlike a fork it is safe beside threads, and it never runs its caller's script again.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, NamedTuple, ParamSpec, TypeVar

from experiments.own_modules import module_command, own_path

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_UNREADABLE = (EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError)  # of an answer cut short


@contextmanager
def called_elsewhere(
    function: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> Iterator[Callable[[], _Result]]:
    """Start `function(*args, **kwargs)` in another process, and yield what waits for its result.

    Where that process cannot be started, fails, is killed or is not understood, waiting for it calls the function here,
    which raises what there is to raise. The process ends with the context.

    Args:
        function: of a module; it and its arguments can be pickled, and it prints nothing.
    """
    with ExitStack() as stack:
        other = _started(stack, (function, args, kwargs))

        def result() -> _Result:
            if other is not None and other.process.wait() == 0:
                with suppress(*_UNREADABLE):
                    other.answer.seek(0)
                    found: _Result = pickle.load(other.answer)  # noqa: S301 - our own process wrote it
                    return found
            return function(*args, **kwargs)

        try:
            yield result
        finally:
            if other is not None:
                other.process.kill()
                other.process.wait()


class _Other(NamedTuple):
    process: "subprocess.Popen[bytes]"
    answer: IO[bytes]


def _started(stack: ExitStack, request: object) -> _Other | None:
    """Return a process that is at work; None where this user or machine has no room for it."""
    try:
        # files, which unlike pipes never make a side wait
        asked: IO[bytes] = stack.enter_context(TemporaryFile())  # noqa: SIM115 - the stack closes it
        answer: IO[bytes] = stack.enter_context(TemporaryFile())  # noqa: SIM115 - likewise
        pickle.dump(request, asked)
        asked.seek(0)
        process = subprocess.Popen(
            module_command("experiments.other_process"),
            stdin=asked,
            stdout=answer,
            stderr=subprocess.DEVNULL,  # what fails there is tried again here, where its reason is seen
            env=os.environ | own_path(),
        )
    except OSError:
        return None
    return _Other(process, answer)


def main() -> None:
    """Answer the request on standard input."""
    function, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 - the process that started this one wrote it
    pickle.dump(function(*args, **kwargs), sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
