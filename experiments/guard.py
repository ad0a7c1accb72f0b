"""Runs a command that must not outlive whoever started it: `python -m experiments.guard COMMAND...`.

The starter holds the other end of standard input. When that closes, because the starter asks for it or because it was
killed, the command is asked to end, and then whatever it has started is killed with it.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 5.0  # for the command to end by itself


def main() -> None:
    """Run the command; at its end kill the whole process group, this process included."""
    os.setsid()  # a group of its own, out of reach of the terminal's Ctrl-C
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_starter, args=(command,), daemon=True).start()
    code = command.wait()
    sys.stderr.write(f"ended with code {code}\n")
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def _end_with_starter(command: "subprocess.Popen[bytes]") -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    command.terminate()
    try:
        command.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        command.kill()


if __name__ == "__main__":
    main()
