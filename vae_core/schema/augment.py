"""The subsection `data.augment`: how training images are varied."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vae_core.schema.section import Section

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class AugmentConfig(Section):
    """Random variations of training images, in the order of these fields; all off by default.

    Every image of every epoch draws its own. The last four corrupt what the encoder sees and leave the target
    clean (denoising, inpainting); all others change input and target together. Validation and test images are
    never augmented; only `crop_height` crops them too, to their middle.
    """

    crop_height: int | None = Field(
        None,
        ge=8,
        description="px; a taller training image is cropped to a random window of this height, a validation or test "
        "image to its middle; default: no crop but data.max_height, which always takes the middle",
    )
    resized_crop: Probability = Field(
        0.0, description="probability that a random window of the image is enlarged to the image's size"
    )
    resized_crop_min_area: Share = Field(
        0.5, description="resized_crop only: least share of the image's area; the window's aspect varies by up to 4/3"
    )
    flip_horizontal: Probability = Field(0.0, description="probability that left and right are exchanged")
    flip_vertical: Probability = Field(0.0, description="probability that top and bottom are exchanged")
    perspective: Probability = Field(0.0, description="probability that the corners move inwards")
    perspective_distortion: Share = Field(
        0.08, description="perspective only: most that a corner moves along a side, as a share of half the side"
    )
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="degrees; rotation about the middle, up to +-this")
    shift: float = Field(0.0, ge=0, le=0.5, description="share of the side; moved along each by up to +-this")
    lines: Probability = Field(0.0, description="probability that 1 to 3 lines are drawn, as borders of a page")
    text_blocks: Probability = Field(0.0, description="probability that 1 or 2 blocks of ragged text lines are drawn")
    auto_augment: Literal["imagenet", "cifar10", "svhn"] | None = Field(
        None, description="data set whose learned AutoAugment policy (torchvision) is applied; default: none"
    )
    brightness_jitter: float = Field(0.0, ge=0, le=1, description="values are multiplied by up to 1 +- this")
    contrast_jitter: float = Field(
        0.0, ge=0, le=1, description="distances from the mean gray are multiplied by up to 1 +- this"
    )
    gaussian_noise: float = Field(
        0.0, ge=0, le=1, description="standard deviation, of 1; input only, clipped to [0, 1]"
    )
    uniform_noise: float = Field(0.0, ge=0, le=1, description="largest change, of 1; input only, clipped to [0, 1]")
    erase: Probability = Field(0.0, description="probability that a rectangle is erased; input only")
    erase_min_area: Share = Field(0.02, description="erase only: least share of the image's area")
    erase_max_area: Share = Field(0.1, description="erase only: largest share of the image's area")
    erase_value: float = Field(0.0, ge=0, le=1, description="erase only: value of erased px, 0 black, 1 white")
    salt_pepper: Probability = Field(0.0, description="probability that px turn white (salt) or black; input only")
    salt_pepper_share: Share = Field(0.02, description="salt_pepper only: share of the px that turn, half to each")

    latent_mixup: float | None = Field(
        None,
        gt=0,
        description="codes are mixed with a partner's, shares drawn from Beta(this, this), and judged against both "
        "images; families ae, vae and hierarchical; default: no mixing",
    )

    @model_validator(mode="after")
    def _areas_are_in_order(self) -> "AugmentConfig":
        if self.erase_min_area > self.erase_max_area:
            raise ValueError(
                f"erase_min_area must not exceed erase_max_area, not {self.erase_min_area} and {self.erase_max_area}"
            )
        return self
