"""LPIPS with SqueezeNet, from weights that are already on this machine; nothing is downloaded.

Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
"""

import pickle
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.errors import UserError

_WEIGHTS = "squeezenet1_1-b8a52dc0.pth"
_SMALLEST_SIDE = 17  # px; below this SqueezeNet's last pooling has nothing left to pool


def lpips_available() -> str | None:
    """Return None where LPIPS can be measured, otherwise the reason why not and how to change that."""
    path = _weights_path()
    if path.is_file():
        return None
    return (
        f"SqueezeNet weights not found at {path}; put https://download.pytorch.org/models/{_WEIGHTS} there, "
        "or set TORCH_HOME to a folder that has it under hub/checkpoints"
    )


def _weights_path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS


class Lpips:
    """The LPIPS distance of `lpips.LPIPS(net="squeeze")`, v0.1: 0 for equal images, larger is worse."""

    def __init__(self, device: torch.device | str) -> None:
        reason = lpips_available()
        if reason is not None:
            raise UserError(f"evaluate.lpips: LPIPS cannot be measured: {reason}; or set evaluate.lpips to off")
        self._network = _load(_weights_path()).to(device)

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
        result = torch.empty(len(images), device=images.device)
        groups: dict[tuple[int, int], list[int]] = {}
        for row, (height, width) in enumerate(sizes.tolist()):
            groups.setdefault((height, width), []).append(row)
        for (height, width), members in groups.items():
            rows = torch.tensor(members, device=images.device)
            pair = [_prepared(batch[rows, :, :height, :width]) for batch in (reconstructions, images)]
            result[rows] = self._network(*pair).flatten()
        return result


def _prepared(images: Tensor) -> Tensor:
    """Return images as the network wants them: three channels in [-1, 1], no side under the smallest."""
    images = images.float().expand(-1, 3, -1, -1) * 2 - 1
    factor = -(-_SMALLEST_SIDE // min(images.shape[-2:]))
    return F.interpolate(images, scale_factor=float(factor), mode="nearest") if factor > 1 else images


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
