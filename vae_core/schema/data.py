"""The section `data`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vae_core.schema.augment import AugmentConfig
from vae_core.schema.section import EXECUTION_ONLY, Section

Fraction = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(Section):
    """Which images, how they are brought to size, and how they are split."""

    source: Literal["synthetic", "trees", "folder", "fashion-mnist", "mnist"] = Field(
        "synthetic", description="where the images come from"
    )
    path: str | None = Field(
        None,
        description="folder of trees or images, or of the idx files of (Fashion-)MNIST; not part of the identity: "
        "the content's fingerprint is",
        json_schema_extra=EXECUTION_ONLY,
    )
    labels: str | None = Field(
        None,
        description="CSV with columns name,label; default: the name of an image's subfolder",
        json_schema_extra=EXECUTION_ONLY,
    )
    count: int = Field(600, ge=10, description="synthetic source only: number of images")
    synthetic_seed: int = Field(0, ge=0, description="synthetic source only: seed of the generator")
    channels: Literal[1, 3] = Field(1, description="1 gray, 3 RGB")
    width: int = Field(32, ge=8, le=8192, description="px; every image is scaled to this width, keeping its aspect")
    max_height: int = Field(
        4096, ge=8, le=65536, description="px at that width; a taller image is cropped to its middle"
    )
    trim: Literal["none", "content"] = Field(
        "none", description="trees only: content crops below the last element, none keeps the whole canvas"
    )
    pad_multiple: int | None = Field(
        None,
        ge=1,
        description="px; heights and widths are padded up to a multiple of this (and of the model's stride); "
        "default: the stride alone",
    )
    limit: int | None = Field(
        None, ge=10, description="use at most this many images, chosen by a hash of their content"
    )
    split_seed: int = Field(0, ge=0, description="seed of the train/val/test split, shared by every run of a study")
    val_fraction: Fraction = Field(0.15, gt=0, description="share of the images used for validation")
    test_fraction: Fraction = Field(
        0.15, gt=0, description="share used for test; sources with a test set of their own keep that one"
    )
    labelled_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="cvae only: share of the training images of each class whose label training may see, at least one "
        "image; chosen by a hash of split_seed and content",
    )
    unlabelled: Literal["use", "drop"] = Field(
        "use",
        description="cvae only: training images without a visible label; use: their label is inferred, drop: they "
        "are left out",
    )
    near_duplicate_tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="images whose 8x8 thumbnails differ by at most this (mean absolute, of 1) and whose aspects are "
        "within 2% stay in one split",
    )
    max_skipped: int = Field(
        50,
        ge=0,
        description="unreadable or oversized images tolerated before the data set is refused; not part of the "
        "identity: the content's fingerprint is",
        json_schema_extra=EXECUTION_ONLY,
    )
    max_pixels: int = Field(
        50_000_000,
        ge=64,
        description="px; a larger image is skipped and counted; not part of the identity: the content's fingerprint is",
        json_schema_extra=EXECUTION_ONLY,
    )
    cache_dir: str | None = Field(
        None,
        description="where prepared data sets are kept; default: $VAE_SWEEP_CACHE or ~/.cache/vae-sweep",
        json_schema_extra=EXECUTION_ONLY,
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig)

    @model_validator(mode="after")
    def _leave_images_to_train_on(self) -> "DataConfig":
        if self.val_fraction + self.test_fraction >= 0.9:
            raise ValueError("val_fraction + test_fraction must leave at least a tenth of the images to train on")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_crop(self) -> "DataConfig":
        height = self.augment.crop_height
        if height is not None and height > self.max_height:
            raise ValueError(
                f"augment.crop_height must not exceed max_height, to whose middle images are cropped before, "
                f"not {height} and {self.max_height}"
            )
        return self
