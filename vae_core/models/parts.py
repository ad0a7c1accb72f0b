"""Pieces that blocks, encoder and decoder share. Shapes: B images, C channels, H x W pixels, S levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Fewer hidden units than this and channel attention is often dead from the start: all its ReLUs at zero.
_FEWEST_HIDDEN = 4


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """Return a GroupNorm over `channels` with the largest number of groups up to `groups` that divides them.

    Source: Wu and He 2018, "Group Normalization". Statistics are per image, so batches of one work.
    """
    fitting = max(count for count in range(1, min(groups, channels) + 1) if channels % count == 0)
    return nn.GroupNorm(fitting, channels)


def normalised_conv(
    in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, norm_groups: int
) -> nn.Sequential:
    """Return a convolution that keeps or divides the size, then its GroupNorm.

    The bias stays, unlike before a BatchNorm: within a group it weighs the features against a constant, without
    which an image and its dimmer copy would look the same. A group of one channel takes it away, so it has none.
    """
    norm = group_norm(norm_groups, out_channels)
    convolution = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=norm.num_groups < out_channels,
    )
    return nn.Sequential(convolution, norm)


class CBAM(nn.Module):
    """Convolutional block attention: `(B, C, H, W)` to the same shape, weighted by channel, then by place.

    Source: Woo et al. 2018, "CBAM". Channel weights are sigmoid(MLP(mean) + MLP(max)) over the pixels, place
    weights sigmoid(conv7x7([mean; max])) over the channels.
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        hidden = max(_FEWEST_HIDDEN, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)
        self.place = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the weighted features, `(B, C, H, W)`."""
        described = torch.stack([features.mean((2, 3)), features.amax((2, 3))])  # (2, B, C)
        channel_logits = self.excite(torch.relu(self.squeeze(described))).sum(0)  # (B, C)
        features = features * torch.sigmoid(channel_logits)[:, :, None, None]
        places = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * torch.sigmoid(self.place(places))  # (B, C, H, W)


class SpatialPyramid(nn.Module):
    """Average pooling at several levels: `(B, C, H, W)` of any size to `(B, C * sum(level ** 2))`.

    Source: He et al. 2014, "Spatial Pyramid Pooling". Bins are those of adaptive average pooling. They are
    separable, so each level is two small matrix products: deterministic on every device, exact at every size.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.bins = sum(level * level for level in levels)

    def extra_repr(self) -> str:
        """Return what `repr` shows."""
        return f"levels={self.levels}"

    def forward(self, features: Tensor) -> Tensor:
        """Return the pooled features, level after level, each flattened as `(C, level, level)`."""
        height, width = features.shape[-2:]
        pooled = []
        for level in self.levels:
            rows = _averaging_matrix(level, height, features)  # (level, H)
            columns = _averaging_matrix(level, width, features)  # (level, W)
            pooled.append((rows @ features @ columns.T).flatten(1))  # (B, C * level * level)
        return torch.cat(pooled, dim=1)


def _averaging_matrix(bins: int, size: int, like: Tensor) -> Tensor:
    """Return `(bins, size)`: row i averages pixels floor(i size / bins) up to ceil((i + 1) size / bins)."""
    index = torch.arange(bins, device=like.device)[:, None]
    pixel = torch.arange(size, device=like.device)
    first = index * size // bins
    end = ((index + 1) * size + bins - 1) // bins
    inside = (pixel >= first) & (pixel < end)
    return inside.to(like.dtype) / (end - first)
