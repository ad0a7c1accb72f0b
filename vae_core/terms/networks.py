"""Frozen feature networks: torchvision's, from weights that are already on this machine, or a user's.

Letters: B images, C channels, H x W pixels, K features of h x w positions.
"""

import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vae_core.errors import UserError
from vae_core.perceptual import enlarged, missing_weights, weights_path
from vae_core.random_streams import generator

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: red, green, blue

Cut = Callable[[nn.Module], list[nn.Module]]  # a network -> its parts that end where features are taken


@dataclass(frozen=True)
class _Architecture:
    """A network of torchvision's: its constructor and file, the least px it needs, and where features are taken."""

    constructor: str
    file: str
    smallest_side: int
    cut: Cut


def _after(*layers: int) -> Cut:
    """Return the cut of `features` behind each of the numbered layers."""

    def cut(network: nn.Module) -> list[nn.Module]:
        children = list(network.get_submodule("features").children())
        starts = (0, *(layer + 1 for layer in layers[:-1]))
        return [nn.Sequential(*children[start : layer + 1]) for start, layer in zip(starts, layers, strict=True)]

    return cut


def _cut_resnet(network: nn.Module) -> list[nn.Module]:
    part = network.get_submodule
    stem = nn.Sequential(part("conv1"), part("bn1"), part("relu"))
    return [stem, nn.Sequential(part("maxpool"), part("layer1")), part("layer2"), part("layer3")]


_ARCHITECTURES = {
    # relu1_2, relu2_2, relu3_3, relu4_3
    "vgg16": _Architecture("vgg16", "vgg16-397923af.pth", 8, _after(3, 8, 15, 22)),
    # the stem's ReLU and the first three stages
    "resnet18": _Architecture("resnet18", "resnet18-f37072fd.pth", 1, _cut_resnet),
    # the seven layers of LPIPS
    "squeezenet": _Architecture("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 17, _after(1, 4, 7, 9, 10, 11, 12)),
}


def why_missing(network: str, path: str | None) -> str | None:
    """Return what is missing for a network's weights and how to get it, or None where the file exists."""
    if network == "checkpoint":
        file = Path(path or "").expanduser()
        return None if file.is_file() else f"no file at {file}; loss.perceptual.path must name a state dict"
    return missing_weights(_ARCHITECTURES[network].file)


class FeatureNetwork:
    """A frozen network in eval mode that turns images into the features of several of its layers.

    Args:
        network: vgg16, resnet18, squeezenet, or checkpoint: a state dict of one of these.
        weights: imagenet, or random: untrained, the same numbers in every run.
        path: file of the checkpoint.
        device: where it lives.

    Raises:
        UserError: the weights cannot be read.
    """

    def __init__(self, network: str, *, weights: str, path: str | None, device: torch.device | str) -> None:
        if weights == "random":
            self._assemble(network, None)
        else:
            self._load(network, Path(path or "").expanduser())
        self._parts.to(device).eval().requires_grad_(False)
        self._mean = torch.tensor(_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(_STD, device=device).view(3, 1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the features of each layer, `(B, K, h, w)`, for `images (B, C, H, W)` in [0, 1] with C = 1 or 3.

        Gray is repeated, the colours are normalised as ImageNet's, and an image too small for the network is
        enlarged by the smallest whole factor that suffices.
        """
        values = enlarged((images.expand(-1, 3, -1, -1) - self._mean) / self._std, self._smallest_side)
        found = []
        for part in self._parts:
            values = part(values)
            found.append(values)
        return found

    def _load(self, network: str, path: Path) -> None:
        file = path if network == "checkpoint" else weights_path(_ARCHITECTURES[network].file)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self._assemble(_recognised(state) if network == "checkpoint" else network, state)
        except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(f"{file}: cannot be read as weights of {network} ({error}); give another file") from error

    def _assemble(self, network: str, state: Mapping[str, Tensor] | None) -> None:
        architecture = _ARCHITECTURES[network]
        whole = _on_meta(network)
        self._smallest_side = architecture.smallest_side
        self._parts = nn.ModuleList(architecture.cut(whole))
        used = dict(_used(whole, self._parts))
        weights = (
            _random_state(network, used) if state is None else {name: state[name].to(used[name].dtype) for name in used}
        )
        whole.load_state_dict(weights, strict=False, assign=True)


def _on_meta(network: str) -> nn.Module:
    from torchvision import models  # takes seconds, which only those who compare features should pay

    with torch.device("meta"):  # no global RNG draws weights which are then replaced
        whole: nn.Module = getattr(models, _ARCHITECTURES[network].constructor)(weights=None)
    return whole


def _used(whole: nn.Module, parts: nn.ModuleList) -> Iterator[tuple[str, Tensor]]:
    """Yield name (in `whole`) and tensor of every parameter and buffer that `parts` have."""
    kept = {id(tensor) for tensor in (*parts.parameters(), *parts.buffers())}
    for name, tensor in whole.state_dict(keep_vars=True).items():
        if id(tensor) in kept:
            yield name, tensor


def _recognised(state: Mapping[str, Tensor]) -> str:
    """Return the network whose names and shapes a state dict has.

    Raises:
        TypeError: none of them.
    """
    for network, architecture in _ARCHITECTURES.items():
        whole = _on_meta(network)
        used = dict(_used(whole, nn.ModuleList(architecture.cut(whole))))
        if all(name in state and state[name].shape == tensor.shape for name, tensor in used.items()):
            return network
    raise TypeError(f"no state dict of {', '.join(_ARCHITECTURES)} as torchvision names their layers")


def _random_state(network: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return filters after He et al. 2015, keyed by their names, and normalisations that change nothing."""
    state = {}
    for name, tensor in like.items():
        fan_in = math.prod(tensor.shape[1:])
        if tensor.dim() > 1:
            drawn = torch.randn(tensor.shape, generator=generator("feature network", network, name))
            state[name] = drawn * math.sqrt(2 / fan_in)
        else:
            is_scale = name.endswith(("weight", "running_var"))
            state[name] = torch.full(tensor.shape, float(is_scale), dtype=tensor.dtype)
    return state
