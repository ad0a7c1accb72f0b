"""The VAE and how it is built, tried without memory, and described."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_core.config import ModelConfig, RunConfig
from vae_core.data.batches import padded_size, padding_multiple
from vae_core.errors import UserError
from vae_core.models.blocks import BLOCKS
from vae_core.models.coders import Decoder, Encoder
from vae_core.models.initialise import initialise


class VAE(nn.Module):
    """A VAE with a Gaussian latent for images of any size that is a multiple of `stride`.

    Shapes: B images, C channels, H x W pixels (padded), M = `latent_dim`.
    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes".
    """

    def __init__(
        self, encoder: Encoder, decoder: Decoder, *, latent_dim: int, stride: int, logvar_bound: float
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.stride = stride
        self.logvar_bound = logvar_bound
        self.encoder = encoder
        self.to_mu = nn.Linear(encoder.features, latent_dim)
        self.to_logvar = nn.Linear(encoder.features, latent_dim)
        self.decoder = decoder

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), each `(B, M)` in float32 even under autocast.

        Args:
            images: `(B, C, H, W)` in [0, 1].

        The log variance (nats) is kept within +-`logvar_bound` by bound * tanh(x / bound), which leaves small
        values as they are and cuts no gradient off.
        """
        features = self.encoder(images)
        with _no_autocast(images.device.type):
            features = features.float()
            mu = self.to_mu(features)
            logvar = self.logvar_bound * torch.tanh(self.to_logvar(features) / self.logvar_bound)
        return mu, logvar

    def decode(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits `(B, C, H, W)` for `z (B, M)` and `size = (H, W)`; the image is their sigmoid."""
        logits: Tensor = self.decoder(z, size)
        return logits


def _no_autocast(device_type: str) -> AbstractContextManager[object]:
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)


def build_model(config: ModelConfig, channels: int, seed: int, device: str | torch.device) -> VAE:
    """Return the VAE of `config` with weights that depend on `seed` alone; touches no global RNG."""
    model = on_meta(config, channels).to_empty(device=device)
    initialise(model, seed)
    if torch.device(device).type == "cpu":  # a quarter faster here; on CUDA, GroupNorm would convert it back
        model = model.to(memory_format=torch.channels_last)
    return model


def on_meta(config: ModelConfig, channels: int) -> VAE:
    """Return the model on the meta device: shapes without memory."""

    def make_block(before: int, after: int, stride: int) -> nn.Module:
        return BLOCKS[config.block](
            before,
            after,
            stride=stride,
            cbam=config.cbam,
            cbam_reduction=config.cbam_reduction,
            norm_groups=config.norm_groups,
        )

    with torch.device("meta"):
        encoder = Encoder(
            channels,
            widths=config.encoder_widths,
            stem_kernel=config.stem_kernel,
            stem_pool=config.stem_pool,
            spp_levels=config.spp_levels,
            norm_groups=config.norm_groups,
            make_block=make_block,
        )
        decoder = Decoder(
            config.latent_dim,
            channels,
            widths=config.decoder_widths,
            grid=config.decoder_grid,
            follows_input=config.decoder_size == "input",
            make_block=make_block,
        )
        return VAE(
            encoder,
            decoder,
            latent_dim=config.latent_dim,
            stride=config.stride,
            logvar_bound=config.logvar_bound,
        )


def check_on_meta(config: RunConfig, sizes: Iterable[tuple[int, int]]) -> int:
    """Build the model and run it once per padded size on the meta device, without memory or arithmetic.

    Args:
        config: the config to try.
        sizes: heights and widths (px) of the images, padded or not.

    Returns:
        The number of parameters.

    Raises:
        UserError: the model cannot be built, or cannot process one of the sizes.
    """
    channels = config.data.channels
    try:
        model = on_meta(config.model, channels)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"model: cannot be built with block {config.model.block!r}: {error}") from error
    multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
    for size in sorted({padded_size((int(height), int(width)), multiple) for height, width in sizes}):
        _try_size(model, config.model, channels, size)
    return sum(parameter.numel() for parameter in model.parameters())


def _try_size(model: VAE, config: ModelConfig, channels: int, size: tuple[int, int]) -> None:
    place, value = "model.encoder_widths", config.encoder_widths
    try:
        mu, _ = model.encode(torch.empty(1, channels, *size, device="meta"))
        place, value = "model.decoder_widths", config.decoder_widths
        shape = tuple(model.decode(mu, size).shape)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{place}: {list(value)} cannot process images padded to {size[0]} x {size[1]} px: {error}"
        ) from error
    if shape != (1, channels, *size):
        raise UserError(f"{place}: {list(value)} gives {shape} for images of shape {(1, channels, *size)}")


class _Sized(Protocol):
    def numel(self) -> int: ...


def summary(model: nn.Module) -> str:
    """Return a text table of the layers: name, type with its settings, parameters; and their sum."""
    rows = []
    for name, module in model.named_modules():
        parameters = list(module.parameters(recurse=False))
        if parameters or not list(module.children()):
            rows.append((name, repr(module), _count(parameters)))
    name_width = max(len(name) for name, _, _ in rows)
    layer_width = max(len(layer) for _, layer, _ in rows)
    lines = [f"{name:<{name_width}}  {layer:<{layer_width}}  {count:>12,}" for name, layer, count in rows]
    total = _count(model.parameters())
    return "\n".join([*lines, f"{'total':<{name_width}}  {'':<{layer_width}}  {total:>12,}"]) + "\n"


def _count(parameters: Iterable[_Sized]) -> int:
    return sum(parameter.numel() for parameter in parameters)
