"""The keys of a sweep file, as one checked schema."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from slurm.settings import SlurmSettings

_METRICS = ("val/elbo", "val/ssim", "val/mse", "val/kl", "val/reconstruction", "val/objective", "val/lpips")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Range(_Section):
    """A continuous or integer axis for a sampler; integer where the field is."""

    low: float | int = Field(description="smallest value, included")
    high: float | int = Field(description="largest value, included")
    log: bool = Field(False, description="sample the logarithm uniformly")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, not {self.low}")
        return self


class Objective(_Section):
    """What the sampler optimises: a val metric of the selected checkpoint, mean over seeds."""

    metric: Literal[_METRICS] = Field("val/elbo", description="metric of the selected checkpoint")  # type: ignore[valid-type]
    direction: Literal["maximize", "minimize"] = Field("maximize", description="which way is better")


class LauncherConfig(_Section):
    """Where workers run and how long the coordinator is patient with them."""

    kind: Literal["local", "inline", "slurm"] = Field(
        "local", description="local: worker processes; inline: in this process; slurm: jobs of a cluster"
    )
    profile: str | None = Field(None, description="slurm only: named settings, of `profiles` or the user's own file")
    profiles: dict[str, SlurmSettings] = Field(default_factory=dict, description="slurm only: settings by name")
    slurm: SlurmSettings = Field(default_factory=SlurmSettings, description="slurm only: settings of this sweep's jobs")
    coordinator: Literal["foreground", "detached", "job"] = Field(
        "foreground", description="in this terminal; detached from it; or, slurm only, as a small job of its own"
    )
    workers: int | None = Field(None, ge=1, description="worker processes; default: CPU cores / train.threads")
    stall_timeout_s: float = Field(
        900.0,
        gt=0,
        description="s; a worker that is alive without a step for this long is killed and its run retried",
    )
    lease_s: float = Field(30.0, gt=0, description="s without a heartbeat after which a foreign worker is given up")
    max_retries: int = Field(5, ge=0, description="attempts lost in a row without a new checkpoint before a run fails")
    idle_timeout_s: float = Field(20.0, gt=0, description="s that a worker waits for new runs before it leaves")


def _axis_kind(axis: Any) -> str | None:
    if isinstance(axis, list):
        return "values"
    return "range" if isinstance(axis, dict | Range) else None


Axis = Annotated[
    Annotated[list[Any], Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(
        _axis_kind,
        custom_error_type="axis",
        custom_error_message="must be a list of values, or {low: ..., high: ..., log: ...} for sampler tpe",
    ),
]


class SweepFile(_Section):
    """The keys of a sweep file."""

    base: str = Field(description="name of a shipped base config, or the path of one beside the sweep file")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted path -> value, applied to the base")
    space: dict[str, Axis] = Field(
        default_factory=dict, description="dotted path -> list of values, or {low, high, log} for tpe"
    )
    cells: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="named cells for changes that belong together: name -> {dotted path: value}; crossed with space",
    )
    seeds: int | list[Annotated[int, Field(ge=0)]] = Field(
        1, description="number of runs per cell (seeds 0, 1, ...), or the seeds themselves"
    )
    sampler: Literal["grid", "tpe"] = Field("grid", description="grid: every cell; tpe: trials proposed by Optuna")
    trials: int | None = Field(None, ge=1, description="tpe only: number of trials")
    sampler_seed: int = Field(0, ge=0, description="tpe only: seed of the sampler")
    objective: Objective = Field(default_factory=Objective)
    baseline: dict[str, Any] | str = Field(
        default_factory=dict, description="swept values of the cell to compare with, or the name of a named cell"
    )
    launcher: LauncherConfig = Field(default_factory=LauncherConfig)

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_list(cls, seeds: Any) -> Any:
        if type(seeds) not in (int, list):
            raise ValueError("must be the number of seeds or a list of seeds")
        return seeds

    @field_validator("baseline", mode="before")
    @classmethod
    def _values_or_name(cls, baseline: Any) -> Any:
        if type(baseline) not in (dict, str):
            raise ValueError("must be a mapping of swept values, or the name of a named cell")
        return baseline

    @model_validator(mode="after")
    def _consistent(self) -> "SweepFile":
        ranges = [path for path, axis in self.space.items() if isinstance(axis, Range)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"space.{ranges[0]}: a grid needs a list of values; use sampler: tpe for a range")
        if self.sampler == "tpe" and self.trials is None:
            raise ValueError("trials: sampler tpe needs the number of trials")
        if self.sampler == "tpe" and self.cells:
            raise ValueError("cells: belongs to sampler grid; tpe proposes the values of space")
        if self.sampler == "tpe" and not self.space:
            raise ValueError("space: sampler tpe needs at least one axis")
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError("trials: belongs to sampler tpe; a grid runs every cell")
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError(f"seeds: must be at least 1; got {self.seeds}")
        if isinstance(self.seeds, list) and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError(f"seeds: must be different numbers, at least one; got {self.seeds}")
        return self
