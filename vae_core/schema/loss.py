"""The section `loss`."""

from typing import Literal

from pydantic import Field, field_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section


class LossConfig(Section):
    """`total = reconstruction + beta * kl`, both in nats per image."""

    reconstruction: Literal["gaussian", "laplace", "bernoulli"] = Field(
        "gaussian", description="likelihood of the training objective: gaussian is MSE, laplace is L1"
    )
    sigma: float = Field(
        1.0,
        gt=0,
        description="pixel units (0 to 1); standard deviation of the Gaussian, b of the Laplace; unused by bernoulli",
    )
    beta: float = Field(1.0, ge=0, description="coefficient of the KL term; 1 is the ELBO")
    beta_schedule: str = Field("constant", description="a schedule registered in vae_core/schedules.py")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs over which a linear schedule rises from 0 to beta")

    @field_validator("beta_schedule")
    @classmethod
    def _registered_schedule(cls, schedule: str) -> str:
        from vae_core.schedules import SCHEDULES

        if schedule not in SCHEDULES:
            raise ValueError(f"no such schedule; {suggestion(schedule, SCHEDULES)}")
        return schedule
