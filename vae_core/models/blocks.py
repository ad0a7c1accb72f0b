"""The registry of convolutional blocks, selectable as `model.block`; a new one is one decorated class here.

A block is built as `Block(in_channels, out_channels, stride=, cbam=, cbam_reduction=, norm_groups=, growth_rate=,
dense_layers=)` and maps `(B, in_channels, H, W)` to `(B, out_channels, H / stride, W / stride)`; each takes all of
these and uses what concerns it. Its parameters live in layers of torch.nn (convolution, linear, normalisation), so
that `initialise` knows their distributions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_core.models.parts import CBAM, group_norm, normalised_conv

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
        growth_rate: int,
        dense_layers: int,
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
        growth_rate: int,
        dense_layers: int,
    ) -> None:
        super().__init__()
        self.body = _two_convolutions(in_channels, out_channels, stride, norm_groups)
        self.attention = CBAM(out_channels, reduction=cbam_reduction) if cbam else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, out_channels, H / stride, W / stride)`."""
        return torch.relu(self.attention(self.body(features)))


@register_block("densenet")
class DenseBlock(nn.Module):
    """Layers that each see everything before them and add `growth_rate` channels, then a transition to the width.

    A layer is GroupNorm, ReLU, 3x3 convolution; the transition GroupNorm, ReLU, optional attention over the features
    of all layers, 1x1 convolution, average pooling by `stride`. No convolution has a bias: the next block's
    normalisation could take it away.
    Source: Huang et al. 2017, "Densely Connected Convolutional Networks", with GroupNorm for BatchNorm.
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
        growth_rate: int,
        dense_layers: int,
    ) -> None:
        super().__init__()
        widths = [in_channels + layer * growth_rate for layer in range(dense_layers + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(*_activation(width, norm_groups), nn.Conv2d(width, growth_rate, 3, padding=1, bias=False))
            for width in widths[:-1]
        )
        self.activation = nn.Sequential(*_activation(widths[-1], norm_groups))
        self.attention = CBAM(widths[-1], reduction=cbam_reduction) if cbam else nn.Identity()
        self.transition = nn.Conv2d(widths[-1], out_channels, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(B, out_channels, H / stride, W / stride)`."""
        for layer in self.layers:
            features = torch.cat([features, layer(features)], dim=1)
        narrowed: Tensor = self.pool(self.transition(self.attention(self.activation(features))))
        return narrowed


def _activation(channels: int, norm_groups: int) -> tuple[nn.Module, nn.Module]:
    return group_norm(norm_groups, channels), nn.ReLU()


def _two_convolutions(in_channels: int, out_channels: int, stride: int, norm_groups: int) -> nn.Sequential:
    return nn.Sequential(
        *normalised_conv(in_channels, out_channels, kernel_size=3, stride=stride, norm_groups=norm_groups),
        nn.ReLU(),
        *normalised_conv(out_channels, out_channels, kernel_size=3, norm_groups=norm_groups),
    )
