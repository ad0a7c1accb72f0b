"""A model as a table of its layers."""

from typing import Any

import torch
from torch import Tensor, nn

from vae_core.config import ModelConfig
from vae_core.models.latent import LatentModel
from vae_core.models.vae import on_meta

_HEADER = ("layer", "type", "output", "parameters")


def summary(config: ModelConfig, channels: int, classes: int, size: tuple[int, int]) -> str:
    """Return a text table of the layers for one image: name, type with its settings, shape it gives, parameters.

    The model is built and run on torch's meta device: no memory, no arithmetic, no random numbers.

    Args:
        config: the section `model`.
        channels: C.
        classes: how many labels the data set has.
        size: padded (H, W) of the image, px.
    """
    model = on_meta(config, channels, classes)
    shapes = _output_shapes(model, channels, size)
    rows = [_HEADER]
    for name, module in model.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own or not list(module.children()):
            rows.append((name, repr(module), _words(shapes.get(name)), f"{own:,}"))
    total = sum(parameter.numel() for parameter in model.parameters())
    rows.append(("total", "", "", f"{total:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}  {own:>{widths[3]}}"
        for name, kind, shape, own in rows
    ]
    return "\n".join([f"input {_words((1, channels, *size))}, float32 in [0, 1]", "", *lines]) + "\n"


def _output_shapes(model: LatentModel, channels: int, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape that each layer gives on the way of one image to its latent and back."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(note(name))
    noise = torch.empty(1, model.noise_size(size), device="meta")
    latent = model.infer(torch.empty(1, channels, *size, device="meta"), noise, torch.zeros(1, dtype=torch.int64))
    model.decode(latent.z, size, latent.labels, latent.skips)
    return shapes


def _words(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else f"({', '.join(map(str, shape))})"
