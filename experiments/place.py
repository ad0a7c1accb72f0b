"""Where a worker runs and what it was promised there."""

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A worker's place; the defaults are those of a process on the coordinator's own machine.

    Attributes:
        job: id of the SLURM job around the worker, `123` or `123_4`.
        gpus: GPUs that the worker was promised, 0.5 where two workers share one.
        wait_s: s that the job waited for its node; None: unknown.
        ends_at: monotonic s at which the job's time is up; inf: never.
        data_cache: folder with the prepared data sets on this machine; None: the config's.
        stall_timeout_s: s without progress after which the worker gives up on itself; None: never.
    """

    job: str | None = None
    gpus: float = 0.0
    wait_s: float | None = None
    ends_at: float = math.inf
    data_cache: Path | None = None
    stall_timeout_s: float | None = None

    @property
    def words(self) -> str:
        """Return the place as the start of a sentence."""
        return f"job {self.job}" if self.job else "this process"
