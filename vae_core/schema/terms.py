"""What the section `loss` nests: weights of further terms, their feature network, and phases."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section

Weight = Annotated[float, Field(ge=0)]


class TermWeights(Section):
    """Weight of each further term; 0 leaves it out. A term is its mean per pixel times the image's values C * H * W.

    So a weight means the same at every image size, and stands on the scale of the summed likelihood.
    """

    ssim: Weight = Field(0.0, description="weight of 1 - SSIM")
    ms_ssim: Weight = Field(
        0.0, description="weight of 1 - MS-SSIM, with as many scales as fit the smallest image, at least 2 (22 px)"
    )
    gradient: Weight = Field(0.0, description="weight of the absolute difference of edges, horizontal and vertical")
    perceptual: Weight = Field(0.0, description="weight of the distance between features of loss.perceptual.network")
    lpips: Weight = Field(0.0, description="weight of LPIPS with SqueezeNet")


class PerceptualConfig(Section):
    """The frozen network whose features the term `perceptual` compares."""

    network: Literal["squeezenet", "vgg16", "resnet18", "checkpoint"] = Field(
        "squeezenet", description="checkpoint: a state dict of one of the three others, recognised by its names"
    )
    path: str | None = Field(None, description="checkpoint only: the file, as torch.save writes a state dict")
    distance: Literal["l1", "mse"] = Field("l1", description="absolute or squared difference of features")
    weights: Literal["imagenet", "random"] = Field(
        "imagenet", description="random: an untrained network, the same one in every run"
    )

    @model_validator(mode="after")
    def _checkpoint_has_a_path(self) -> "PerceptualConfig":
        if (self.network == "checkpoint") != (self.path is not None):
            raise ValueError("path and network: checkpoint need one another; give both or neither")
        if self.network == "checkpoint" and self.weights == "random":
            raise ValueError("weights: random needs network: squeezenet, vgg16 or resnet18, not checkpoint")
        return self


class Phase(Section):
    """A stretch of the training with its own beta and weights of terms."""

    epochs: int = Field(ge=1, description="length of the phase; the last one lasts to the end of the training")
    beta: float | None = Field(None, ge=0, description="coefficient of the KL; default: loss.beta")
    terms: dict[str, Weight] = Field(
        default_factory=dict, description="weights by name of term; default of each: loss.terms"
    )

    @field_validator("terms")
    @classmethod
    def _known_terms(cls, terms: dict[str, float]) -> dict[str, float]:
        for name in terms:
            if name not in TermWeights.model_fields:
                raise ValueError(f"no such term {name!r}; {suggestion(name, TermWeights.model_fields)}")
        return terms
