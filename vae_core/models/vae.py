"""How a model is built, and tried without memory."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

from vae_core.config import ModelConfig, RunConfig
from vae_core.data.batches import padded_size, padding_multiple
from vae_core.errors import UserError
from vae_core.models.discriminator import Discriminator
from vae_core.models.families import FAMILIES
from vae_core.models.initialise import initialise
from vae_core.models.latent import LatentModel
from vae_core.models.networks import NETWORKS

_FEWEST_CLASSES = 2

Built = TypeVar("Built", bound=nn.Module)


def build_model(
    config: ModelConfig, channels: int, seed: int, device: str | torch.device, classes: int = 0
) -> LatentModel:
    """Return the model of `config` with weights that depend on `seed` alone; touches no global RNG.

    Args:
        config: the section `model`.
        channels: C.
        seed: of the weights.
        device: where the model is wanted.
        classes: how many labels the data set has; of no concern to models without conditioning.

    Raises:
        UserError: the model is conditioned on labels, and there are fewer than two.
    """
    return _with_weights(on_meta(config, channels, classes), seed, device)


def build_discriminator(config: ModelConfig, channels: int, seed: int, device: str | torch.device) -> Discriminator:
    """Return the discriminator that opposes the model of `config`, as `build_model` returns the model."""
    return _with_weights(_discriminator_on_meta(config, channels), seed, device)


def _discriminator_on_meta(config: ModelConfig, channels: int) -> Discriminator:
    with torch.device("meta"):
        return Discriminator(channels, widths=config.discriminator_widths)


def _with_weights(network: Built, seed: int, device: str | torch.device) -> Built:
    network = network.to_empty(device=device)
    initialise(network, seed)
    if torch.device(device).type == "cpu":  # a quarter faster here; on CUDA, GroupNorm would convert it back
        network = network.to(memory_format=torch.channels_last)
    return network


def on_meta(config: ModelConfig, channels: int, classes: int = 0) -> LatentModel:
    """Return the model on the meta device: shapes without memory; see `build_model`."""
    known = classes if config.conditional else 0
    if config.conditional and known < _FEWEST_CLASSES:
        raise UserError(
            f"model.family: {config.family} needs a data set with labels of at least {_FEWEST_CLASSES} classes, "
            f"not of {known}"
        )
    with torch.device("meta"):
        return FAMILIES[config.family](config, NETWORKS[config.network](config, channels, known))


def check_on_meta(config: RunConfig, sizes: Iterable[tuple[int, int]], classes: int = 0) -> int:
    """Build the model and run it once per padded size on the meta device, without memory or arithmetic.

    Args:
        config: the config to try.
        sizes: heights and widths (px) of the images, padded or not.
        classes: how many labels the data set has.

    Returns:
        The number of parameters.

    Raises:
        UserError: the model cannot be built, or cannot process one of the sizes.
    """
    channels = config.data.channels
    try:
        model = on_meta(config.model, channels, classes)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        part = "block" if config.model.network == "residual" else "network"
        raise UserError(f"model: cannot be built with {part} {getattr(config.model, part)!r}: {error}") from error
    multiple = padding_multiple(config.model.stride, config.data.pad_multiple)
    for size in sorted({padded_size((int(height), int(width)), multiple) for height, width in sizes}):
        _try_size(model, config.model, channels, size)
        if model.has_adversary:
            _try_discriminator(config.model, channels, size)
    return sum(parameter.numel() for parameter in model.parameters())


def _try_size(model: LatentModel, config: ModelConfig, channels: int, size: tuple[int, int]) -> None:
    place, value = "model.encoder_widths", config.encoder_widths
    try:
        noise = torch.empty(1, model.noise_size(size), device="meta")
        label = torch.zeros(1, dtype=torch.int64)
        latent = model.infer(torch.empty(1, channels, *size, device="meta"), noise, label)
        place, value = "model.decoder_widths", config.decoder_widths
        shape = tuple(model.decode(latent.z, size, latent.labels, latent.skips).shape)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{place}: {list(value)} cannot process images padded to {size[0]} x {size[1]} px: {error}"
        ) from error
    if shape != (1, channels, *size):
        raise UserError(f"{place}: {list(value)} gives {shape} for images of shape {(1, channels, *size)}")


def _try_discriminator(config: ModelConfig, channels: int, size: tuple[int, int]) -> None:
    images = torch.empty(1, channels, *size, device="meta")
    try:
        _discriminator_on_meta(config, channels)(images, images[:, :1])
    except RuntimeError as error:
        raise UserError(
            f"model.discriminator_widths: {list(config.discriminator_widths)} halves images padded to {size[0]} x "
            f"{size[1]} px too often: {error}"
        ) from error
