"""The section `loss`."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section
from vae_core.schema.terms import PerceptualConfig, Phase, TermWeights

# Settings of one KL control, which do nothing under another.
_OF_CONTROL = {
    "free_bits": ("free_bits",),
    "capacity": ("capacity", "capacity_epochs", "capacity_gamma"),
    "pi": ("kl_target", "pi_kp", "pi_ki", "beta_min", "beta_max"),
}


class LossConfig(Section):
    """`total = reconstruction + beta * kl + further terms`, all in nats per image."""

    reconstruction: Literal["gaussian", "laplace", "bernoulli"] = Field(
        "gaussian", description="likelihood of the training objective: gaussian is MSE, laplace is L1"
    )
    sigma: float = Field(
        1.0,
        gt=0,
        description="pixel units (0 to 1); standard deviation of the Gaussian, b of the Laplace; unused by bernoulli; "
        "where sigma_mode is not fixed, the value of the first step",
    )
    sigma_mode: Literal["fixed", "learned", "optimal"] = Field(
        "fixed",
        description="learned: one scalar that the optimizer moves; optimal: the scale of maximum likelihood for the "
        "errors of the last optimizer steps",
    )
    terms: TermWeights = Field(default_factory=TermWeights)
    term_weights: Literal["fixed", "learned"] = Field(
        "fixed", description="learned: uncertainty weighting that starts from the weights in loss.terms"
    )
    perceptual: PerceptualConfig = Field(default_factory=PerceptualConfig)
    adversarial: float = Field(
        0.001,
        ge=0,
        description="vae_gan only: weight of -ln of the discriminator's probability that a reconstruction is real, "
        "times the image's values C * H * W; so a weight means the same at every image size, as those of terms do",
    )
    adversarial_start_epochs: int = Field(
        0, ge=0, description="vae_gan only: epochs before the discriminator starts to learn and to oppose the model"
    )
    real_label: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="vae_gan only: probability that the discriminator is to give real images; below 1 it never "
        "becomes sure of itself (one-sided label smoothing)",
    )
    beta: float = Field(1.0, ge=0, description="coefficient of the KL term; 1 is the ELBO")
    beta_schedule: str = Field("constant", description="a schedule registered in vae_core/schedules.py")
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs over which beta rises from 0 to beta (linear_exponential: to half of it)"
    )
    cycles: int = Field(4, ge=1, description="cyclical only: how often beta rises from 0 during the training")
    ramp_share: float = Field(0.5, gt=0, le=1, description="cyclical only: share of a cycle in which beta rises")
    phases: tuple[Phase, ...] = Field(
        (), strict=False, description="stretches of the training with a beta and weights of terms of their own"
    )
    kl_control: Literal["plain", "free_bits", "capacity", "pi"] = Field(
        "plain",
        description="plain: beta * KL; free_bits: beta * sum of max(free_bits, KL of a dimension); capacity: "
        "capacity_gamma * |KL - C|; pi: beta steers the KL to kl_target",
    )
    free_bits: float = Field(0.25, ge=0, description="free_bits only: nats per dimension that cost nothing")
    capacity: float = Field(25.0, ge=0, description="capacity only: final C, nats per image")
    capacity_epochs: float = Field(5.0, ge=0, description="capacity only: epochs over which C rises from 0")
    capacity_gamma: float = Field(100.0, gt=0, description="capacity only: nats of loss per nat of |KL - C|")
    kl_target: float = Field(10.0, gt=0, description="pi only: KL to keep, nats per image")
    pi_kp: float = Field(0.01, ge=0, description="pi only: largest proportional part of beta")
    pi_ki: float = Field(1e-4, gt=0, description="pi only: change of beta per optimizer step and nat of error")
    beta_min: float = Field(0.0, ge=0, description="pi only: least beta, and its first value")
    beta_max: float = Field(100.0, gt=0, description="pi only: greatest beta")

    @field_validator("beta_schedule")
    @classmethod
    def _registered_schedule(cls, schedule: str) -> str:
        from vae_core.schedules import SCHEDULES

        if schedule not in SCHEDULES:
            raise ValueError(f"no such schedule; {suggestion(schedule, SCHEDULES)}")
        return schedule

    @model_validator(mode="after")
    def _scale_to_move(self) -> "LossConfig":
        if self.sigma_mode != "fixed" and self.reconstruction == "bernoulli":
            raise ValueError(f"sigma_mode: {self.sigma_mode} needs a likelihood with a sigma: gaussian or laplace")
        return self

    @model_validator(mode="after")
    def _one_source_of_beta_and_weights(self) -> "LossConfig":
        sets_beta = any(phase.beta is not None for phase in self.phases)
        if sets_beta and self.beta_schedule != "constant":
            raise ValueError(f"phases set beta; leave beta_schedule at constant, not {self.beta_schedule}")
        if any(phase.terms for phase in self.phases) and self.term_weights == "learned":
            raise ValueError("phases set the weights of terms; leave term_weights at fixed, not learned")
        scheduled = sets_beta or self.beta_schedule != "constant" or self.beta != 1.0
        if self.kl_control in ("capacity", "pi") and scheduled:
            raise ValueError(
                f"kl_control: {self.kl_control} sets the coefficient of the KL itself; "
                "leave beta at 1, beta_schedule at constant and beta out of phases"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_the_chosen_control(self) -> "LossConfig":
        if self.beta_min > self.beta_max:
            raise ValueError(f"beta_min must not be above beta_max, not {self.beta_min} and {self.beta_max}")
        for control, names in _OF_CONTROL.items():
            for name in names if control != self.kl_control else ():
                default, value = type(self).model_fields[name].default, getattr(self, name)
                if value != default:
                    raise ValueError(
                        f"{name}: {value} does nothing with kl_control: {self.kl_control}; "
                        f"set kl_control: {control}, or leave {name} at {default}"
                    )
        return self

    def term_weights_in(self, phase: Phase | None) -> dict[str, float]:
        """Return the weight of every term, active or not, in a phase (None: there are no phases)."""
        return self.terms.model_dump() | (phase.terms if phase else {})

    @property
    def active_terms(self) -> tuple[str, ...]:
        """Return the names of the terms that have a weight at some time, in their documented order."""
        stages = [self.term_weights_in(phase) for phase in self.phases or (None,)]
        return tuple(name for name in TermWeights.model_fields if any(stage[name] > 0 for stage in stages))
