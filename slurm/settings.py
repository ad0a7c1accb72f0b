"""What a job asks of SLURM: one checked schema, from which sweep files, profiles and sbatch scripts are made."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d{1,2}){0,2})")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# set by the launcher itself, or by a field of this schema
_TAKEN = {
    "array": "array_parallelism",
    "job-name": "nothing: the launcher finds its jobs by their name",
    "output": "nothing: logs lie in the study's folder",
    "error": "nothing: logs lie in the study's folder",
    "open-mode": "nothing: the log of a requeued job goes on in the same file",
    "signal": "signal_delay_s",
    "requeue": "nothing: jobs requeue themselves",
    "no-requeue": "nothing: jobs requeue themselves",
    "dependency": "nothing: the launcher uses it to keep array_parallelism",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
    "mem": "mem",
    "nodes": "nothing: a job has one node",
    "ntasks": "workers_per_gpu",
    "ntasks-per-node": "workers_per_gpu",
    "parsable": "nothing: the launcher reads what sbatch prints",
    "test-only": "vae-sweep run --dry-run",
    "wait": "nothing: the launcher goes on once a job is queued",
}


def minutes(time: Any) -> Any:
    """Return SLURM's time as whole minutes, rounded up; anything that is no such time is returned as it is.

    A number is minutes; text is `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`, as sbatch reads it.
    """
    match = _TIME.fullmatch(time.strip()) if isinstance(time, str) else None
    if match is None:
        return time
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, minute, second = (*parts, 0, 0)[:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, minute, second = parts
    else:
        hours, minute, second = (0, *parts, 0)[:3]
    return 60 * hours + minute + (second > 0)


def _limit(time: Any) -> Any:
    limit = minutes(time)
    if type(limit) is not int:
        raise ValueError('must be minutes, "MM:SS", "HH:MM:SS" or "D-HH:MM:SS"')
    return limit


class SlurmSettings(BaseModel):
    """Options of the jobs; each is an option of sbatch unless its description says more."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    partition: str | None = Field(None, description="partition; default: the site's")
    account: str | None = Field(None, description="account to charge")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features a node must have, such as a100|h100")
    exclude: str | None = Field(None, description="nodes to avoid, such as old[01-17],sh00")
    time: Annotated[int, BeforeValidator(_limit)] = Field(
        240, ge=1, description='time limit of a job: minutes, "HH:MM:SS" or "D-HH:MM:SS"'
    )
    gpus: int = Field(1, ge=0, description="GPUs of a job; 0 for CPU jobs")
    cpus: int | None = Field(None, ge=1, description="CPU cores of a job; default: the workers' train.threads + 1 each")
    mem: str | None = Field(None, description="memory of a job, such as 16G; default: the site's")
    array_parallelism: int = Field(8, ge=1, description="most jobs of the sweep that run at once")
    runs_per_job: int | None = Field(
        None, ge=1, description="runs after which a job ends; default: as long as there are runs and time"
    )
    workers_per_gpu: int = Field(1, ge=1, description="worker processes that share a GPU (of a CPU job: in the job)")
    signal_delay_s: int = Field(
        120, ge=1, description="s before the time limit at which a job writes its checkpoints and requeues itself"
    )
    requeue_patience_s: float = Field(
        300.0, ge=0, description="s that a run waits for its own requeued job before another worker may go on with it"
    )
    poll_s: float = Field(5.0, gt=0, description="s between two questions to the scheduler")
    setup: list[str] = Field(default_factory=list, description="shell lines run in the job first, such as module load")
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="environment variables of the job, such as PYTORCH_CUDA_ALLOC_CONF: expandable_segments:True",
    )
    extra: dict[str, str | int | bool] = Field(
        default_factory=dict, description="further sbatch options by their long names, such as mail-type: END"
    )
    venv: list[str] | None = Field(
        None,
        description="build a virtual environment in the job: arguments of pip install besides the project itself, "
        "such as [--index-url, https://...]; [] for none",
    )
    coordinator_partition: str | None = Field(
        None, description="partition of a coordinator that is a job; default: that of the workers"
    )
    coordinator_time: Annotated[int, BeforeValidator(_limit)] = Field(
        1440, ge=1, description="time limit of a coordinator that is a job; it is queued again where that is not enough"
    )
    stage_code: bool = Field(False, description="copy the code snapshot to the node's $TMPDIR and run it from there")
    stage_data: bool = Field(False, description="copy the prepared data set to the node's $TMPDIR and read it there")

    @field_validator("extra")
    @classmethod
    def _free_options(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name in extra:
            if not _OPTION.fullmatch(name):
                raise ValueError(f"{name}: write sbatch's long name without dashes in front, such as mail-type")
            if name in _TAKEN:
                raise ValueError(f"{name}: is set elsewhere; use {_TAKEN[name]}")
        return extra

    @field_validator("environment")
    @classmethod
    def _variables(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} cannot name an environment variable")
        return environment

    @field_validator("setup")
    @classmethod
    def _one_line_each(cls, setup: list[str]) -> list[str]:
        for line in setup:
            if line.lstrip().startswith("#SBATCH"):
                raise ValueError(f"{line!r} comes too late to be read by sbatch; use extra")
        return setup

    @model_validator(mode="after")
    def _signal_within_time(self) -> "SlurmSettings":
        shortest_s = 60 * min(self.time, self.coordinator_time)
        if self.signal_delay_s >= shortest_s:  # the signal would come at the start, and nothing would ever be done
            raise ValueError(
                f"signal_delay_s: must be shorter than time and coordinator_time, {shortest_s} s; "
                f"got {self.signal_delay_s}"
            )
        return self

    @property
    def slots(self) -> int:
        """Return how many workers a job hosts."""
        return max(1, self.gpus) * self.workers_per_gpu
