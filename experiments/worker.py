"""A worker process: claims queued runs of one study and trains them one after another, imports paid once.

Run as `python -m experiments.worker STUDY_FOLDER --name NAME`. It imports neither Optuna nor MLflow.
"""

import argparse
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from experiments.training import Attempt
from tracking.files import write_json
from tracking.heartbeat import process_identity
from tracking.queue import claim, finish
from tracking.run_directory import StudyDirectory

_POLL_S = 0.2


class Worker:
    """Trains what the queue holds until it has been empty for `idle_timeout_s` or a stop is requested."""

    def __init__(self, study: StudyDirectory, name: str, idle_timeout_s: float) -> None:
        self._study = study
        self._name = name
        self._idle_timeout_s = idle_timeout_s
        self._attempt: Attempt | None = None
        self._stopping = False

    def request_stop(self) -> None:
        """Stop after the current optimizer step, with a checkpoint; safe in a signal handler."""
        self._stopping = True
        if self._attempt is not None:
            self._attempt.request_stop()

    def work(self) -> Iterator[None]:
        """Claim and train until there is nothing left to do, pausing after every event of the trainer."""
        owner = process_identity()
        idle_since = time.monotonic()
        while not self._stopping and time.monotonic() - idle_since < self._idle_timeout_s:
            claimed = claim(self._study, self._name, owner)
            if claimed is None:
                time.sleep(_POLL_S)
                yield
                continue
            self._attempt = Attempt(self._study, claimed)
            if self._stopping:  # the signal came before there was an attempt to tell
                self._attempt.request_stop()
            ended = yield from self._attempt.execute()
            if ended:
                finish(self._study, claimed)
            self._attempt = None
            idle_since = time.monotonic()


def presence_file(study: StudyDirectory, name: str) -> Path:
    """Return the file by which a living worker is known to coordinators."""
    return study.workers / f"{name}.json"


def main() -> None:
    """Run one worker process."""
    parser = argparse.ArgumentParser(description="train the queued runs of a study")
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--name", required=True, help="a name that no other worker of the study has")
    parser.add_argument("--idle-timeout-s", type=float, default=20.0, help="leave after this long without work")
    arguments = parser.parse_args()
    study = StudyDirectory(arguments.study)
    worker = Worker(study, arguments.name, arguments.idle_timeout_s)

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        worker.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, stop)
    presence = presence_file(study, arguments.name)
    write_json(presence, process_identity())
    try:
        for _ in worker.work():
            pass
    finally:
        presence.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
