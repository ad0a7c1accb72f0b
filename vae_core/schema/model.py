"""The section `model`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vae_core.errors import suggestion
from vae_core.schema.section import Section


class ModelConfig(Section):
    """Which family of models, of which networks; by default a convolutional VAE with a spatial pyramid."""

    family: str = Field(
        "vae",
        description="a family registered in vae_core/models/families.py: vae (Gaussian latent), "
        "vae_gan (a vae that a discriminator of its reconstructions opposes in training), ae (no noise and no "
        "prior, so its val/elbo is the log-likelihood alone and no bound), vq (codebook; needs a spatial bottleneck), "
        "hierarchical (groups of latent dimensions, each with a prior that follows from those above it), "
        "cvae (a vae that is told the image's label, and a classifier for images without one; its elbo is that of "
        "the image given its label)",
    )
    network: str = Field(
        "residual",
        description="encoder and decoder, registered in vae_core/models/networks.py: residual (blocks), conv (4x4 "
        "convolutions of stride 2), mlp (fully connected, for images of one size)",
    )
    bottleneck: Literal["vector", "spatial"] = Field(
        "vector",
        description="vector: one code per image; spatial: one per position of the encoder's last feature map, "
        "latent_dim counts its channels and KL is summed over positions, those over padding included",
    )
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, strict=False, description="px, height and width; mlp only, and needed there: the size of every image"
    )
    skips: bool = Field(
        False,
        description="residual only: the decoder also gets the encoder's feature maps, by 1x1 convolutions of those of "
        "its own scale. Beware: detail then goes around the latent, which may be ignored altogether; samples from the "
        "prior have no maps and lose that detail. The exchange cost, measured with each image's own maps, tells",
    )
    skip_warmup_epochs: float = Field(
        0.0, ge=0, description="epochs in which skips stay shut, so that the latent learns what it can first"
    )
    latent_dim: int = Field(16, ge=1, le=4096, description="number of latent dimensions")
    groups: int = Field(2, ge=2, le=64, description="hierarchical only: groups of latent dimensions, from the top down")
    classification: float = Field(
        50.0,
        ge=0,
        description="cvae only: weight of the classifier's cross-entropy, in nats of every image with a label; 0: no "
        "classifier, as images without a label need one",
    )
    codes: int = Field(512, ge=2, le=2**16, description="vq only: entries of the codebook")
    commitment: float = Field(
        0.25,
        ge=0,
        description="vq only: weight of half the squared distance from encodings to their codes, summed over the "
        "image: nats per image, as of a Gaussian of variance 1 / commitment",
    )
    code_decay: float = Field(
        0.99, ge=0, lt=1, description="vq only: decay per optimizer step of the averages that the codes are made of"
    )
    code_restart: float = Field(
        0.03,
        ge=0,
        lt=1,
        description="vq only: a code used less than this share of the mean use moves to an encoding of the current "
        "step; 0: never",
    )
    block: str = Field("resnet", description="residual only: a block registered in vae_core/models/blocks.py")
    growth_rate: int = Field(32, ge=1, description="densenet blocks only: channels that each layer adds")
    dense_layers: int = Field(4, ge=1, description="densenet blocks only: layers of a block")
    encoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 32, 64),
        strict=False,
        min_length=1,
        description="channels after the stem and after each block, which halve the size; conv: channels after each "
        "convolution, mlp: units of each hidden layer",
    )
    stem_kernel: Annotated[int, Field(ge=1, le=15)] = Field(
        7, description="px; residual only: size of the first convolution, odd"
    )
    stem_pool: bool = Field(
        False, description="residual only: a 3x3 max-pooling after the stem that halves the size once more"
    )
    decoder_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64, 32, 16),
        strict=False,
        min_length=1,
        description="channels of the decoder's grid and after each upsampling but the last; mlp: units of each "
        "hidden layer",
    )
    decoder_grid: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (4, 4), strict=False, description="rows and columns of the grid that a vector is projected to"
    )
    decoder_size: Literal["input", "fixed"] = Field(
        "input",
        description="input: the grid is stretched to the image's aspect before the first block, fixed: the decoder "
        "draws at its own size and its output is stretched; unused by mlp",
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
    discriminator_widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32, 64),
        strict=False,
        min_length=1,
        description="vae_gan only: channels after each of the discriminator's 4x4 convolutions, which halve the size",
    )
    logvar_bound: float = Field(10.0, gt=0, description="nats; |log variance| is softly kept below this")

    @field_validator("family")
    @classmethod
    def _registered_family(cls, family: str) -> str:
        from vae_core.models.families import FAMILIES  # needs torch, which reading a config otherwise does not

        return _registered("family", family, FAMILIES)

    @field_validator("network")
    @classmethod
    def _registered_network(cls, network: str) -> str:
        from vae_core.models.networks import NETWORKS

        return _registered("network", network, NETWORKS)

    @field_validator("block")
    @classmethod
    def _registered_block(cls, block: str) -> str:
        from vae_core.models.blocks import BLOCKS

        return _registered("block", block, BLOCKS)

    @field_validator("stem_kernel")
    @classmethod
    def _odd_kernel(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd, so that sizes halve exactly")
        return kernel

    @model_validator(mode="after")
    def _network_fits(self) -> "ModelConfig":
        if self.network == "mlp" and self.image_size is None:
            raise ValueError("network: mlp takes images of one size only; set image_size: [height, width]")
        if self.bottleneck == "spatial" and self.network == "mlp":
            raise ValueError("bottleneck: spatial needs feature maps, which network: mlp has none of; take vector")
        if self.skips and self.network != "residual":
            raise ValueError(f"skips: true needs network: residual, not {self.network}")
        if self.bottleneck == "spatial" and self.decoder_size == "fixed":
            raise ValueError("bottleneck: spatial has a grid that follows the image; it needs decoder_size: input")
        return self

    @model_validator(mode="after")
    def _family_fits(self) -> "ModelConfig":
        if self.family == "vq" and self.bottleneck != "spatial":
            raise ValueError("family: vq gives every position a code and needs bottleneck: spatial")
        if self.family == "hierarchical" and self.groups > self.latent_dim:
            raise ValueError(f"groups must not exceed latent_dim, not {self.groups} and {self.latent_dim}")
        return self

    @property
    def conditional(self) -> bool:
        """Return whether the model is told the labels of images."""
        return self.family == "cvae"

    @property
    def stride(self) -> int:
        """Return the px that one position of the encoder's last feature map stands for; 1 where there is no map."""
        if self.network == "mlp":
            return 1
        return 1 << (len(self.encoder_widths) + int(self.stem_pool and self.network == "residual"))


def _registered(kind: str, name: str, registry: Mapping[str, object]) -> str:
    if name not in registry:
        raise ValueError(f"no such {kind}; {suggestion(name, registry)}")
    return name
