"""The section `evaluate`."""

from typing import Literal

from pydantic import Field, model_validator

from vae_core.schema.section import Section


class EvaluateConfig(Section):
    """How models are measured; the same for every cell of a study."""

    likelihood: Literal["gaussian", "laplace", "bernoulli"] = Field(
        "gaussian",
        description="likelihood of val/elbo and test/elbo; gaussian and laplace fit one scale on training "
        "reconstructions",
    )
    every_epochs: int = Field(1, ge=1, description="epochs between evaluations; the last epoch always has one")
    scale_images: int = Field(256, ge=1, description="training images on which the likelihood's scale is fitted")
    lpips: Literal["auto", "off", "required"] = Field(
        "auto",
        description="auto measures LPIPS where the SqueezeNet weights are found and tags the run otherwise",
    )
    select: Literal["val/elbo", "val/ssim", "val/mse", "val/lpips", "val/objective"] = Field(
        "val/elbo", description="metric that chooses the checkpoint whose test metrics are reported"
    )

    @model_validator(mode="after")
    def _selected_metric_is_measured(self) -> "EvaluateConfig":
        if self.select == "val/lpips" and self.lpips != "required":
            raise ValueError("select: val/lpips needs lpips: required, so that every run has the metric")
        return self

    @property
    def higher_is_better(self) -> bool:
        """Return how the metric improves that `select` names."""
        return self.select in ("val/elbo", "val/ssim")
