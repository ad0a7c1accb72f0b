"""LPIPS with SqueezeNet, from weights that are already on this machine; nothing is downloaded.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""

import pickle
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.errors import UserError

_WEIGHTS = "squeezenet1_1-b8a52dc0.pth"
_LEAST_SQUARE = 1e-10  # keeps the length of features from 0
_SMALLEST_SIDE = 17  # px; below this SqueezeNet's last pooling has nothing left to pool


def lpips_available() -> str | None:
    """Return None where LPIPS can be measured, otherwise the reason why not and how to change that."""
    return missing_weights(_WEIGHTS)


def missing_weights(file: str) -> str | None:
    """Return None where torchvision's weights `file` is on this machine, otherwise where it belongs and its source."""
    path = weights_path(file)
    if path.is_file():
        return None
    network = {"squeezenet1_1": "SqueezeNet", "vgg16": "VGG16", "resnet18": "ResNet18"}[file.partition("-")[0]]
    return (
        f"{network} weights not found at {path}; put https://download.pytorch.org/models/{file} there, "
        "or set TORCH_HOME to a folder that has it under hub/checkpoints"
    )


def weights_path(file: str) -> Path:
    """Return where torchvision's weights `file` is looked for: TORCH_HOME (or ~/.cache/torch)/hub/checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def on_real_pixels(
    measure: Callable[[Tensor, Tensor], Tensor], reconstructions: Tensor, images: Tensor, sizes: Tensor
) -> Tensor:
    """Return `measure` of each image without its padding, `(B,)` float32.

    Args:
        measure: (reconstructions, images), `(b, C, h, w)` each, of one size -> `(b,)`.
        reconstructions: `(B, C, H, W)`.
        images: `(B, C, H, W)`.
        sizes: `(B, 2)` real heights and widths (px).
    """
    result = torch.empty(len(images), device=images.device)
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(sizes.tolist()):
        groups.setdefault((height, width), []).append(row)
    for (height, width), members in groups.items():
        rows = torch.tensor(members, device=images.device)
        result[rows] = measure(*(batch[rows, :, :height, :width].float() for batch in (reconstructions, images)))
    return result


def enlarged(images: Tensor, smallest_side: int) -> Tensor:
    """Return images whose sides are at least `smallest_side` px, by the smallest whole factor that suffices.

    Each pixel of `images (B, C, H, W)` becomes a square.
    """
    factor = -(-smallest_side // min(images.shape[-2:]))
    return F.interpolate(images, scale_factor=float(factor), mode="nearest") if factor > 1 else images


class Lpips:
    """The LPIPS distance of `lpips.LPIPS(net="squeeze")`, v0.1: 0 for equal images, larger is worse.

    Raises:
        UserError: the weights are missing or cannot be read.
    """

    def __init__(self, device: torch.device | str) -> None:
        reason = lpips_available()
        if reason is not None:
            raise UserError(f"evaluate.lpips: LPIPS cannot be measured: {reason}; or set evaluate.lpips to off")
        self._network: Any = _load(weights_path(_WEIGHTS)).to(device)  # of lpips, which has no types

    @torch.no_grad()
    def __call__(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the distance of each image, `(B,)` float32.

        Args:
            reconstructions: `(B, C, H, W)` in [0, 1], one or three channels (gray is repeated).
            images: `(B, C, H, W)` in [0, 1].
            sizes: `(B, 2)` real heights and widths (px). Padding is cut off before the network sees an image,
                and an image with a side under 17 px, too small for SqueezeNet, is enlarged by the smallest
                whole factor that suffices, each pixel becoming a square.
        """
        return self.distance(reconstructions, images, sizes)

    def distance(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the same with a gradient to the reconstructions, finite for blank images too."""
        return on_real_pixels(self._of_one_size, reconstructions, images, sizes)

    def _of_one_size(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self._directions(images)
        result = images.new_zeros(len(images))
        for mine, target, layer in zip(self._directions(reconstructions), targets, self._network.lins, strict=True):
            result = result + layer((mine - target).square()).mean((1, 2, 3))
        return result

    def _directions(self, images: Tensor) -> list[Tensor]:
        """Return each layer's features of `images (b, C, h, w)`, scaled to length 1 at every position."""
        values = enlarged(images.expand(-1, 3, -1, -1) * 2 - 1, _SMALLEST_SIDE)
        features: Iterable[Tensor] = self._network.net(self._network.scaling_layer(values))
        # inside the root, unlike in the lpips package, whose gradient at features of zero is not a number
        return [each * torch.rsqrt(each.square().sum(1, keepdim=True) + _LEAST_SQUARE) for each in features]


def _load(path: Path) -> nn.Module:
    """Return the network with ImageNet features from `path` and the linear weights that lpips ships.

    It is built on the meta device, so that no global RNG draws weights which are then replaced.
    """
    import lpips  # takes seconds, which only those who measure LPIPS should pay

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # lpips builds torchvision's network through its deprecated keyword
        network: nn.Module = lpips.LPIPS(net="squeeze", pretrained=False, pnet_rand=True, verbose=False)
    linear = torch.load(Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth", map_location="cpu", weights_only=True)
    try:
        features = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(_state(network, features, linear), assign=True)
    except (RuntimeError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be read as SqueezeNet 1.1 weights ({error}); fetch the file anew") from error
    return network.eval().requires_grad_(False)


def _state(network: nn.Module, features: dict[str, Tensor], linear: dict[str, Tensor]) -> dict[str, Tensor]:
    """Map torchvision's `features.<i>...` and lpips' `lin<k>...` to the names inside `network`."""
    state = {}
    for name, value in network.state_dict().items():
        head, *rest = name.split(".")
        if head == "net":  # net.slice<k>.<i>...
            state[name] = features[".".join(["features", *rest[1:]])].float()
        elif head == "lins":  # lins.<k>... is lin<k>... once more
            state[name] = linear[".".join([f"lin{rest[0]}", *rest[1:]])]
        else:
            state[name] = linear.get(name, value)  # the scaling layer's constants are not in the file
    return state
