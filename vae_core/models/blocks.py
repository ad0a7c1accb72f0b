"""The registry of convolutional blocks, selectable as `model.block`; a new one is one decorated class here.

A block is built as `Block(in_channels, out_channels, stride=, cbam=, cbam_reduction=, norm_groups=)` and maps
`(B, in_channels, H, W)` to `(B, out_channels, H / stride, W / stride)`. Its parameters live in layers of
torch.nn (convolution, linear, normalisation), so that `initialise` knows their distributions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_core.models.parts import CBAM, normalised_conv

BLOCKS: dict[str, type[nn.Module]] = {}


def register_block(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Make a block selectable as `model.block: <name>`."""

    def register(block: type[nn.Module]) -> type[nn.Module]:
        BLOCKS[name] = block
        return block

    return register


@register_block("resnet")
class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions, optional attention, and the input added before the last ReLU.

    Source: He et al. 2016 (residual sum), with GroupNorm for BatchNorm and CBAM before the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        cbam: bool,
        cbam_reduction: int,
        norm_groups: int,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.body = _two_convolutions(in_channels, out_channels, stride, norm_groups)
        self.attention = CBAM(out_channels, reduction=cbam_reduction) if cbam else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = normalised_conv(in_channels, out_channels, kernel_size=1, norm_groups=norm_groups)

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, out_channels, H / stride, W / stride)`."""
        # Equal to a strided 1x1 convolution, whose backward pass writes out of bounds in some CPU builds of torch.
        kept = features if self.stride == 1 else features[:, :, :: self.stride, :: self.stride]
        return torch.relu(self.attention(self.body(features)) + self.shortcut(kept))


@register_block("plain")
class PlainBlock(nn.Module):
    """Two normalised 3x3 convolutions and optional attention; `resnet` without its residual sum."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        cbam: bool,
        cbam_reduction: int,
        norm_groups: int,
    ) -> None:
        super().__init__()
        self.body = _two_convolutions(in_channels, out_channels, stride, norm_groups)
        self.attention = CBAM(out_channels, reduction=cbam_reduction) if cbam else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, out_channels, H / stride, W / stride)`."""
        return torch.relu(self.attention(self.body(features)))


def _two_convolutions(in_channels: int, out_channels: int, stride: int, norm_groups: int) -> nn.Sequential:
    return nn.Sequential(
        *normalised_conv(in_channels, out_channels, kernel_size=3, stride=stride, norm_groups=norm_groups),
        nn.ReLU(),
        *normalised_conv(out_channels, out_channels, kernel_size=3, norm_groups=norm_groups),
    )
