"""A worker process: claims queued runs of one study and trains them one after another, imports paid once.

Run as `python -m experiments.worker STUDY_FOLDER --name NAME`. It imports neither Optuna nor MLflow.
"""

import argparse
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from experiments.failures import DeviceBrokenError
from experiments.history import read_history
from experiments.place import Place
from slurm.host import NOT_AGAIN
from tracking.files import write_json
from tracking.heartbeat import process_identity
from tracking.queue import Claim, claim, claims, finish, renew
from tracking.run_directory import StudyDirectory
from vae_core.yaml_io import load_yaml

if TYPE_CHECKING:
    from experiments.training import Attempt

_POLL_S = 0.1
_LOOK_S = 1.0  # between two looks at what is asked of a worker in the middle of a run


class Worker:
    """Trains what the queue holds until it has been empty for `idle_timeout_s` or it is to leave.

    In a job it stays as long as another worker of the job has a run.

    Args:
        study: the study's folder.
        name: a name that no other worker, living or dead, has. What stands before its last `.` names the place: of the
            runs that an earlier worker in the same place left unfinished, this one goes on with first.
        idle_timeout_s: s without work after which it leaves.
        place: where it runs.
        max_runs: runs after which it leaves.
    """

    def __init__(
        self,
        study: StudyDirectory,
        name: str,
        idle_timeout_s: float,
        place: Place | None = None,
        max_runs: int | None = None,
    ) -> None:
        self._study = study
        self._name = name
        self._idle_timeout_s = idle_timeout_s
        self._place = place or Place()
        self._runs_left = math.inf if max_runs is None else max_runs
        self._owner = process_identity() | {"job": self._place.job}
        self._attempt: Attempt | None = None
        self._stopping = False
        self._longest_epoch_s = 0.0
        self._looked = time.monotonic()

    def request_stop(self) -> None:
        """Stop after the current optimizer step, with a checkpoint; safe in a signal handler."""
        self._stopping = True
        if self._attempt is not None:
            self._attempt.request_stop()

    def work(self) -> Iterator[None]:
        """Claim and train until there is nothing left to do, pausing after every event of the trainer.

        Raises:
            DeviceMissingError: a GPU was promised and there is none; found out before a run is claimed.
            DeviceBrokenError: the GPU failed; this process cannot use it any more.
        """
        if self._place.gpus:
            self._check_gpu()
        own = self._own_claims()
        idle_since = time.monotonic()
        while not self._is_to_leave():
            if claimed := next(own, None) or claim(self._study, self._name, self._owner):
                yield from self._train(claimed)
            elif time.monotonic() - idle_since < self._idle_timeout_s:
                time.sleep(_POLL_S)
                yield
                continue
            elif not self._others_hold_the_job():
                return
            idle_since = time.monotonic()

    def _check_gpu(self) -> None:
        from experiments.training import refuse_missing_gpu

        refuse_missing_gpu(self._place, load_yaml(self._study.sweep_file)["config"]["train"]["device"])

    def _others_hold_the_job(self) -> bool:
        """Return whether another worker of the same job has a run: while the job lasts, nobody takes this one's place.

        A claim counts only with the presence of its worker, which the job's host takes away from one that is lost.
        """
        if self._place.job is None:
            return False
        held = [one for one in claims(self._study) if one.owner and one.owner.get("job") == self._place.job]
        return any(presence_file(self._study, one.worker).exists() for one in held)

    def _own_claims(self) -> Iterator[Claim]:
        """Renew what an earlier execution of the same job left, each as the run's next attempt.

        One that it had ended, and died before it could say so, is over.
        """
        place, _, _ = self._name.rpartition(".")
        for left in claims(self._study) if place else []:
            if not left.worker.startswith(f"{place}."):
                continue
            if read_history(self._study.run(left.entry.run)).status is not None:
                finish(self._study, left)
            elif renewed := renew(self._study, left, self._name, self._owner):
                yield renewed
        for path in self._study.workers.glob(f"{place}.*") if place else []:
            if path.suffix in (".json", ".requeued") and path.stem != self._name:
                path.unlink(missing_ok=True)

    def _train(self, claimed: Claim) -> Generator[None, None, None]:
        if read_history(self._study.run(claimed.entry.run)).status == "done":  # by a worker that had been given up
            finish(self._study, claimed)
            return
        from experiments.training import Attempt  # the slow imports; signals are handled by now

        self._attempt = Attempt(self._study, claimed, self._place)
        if self._is_to_leave():  # the signal came before there was an attempt to tell
            self._attempt.request_stop()
        ended = yield from self._watched(self._attempt.execute(), claimed)
        self._longest_epoch_s = max(self._longest_epoch_s, self._attempt.longest_epoch_s)
        self._attempt = None
        if ended:
            finish(self._study, claimed)
            self._runs_left -= 1

    def _watched(self, events: Generator[Any, None, bool], claimed: Claim) -> Generator[None, None, bool]:
        """Pass on the events of an attempt, and stop it where that is asked for in the study's folder."""
        while True:
            try:
                next(events)
            except StopIteration as end:
                return bool(end.value)
            if time.monotonic() - self._looked > _LOOK_S:
                self._looked = time.monotonic()
                self._obey(claimed)
            yield

    def _obey(self, claimed: Claim) -> None:
        """Stop where the study is being stopped or the run was given to another worker; end a run that is pruned."""
        if self._study.stop_file.exists() or not claimed.path.exists():
            self.request_stop()
        elif self._attempt is not None and self._study.run(claimed.entry.run).prune_file.exists():
            self._attempt.request_stop()

    def _is_to_leave(self) -> bool:
        return self._stopping or self._runs_left <= 0 or self._time_is_up() or self._study.stop_file.exists()

    def _time_is_up(self) -> bool:
        """Return whether no epoch would fit any more; before its first one a worker always tries."""
        epoch_s = self._longest_epoch_s
        return epoch_s > 0 and self._place.ends_at - time.monotonic() < epoch_s


def presence_file(study: StudyDirectory, name: str) -> Path:
    """Return the file by which a worker that has not left is known to coordinators."""
    return study.workers / f"{name}.json"


def main() -> None:
    """Run one worker process."""
    arguments = _arguments()
    study = StudyDirectory(arguments.study)
    place = Place(
        job=arguments.job,
        gpus=arguments.gpus,
        wait_s=None if math.isnan(arguments.wait_s) else arguments.wait_s,
        ends_at=time.monotonic() + arguments.seconds_left,
        data_cache=Path(staged) if (staged := os.environ.get("VAE_SWEEP_STAGED_DATA")) else None,
        stall_timeout_s=arguments.stall_timeout_s,
    )
    worker = Worker(study, arguments.name, arguments.idle_timeout_s, place, arguments.max_runs)

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        worker.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, stop)
    presence = presence_file(study, arguments.name)
    write_json(presence, process_identity() | {"job": place.job})
    try:
        _work(worker)
    finally:
        if place.job is None:  # in a job, its host knows whether the worker will come back
            presence.unlink(missing_ok=True)


def _work(worker: Worker) -> None:
    import experiments.training  # noqa: F401 - the slow imports, before a run is claimed
    from vae_core.trainer import DeviceMissingError

    try:
        for _ in worker.work():
            pass
    except DeviceMissingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_AGAIN)
    except DeviceBrokenError as error:
        traceback.print_exception(error)  # where it happened; the journal has the reason alone
        sys.exit(NOT_AGAIN)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="train the queued runs of a study")
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument("--name", required=True, help="a name that no other worker of the study has had")
    parser.add_argument("--idle-timeout-s", type=float, default=20.0, help="leave after this long without work")
    parser.add_argument("--max-runs", type=int, help="leave after so many runs")
    parser.add_argument("--job", help="id of the SLURM job around this process")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs that were promised")
    parser.add_argument("--wait-s", type=float, default=math.nan, help="s that the job waited for its node")
    parser.add_argument("--seconds-left", type=float, default=math.inf, help="s until the job's time is up")
    parser.add_argument("--stall-timeout-s", type=float, help="give up after so many s without progress")
    return parser.parse_args()


if __name__ == "__main__":
    main()
