"""What submitit runs in a job: hosts worker processes, passes signals on to them, and requeues the job.

submitit's own handlers are replaced: they ignore SIGTERM, and count every preemption of a short job as a timeout.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from uuid import uuid4

from slurm.commands import UnansweredError, ask

NOT_AGAIN = 75  # a worker's exit code for "this node cannot do it": it is not started again in this job
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

_POLL_S = 0.1
_MAX_RESTARTS = 2
_REPORTED = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True)
class JobHost:
    """Starts `slots` copies of a command and stays until all have left; called once per execution of a job.

    Told to stop (SIGUSR2 before the time limit or at a preemption, SIGTERM), it passes that on, waits for the
    checkpoints and has the job queued again, unless somebody has cancelled it.

    Attributes:
        command: its words may be `{python}` (this interpreter), `{name}` (of this worker in this execution), `{job}`,
            `{wait_s}` and `{seconds_left}` (until the signal before the time limit; inf where there is none).
        presence: folder in which a worker makes `<name>.json` when it starts. That is removed when the worker has left,
            and renamed to end in `.requeued` when it will come back with the job.
        slots: how many workers.
        workers_per_gpu: how many of them share one GPU.
        signal_delay_s: s between that signal and the time limit.
        inner_submission: whether the command submits jobs itself; SLURM's variables of this one are kept from it.
    """

    command: tuple[str, ...]
    presence: str | None = None
    slots: int = 1
    workers_per_gpu: int = 1
    signal_delay_s: int = 0
    inner_submission: bool = False

    def __call__(self) -> int:
        """Host the workers; return how many of them crashed for good, or could not work on this node."""
        return _Hosting(self, os.environ).run()


class _Hosting:
    """One execution of a job."""

    def __init__(self, host: JobHost, environment: Mapping[str, str]) -> None:
        self._host = host
        self._environment = environment
        self._job = job_of(environment)
        self._facts = _facts(self._job)
        self._stopping = False
        self._children: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._left: list[str] = []
        self._restarts = 0
        self._crashed = 0

    def run(self) -> int:
        for number in SIGNALS:
            signal.signal(number, self._stop)
        self._report("started")
        place = self._environment.get("SLURMD_NODENAME", "?")
        self._say(f"job {self._job} on {place}: code from {Path(__file__).resolve().parents[1]}")
        for slot in range(self._host.slots):
            self._start(slot)
        while self._children:
            time.sleep(_POLL_S)
            for slot in list(self._children):
                self._look_after(slot)
        if self._stopping and self._come_back():
            return self._crashed  # it has not ended: what it reported at its start stands
        self._report("crashed" if self._crashed else "left")
        return self._crashed

    def _report(self, state: str) -> None:
        """Say in a file beside the log how far this execution came, for whoever submitted the job."""
        if folder := self._environment.get("SUBMITIT_FOLDER"):
            restarts = int(self._environment.get("SLURM_RESTART_COUNT", "0"))
            outcome_file(Path(folder), self._job, restarts).write_text(state, encoding="utf-8")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        for _, child in list(self._children.values()):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def _start(self, slot: int) -> None:
        name = f"slurm-{self._job}-{slot}.{uuid4().hex[:6]}"
        words = {"{python}": sys.executable, "{name}": name, "{job}": self._job}
        words |= {"{seconds_left}": self._seconds_left(), "{wait_s}": self._wait_s()}
        command = [words.get(word, word) for word in self._host.command]
        environment = self._worker_environment(slot)
        gpus = environment.get("CUDA_VISIBLE_DEVICES", "none")
        self._say(f"worker {name} (CUDA_VISIBLE_DEVICES={gpus}): {shlex.join(command)}")
        self._children[slot] = name, subprocess.Popen(command, env=environment)
        if self._stopping:  # the signal came while the process was being made
            self._children[slot][1].send_signal(signal.SIGTERM)

    def _worker_environment(self, slot: int) -> dict[str, str]:
        environment = dict(self._environment)
        if self._host.inner_submission:
            return {name: value for name, value in environment.items() if _is_not_of_this_job(name)}
        granted = [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        if granted:
            environment["CUDA_VISIBLE_DEVICES"] = granted[slot // self._host.workers_per_gpu % len(granted)]
        return environment

    def _look_after(self, slot: int) -> None:
        """Start a worker that crashed once more; one that left by itself, or was told to, has left."""
        name, child = self._children[slot]
        code = child.poll()
        if code is None:
            return
        del self._children[slot]
        self._left.append(name)
        if self._stopping:
            return
        self._say(f"worker {name}: left with exit code {code}")
        self._forget(name)
        if code == 0:
            return
        if code == NOT_AGAIN or self._restarts >= _MAX_RESTARTS:
            self._crashed += 1
            return
        self._restarts += 1
        self._start(slot)

    def _presence(self, name: str) -> Path | None:
        return Path(self._host.presence, f"{name}.json") if self._host.presence is not None else None

    def _forget(self, name: str) -> None:
        if path := self._presence(name):
            for left in (path, path.with_suffix(".requeued")):
                left.unlink(missing_ok=True)

    def _come_back(self) -> bool:
        """Queue the job again unless it was cancelled; where SLURM itself requeues it, there is nothing to do."""
        facts = _facts(self._job)
        state = facts.get("JobState", "RUNNING")
        restarts = int(self._environment.get("SLURM_RESTART_COUNT", "0"))
        requeued = state in ("PENDING", "REQUEUED") or int(facts.get("Restarts", restarts)) > restarts
        comes_back = requeued or state == "RUNNING"
        if comes_back:
            self._announce()  # before the request: it ends this process
        if comes_back and not requeued:
            comes_back = self._requeue()
        self._say(f"job {self._job} was told to stop, is {state} and " + ("comes back" if comes_back else "ends here"))
        if not comes_back:
            for name in self._left:
                self._forget(name)
        return comes_back

    def _announce(self) -> None:
        """Say of the workers that they will come back with this job."""
        for name in self._left:
            if (path := self._presence(name)) and path.exists():
                path.rename(path.with_suffix(".requeued"))

    def _requeue(self) -> bool:
        try:
            ask("scontrol", "requeue", self._job)
        except UnansweredError as error:
            self._say(f"job {self._job} cannot be requeued ({error}); the coordinator submits another one")
            return False
        return True

    def _seconds_left(self) -> str:
        try:
            ends = datetime.fromisoformat(self._facts.get("EndTime", "Unknown"))
        except ValueError:
            return "inf"
        left = (ends - datetime.now()).total_seconds()
        return f"{left - self._host.signal_delay_s:.0f}"

    def _wait_s(self) -> str:
        try:
            submitted = datetime.fromisoformat(self._facts.get("SubmitTime", "Unknown"))
            started = datetime.fromisoformat(self._facts.get("StartTime", "Unknown"))
        except ValueError:
            return "nan"
        return f"{max(0.0, (started - submitted).total_seconds()):.0f}"

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{datetime.now().isoformat(timespec='milliseconds')} {text}\n")
        sys.stderr.flush()


def job_of(environment: Mapping[str, str]) -> str:
    """Return the id of the job around this process, `123` or `123_4`."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]


def outcome_file(folder: Path, job: str, restarts: int) -> Path:
    """Return where one execution of a job says `started`, then `left` or `crashed`; missing: its setup failed."""
    return folder / f"{job}.{restarts:04d}.outcome"


def _facts(job: str) -> dict[str, str]:
    """Return what the scheduler says of one job (JobState, EndTime, ...); empty where it does not answer."""
    try:
        return dict(_REPORTED.findall(ask("scontrol", "--oneliner", "show", "job", job)))
    except UnansweredError:
        return {}


def _is_not_of_this_job(variable: str) -> bool:
    return variable == "SLURM_CONF" or not variable.startswith(("SLURM_", "SRUN_", "SBATCH_", "SUBMITIT_"))
