"""Initial weights from keyed generators: PyTorch's own default distributions without its global RNG."""

import math

import torch
from torch import Tensor, nn

from vae_core.random_streams import generator


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Fill every parameter of `model` from a generator keyed by `seed` and the parameter's own name.

    Matrices and filters, and the biases beside them, are uniform in +-1/sqrt(fan in), as PyTorch's default
    `kaiming_uniform_(a=sqrt(5))` has it; normalisation layers start as the identity. The numbers depend
    on the parameter's name alone, so adding a layer elsewhere leaves them as they are, and they are drawn on
    the CPU, so every device starts from the same. A module with buffers fills them itself: it has a method
    `fill_buffers(generator)`.

    Raises:
        TypeError: a parameter or buffer that is neither; a layer should be one of torch.nn's.
    """
    for prefix, module in model.named_modules():
        _fill_buffers(module, prefix, seed)
        for name, parameter in module.named_parameters(recurse=False):
            _fill(parameter, f"{prefix}.{name}".lstrip("."), name, module, seed)


def _fill_buffers(module: nn.Module, prefix: str, seed: int) -> None:
    fill = getattr(module, "fill_buffers", None)
    if fill is not None:
        fill(generator("init", seed, f"{prefix}.buffers"))
        return
    for name, _ in module.named_buffers(recurse=False):
        raise TypeError(f"{prefix}.{name}: buffers are not initialised; use a layer without running statistics")


def _fill(parameter: Tensor, full_name: str, name: str, module: nn.Module, seed: int) -> None:
    weight = getattr(module, "weight", None)
    if name not in ("weight", "bias") or not isinstance(weight, Tensor):
        raise TypeError(f"{full_name}: only parameters named weight and bias of torch.nn layers are initialised")
    if weight.dim() >= 2:
        bound = 1 / math.sqrt(weight[0].numel())
        drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator("init", seed, full_name))
        parameter.copy_(drawn)
    else:
        parameter.fill_(1.0 if name == "weight" else 0.0)
