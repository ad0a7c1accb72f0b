"""The section `optim`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section


class OptimConfig(Section):
    """The optimizer, its learning rate, and the average of the weights."""

    algorithm: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer")
    lr: float = Field(1e-3, gt=0, description="learning rate; with one_cycle and warm-up its highest value")
    discriminator_lr: float | None = Field(
        None, gt=0, description="vae_gan only: lr of the discriminator's own optimizer, otherwise alike; default: lr"
    )
    objective_lr: float | None = Field(
        None,
        gt=0,
        description="learning rate of the objective's own scalars (learned sigma, learned weights of terms), which "
        "move by about this much per step and may have far to go; scheduled as lr is; default: lr",
    )
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only: momentum")
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), strict=False, description="adam and adamw only: decay of the running mean and square"
    )
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this global norm")
    lr_schedule: str = Field("constant", description="a schedule registered in vae_core/learning_rate.py")
    min_lr: float = Field(1e-5, ge=0, description="floor of plateau and cosine; one_cycle has its own")
    plateau_factor: float = Field(
        0.5, gt=0, lt=1, description="plateau multiplies lr by this when evaluate.select stops improving"
    )
    plateau_patience: int = Field(5, ge=1, description="evaluations without improvement before lr falls")
    restart_epochs: float | None = Field(
        None, gt=0, description="cosine only: length of the first cycle; default: the whole training, no restart"
    )
    restart_factor: float = Field(
        1.0, ge=1, description="cosine only: each cycle is this many times as long as the one before, 1.5 too"
    )
    rise_share: float = Field(0.3, gt=0, lt=1, description="one_cycle only: share of the training in which lr rises")
    warmup: Literal["linear", "exponential"] = Field(
        "linear", description="lr warm-up from 0 (linear) or from 1% (exponential), times the schedule"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of the lr warm-up")
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay per optimizer step of the weights' exponential average, which is then what is evaluated, "
        "selected and kept; default: the weights as they are",
    )

    @field_validator("lr_schedule")
    @classmethod
    def _registered_schedule(cls, schedule: str) -> str:
        from vae_core.learning_rate import LR_SCHEDULES

        if schedule not in LR_SCHEDULES:
            raise ValueError(f"no such schedule; {suggestion(schedule, LR_SCHEDULES)}")
        return schedule

    @model_validator(mode="after")
    def _floor_below_peak(self) -> "OptimConfig":
        if self.lr_schedule in ("plateau", "cosine") and self.min_lr > self.lr:
            raise ValueError(f"min_lr must not be above lr, not {self.min_lr} and {self.lr}")
        rate = self.discriminator_lr
        if self.lr_schedule in ("plateau", "cosine") and rate is not None and self.min_lr > rate:
            raise ValueError(f"min_lr must not be above discriminator_lr, not {self.min_lr} and {rate}")
        return self
