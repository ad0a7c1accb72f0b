"""The section `model`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section


class ModelConfig(Section):
    """The VAE: convolutional encoder, spatial pyramid, Gaussian latent, upsampling decoder."""

    latent_dim: int = Field(16, ge=1, le=4096, description="number of latent dimensions")
    block: str = Field("resnet", description="a block registered in vae_core/models/blocks.py")
    encoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 32, 64),
        strict=False,
        min_length=1,
        description="channels after the stem and after each block; every block halves the size",
    )
    stem_kernel: Annotated[int, Field(ge=1, le=15)] = Field(7, description="px; size of the first convolution, odd")
    stem_pool: bool = Field(False, description="a 3x3 max-pooling after the stem that halves the size once more")
    decoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 32, 16),
        strict=False,
        min_length=1,
        description="channels of the decoder's grid and after each of its upsampling blocks",
    )
    decoder_grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (4, 4), strict=False, description="rows and columns of the grid that the latent is projected to"
    )
    decoder_size: Literal["input", "fixed"] = Field(
        "input",
        description="input: the grid is stretched to the image's aspect before the first block, fixed: the decoder "
        "draws at its own size and its output is stretched",
    )
    spp_levels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4),
        strict=False,
        min_length=1,
        description="rows (and columns) of each level of the spatial pyramid",
    )
    cbam: bool = Field(True, description="channel and spatial attention before each residual sum")
    cbam_reduction: int = Field(16, ge=1, description="channel attention's bottleneck divides the channels by this")
    norm_groups: int = Field(
        32, ge=1, description="groups of GroupNorm; lowered to the nearest divisor of a layer's channels"
    )
    logvar_bound: float = Field(10.0, gt=0, description="nats; |log variance| is softly kept below this")

    @field_validator("block")
    @classmethod
    def _registered_block(cls, block: str) -> str:
        from vae_core.models.blocks import BLOCKS  # needs torch, which reading a config otherwise does not

        if block not in BLOCKS:
            raise ValueError(f"no such block; {suggestion(block, BLOCKS)}")
        return block

    @field_validator("stem_kernel")
    @classmethod
    def _odd_kernel(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd, so that sizes halve exactly")
        return kernel

    @property
    def stride(self) -> int:
        """Return how many input pixels one pixel of the encoder's last feature map stands for."""
        return 1 << (len(self.encoder_widths) + int(self.stem_pool))
