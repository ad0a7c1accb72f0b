"""The registry of networks, selectable as `model.network`; a new one is one decorated function here."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vae_core.models.blocks import BLOCKS
from vae_core.models.coders import Decoder, Encoder, ImageDecoder, ImageEncoder, SkipJoins
from vae_core.models.small_coders import ConvDecoder, ConvEncoder, MlpDecoder, MlpEncoder
from vae_core.schema.model import ModelConfig


@dataclass(frozen=True)
class Network:
    """An encoder and the decoder that goes with it; families put a latent between them.

    Attributes:
        encoder: images to features.
        decoder: codes of latent_dim + classes channels to logits.
        classes: how many channels beside z tell the decoder the label.
    """

    encoder: ImageEncoder
    decoder: ImageDecoder
    classes: int = 0


NetworkBuilder = Callable[[ModelConfig, int, int], Network]  # (config, C, classes)
NETWORKS: dict[str, NetworkBuilder] = {}


def register_network(name: str) -> Callable[[NetworkBuilder], NetworkBuilder]:
    """Make a network selectable as `model.network: <name>`."""

    def register(builder: NetworkBuilder) -> NetworkBuilder:
        NETWORKS[name] = builder
        return builder

    return register


@register_network("residual")
def _residual(config: ModelConfig, channels: int, classes: int) -> Network:
    def make_block(before: int, after: int, stride: int) -> nn.Module:
        return BLOCKS[config.block](
            before,
            after,
            stride=stride,
            cbam=config.cbam,
            cbam_reduction=config.cbam_reduction,
            norm_groups=config.norm_groups,
            growth_rate=config.growth_rate,
            dense_layers=config.dense_layers,
        )

    encoder = Encoder(
        channels,
        widths=config.encoder_widths,
        stem_kernel=config.stem_kernel,
        stem_pool=config.stem_pool,
        spp_levels=config.spp_levels,
        norm_groups=config.norm_groups,
        make_block=make_block,
        spatial=config.bottleneck == "spatial",
        keep_maps=config.skips,
    )
    decoder = Decoder(
        config.latent_dim + classes,
        channels,
        widths=config.decoder_widths,
        grid=config.decoder_grid,
        follows_input=config.decoder_size == "input",
        make_block=make_block,
        spatial=config.bottleneck == "spatial",
        skips=_joins(config, encoder) if config.skips else None,
    )
    return Network(encoder, decoder, classes)


def _joins(config: ModelConfig, encoder: Encoder) -> SkipJoins:
    joins = SkipJoins(encoder.maps, config.decoder_widths, warmup_epochs=config.skip_warmup_epochs)
    if not joins.places:
        raise ValueError(
            f"skips: true joins no scale of encoder_widths {list(config.encoder_widths)} to one of decoder_widths "
            f"{list(config.decoder_widths)}; give both at least two"
        )
    return joins


@register_network("conv")
def _conv(config: ModelConfig, channels: int, classes: int) -> Network:
    spatial = config.bottleneck == "spatial"
    encoder = ConvEncoder(channels, widths=config.encoder_widths, spp_levels=config.spp_levels, spatial=spatial)
    decoder = ConvDecoder(
        config.latent_dim + classes,
        channels,
        widths=config.decoder_widths,
        grid=config.decoder_grid,
        follows_input=config.decoder_size == "input",
        spatial=spatial,
    )
    return Network(encoder, decoder, classes)


@register_network("mlp")
def _mlp(config: ModelConfig, channels: int, classes: int) -> Network:
    if config.image_size is None:
        raise ValueError("network: mlp needs image_size")
    encoder = MlpEncoder(channels, image_size=config.image_size, widths=config.encoder_widths)
    code = config.latent_dim + classes
    decoder = MlpDecoder(code, channels, image_size=config.image_size, widths=config.decoder_widths)
    return Network(encoder, decoder, classes)
