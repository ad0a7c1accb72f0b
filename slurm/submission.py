"""Submits job arrays through submitit, and shows the sbatch script without submitting it."""

import contextlib
import os
import re
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slurm.commands import UnansweredError, ask
from slurm.errors import SlurmError
from slurm.host import JobHost
from slurm.settings import SlurmSettings

if TYPE_CHECKING:
    import submitit

_MAX_ARRAY_SIZE = 1001  # SLURM's own default
_SCRATCH = '"${TMPDIR:-/tmp}/vae-sweep-$SLURM_JOB_ID"'
_JOB = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
_HOST_FILE = "host.pkl"  # one for all jobs of a submission
_SUBMITTED = re.compile(r"\bjob (\d+)")


class RefusedError(SlurmError):
    """sbatch did not say that it took the jobs, which need not mean that it did not.

    Attributes:
        accepted: ids of the jobs of the same submission that it took before.
    """

    def __init__(self, message: str, accepted: list[str]) -> None:
        super().__init__(message)
        self.accepted = accepted


@dataclass(frozen=True)
class Submission:
    """What is submitted, again and again while a sweep needs jobs.

    Attributes:
        name: of the jobs; the scheduler is asked for them by it.
        folder: where submitit keeps scripts and logs; one new folder in it per submission.
        host: what runs in each job.
        settings: what each job asks for.
        code: folder that holds the packages to run; None: those that are installed.
        threads: CPU threads of a worker.
        data: prepared data sets to copy to the node where `settings.stage_data` asks for it.
    """

    name: str
    folder: Path
    host: JobHost
    settings: SlurmSettings
    code: Path | None = None
    threads: int = 1
    data: list[Path] = field(default_factory=list)

    def submit(self, jobs: int) -> list[str]:
        """Submit `jobs` jobs in arrays that the site accepts, and return their ids.

        Where several arrays together exceed `array_parallelism`, each waits for all before it, even if somebody cancels
        one of them.

        Raises:
            RefusedError: sbatch refuses or hangs, or there is none.
        """
        ids: list[str] = []
        for size in _chunks(jobs, max_array_size()):
            try:
                ids += self._submit_array(size, ids if jobs > self.settings.array_parallelism else [])
            except SlurmError as error:
                raise RefusedError(str(error), ids) from error
        return ids

    def refusal(self) -> str | None:
        """Return why SLURM would refuse such a job, by its own `sbatch --test-only`; None: it would not."""
        try:
            ask("sbatch", "--test-only", text=self.script(1))
        except UnansweredError as error:
            return str(error)
        return None

    def script(self, jobs: int) -> str:
        """Return the sbatch script of an array of `jobs` jobs; needs no SLURM."""
        return self._script(self.folder / "NEW", jobs, [])

    def _script(self, folder: Path, jobs: int, after: list[str]) -> str:
        executor = self._executor(folder, after)
        if jobs > 1:
            executor.parameters["map_count"] = jobs
        return str(executor._make_submission_file_text(executor._submitit_command_str, "script"))

    def _submit_array(self, jobs: int, after: list[str]) -> list[str]:
        """Do what submitit's own does, but within a time limit.

        It names what a job runs by the id that sbatch prints; here the job can also do that itself, because sbatch may
        fail or hang after it has queued the job.
        """
        from submitit.core.utils import DelayedSubmission

        # a new folder each: job ids may repeat on a cluster set up anew, and would find what an old job left
        folder = self.folder / uuid.uuid4().hex[:8]
        try:
            folder.mkdir(parents=True, mode=0o700)  # setup lines may hold secrets
            delayed = DelayedSubmission(self.host)
            # preemptions are counted by the attempts of a run, never by submitit
            delayed.set_timeout(self.settings.time, max_num_timeout=10**6)
            delayed.dump(folder / _HOST_FILE)
            script = folder / "submission.sh"
            script.write_text(self._script(folder, jobs, after), encoding="utf-8")
            answer = ask("sbatch", str(script))
        except (UnansweredError, OSError) as error:
            raise SlurmError(f"{error}; the script is in {folder}") from error
        array = _SUBMITTED.search(answer)
        if array is None:
            raise SlurmError(f'sbatch: prints no job id but "{answer.strip()}"; the script is in {folder}')
        ids = [f"{array[1]}_{task}" for task in range(jobs)] if jobs > 1 else [array[1]]
        for job in ids:
            with contextlib.suppress(OSError):  # the job was quicker, or will do it
                (folder / f"{job}_submitted.pkl").symlink_to(_HOST_FILE)
        return ids

    def _executor(self, folder: Path, after: list[str]) -> "submitit.SlurmExecutor":
        import submitit

        class Executor(submitit.SlurmExecutor):
            """Can be made without SLURM, to show its script."""

            @classmethod
            def affinity(cls) -> int:
                return 2

        python = f"{_SCRATCH}/venv/bin/python" if self.settings.venv is not None else None
        executor = Executor(folder, python=python)
        executor.update_parameters(**self._parameters(folder, after))
        return executor

    def _parameters(self, folder: Path, after: list[str]) -> dict[str, object]:
        settings = self.settings
        direct: dict[str, object] = {
            "job_name": self.name,
            "time": settings.time,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": settings.cpus or self.host.slots * (self.threads + 1),
            "gpus_per_node": settings.gpus or None,
            "partition": settings.partition,
            "account": settings.account,
            "qos": settings.qos,
            "constraint": settings.constraint,
            "exclude": settings.exclude,
            "signal_delay_s": settings.signal_delay_s,
            "array_parallelism": settings.array_parallelism,
            "dependency": f"afterany:{':'.join(_arrays(after))}" if after else None,
            "wckey": None,  # submitit's own is refused by sites that check them
        }
        own = {name: value for name, value in settings.extra.items() if value is not False}
        further: dict[str, object] = {"requeue": True, **own}
        if settings.mem is not None:
            further["mem"] = settings.mem
        return {name: value for name, value in direct.items() if value is not None} | {
            "wckey": None,
            "setup": list(self._setup(folder)),
            "teardown": [f"rm -rf {_SCRATCH}"] if self._uses_scratch else None,
            "additional_parameters": further,
        }

    @property
    def _uses_scratch(self) -> bool:
        settings = self.settings
        return settings.stage_code or settings.stage_data or settings.venv is not None

    def _setup(self, folder: Path) -> Iterator[str]:
        settings = self.settings
        yield f'ln -s {_HOST_FILE} {shlex.quote(str(folder))}/"{_JOB}_submitted.pkl" 2> /dev/null || true'
        yield "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun no longer takes it from the job"
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            yield f"export {name}={self.threads}"
        for name, value in settings.environment.items():
            yield f"export {name}={shlex.quote(value)}"
        yield from settings.setup
        if self._uses_scratch:
            yield f"mkdir -p {_SCRATCH} || exit 1"
        yield from self._code_setup()
        if settings.stage_data and self.data:
            folders = " ".join(shlex.quote(str(path)) for path in self.data)
            yield f"mkdir -p {_SCRATCH}/data && cp -r {folders} {_SCRATCH}/data/ || exit 1"
            yield f"export VAE_SWEEP_STAGED_DATA={_SCRATCH}/data"

    def _code_setup(self) -> Iterator[str]:
        """Make the snapshot what Python imports, ahead of the folder of submission and of an installed package."""
        if self.code is None:
            return
        place = shlex.quote(str(self.code))
        if self.settings.stage_code or self.settings.venv is not None:  # pip writes into the folder it installs from
            yield f"mkdir -p {_SCRATCH}/code && cp -r {place}/. {_SCRATCH}/code/ || exit 1"
            place = f"{_SCRATCH}/code"
        if self.settings.venv is not None:
            options = " ".join(shlex.quote(word) for word in self.settings.venv)
            yield (
                f"python3 -m venv {_SCRATCH}/venv && {_SCRATCH}/venv/bin/python -m pip install --quiet "
                f"{options} {place} || exit 1"
            )
        yield f"export PYTHONSAFEPATH=1 PYTHONPATH={place}${{PYTHONPATH:+:$PYTHONPATH}}"


def max_array_size() -> int:
    """Return how many elements an array may have at this site; SLURM's default where it does not say."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    except UnansweredError:
        found = None
    return max(1, int(found[1])) if found else _MAX_ARRAY_SIZE


def cancel(jobs: list[str]) -> None:
    """Cancel jobs; those that have ended are no mistake.

    Raises:
        SlurmError: scancel does not work.
    """
    if not jobs:
        return
    try:
        ask("scancel", *jobs)
    except UnansweredError as error:
        if "Invalid job id" not in str(error):
            raise SlurmError(str(error)) from error


def cancel_named(name: str) -> None:
    """Cancel all of this user's jobs of one name.

    Raises:
        SlurmError: scancel does not work.
    """
    try:
        ask("scancel", "--name", name, "--user", str(os.getuid()))
    except UnansweredError as error:
        raise SlurmError(str(error)) from error


def _chunks(jobs: int, largest: int) -> list[int]:
    return [min(largest, jobs - start) for start in range(0, jobs, largest)]


def _arrays(jobs: list[str]) -> list[str]:
    return list(dict.fromkeys(job.partition("_")[0] for job in jobs))
