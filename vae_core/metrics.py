"""Image metrics per image, on real pixels only. Shapes: B images, C channels, H x W padded pixels.

Images and reconstructions are `(B, C, H, W)` in [0, 1]; `sizes (B, 2)` int64 gives real heights and widths.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

SSIM_WINDOW = 11  # px
_SSIM_SIGMA = 1.5  # px
_SSIM_C1 = 0.01**2  # (K1 * data range)^2
_SSIM_C2 = 0.03**2


def mse_per_image(reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean squared error over real pixels and channels, `(B,)` float32, in squared pixel units."""
    errors = (reconstructions.float() - images.float()).square().mean(1)  # (B, H, W)
    return mean_of_corner(errors, sizes.to(errors.device))


def ssim_per_image(reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
    """Return the structural similarity, `(B,)` float32, 1 for equal images.

    Gaussian window of 11 px, sigma 1.5 px, data range 1, population covariance, mean over channels and over
    the windows that lie wholly inside the real image, as scikit-image's `structural_similarity` has it with
    `gaussian_weights=True, use_sample_covariance=False`. An image with a side under 11 px gets the largest
    odd window that fits, with sigma in proportion (one pixel: luminance alone). Source: Wang et al. 2004.
    """
    windows = [min(SSIM_WINDOW, side - (1 - side % 2)) for side in sizes.min(1).values.tolist()]
    result = torch.empty(len(images), device=images.device)
    for window in sorted(set(windows)):
        rows = torch.tensor([row for row, own in enumerate(windows) if own == window], device=images.device)
        result[rows] = _ssim(reconstructions[rows], images[rows], sizes.to(images.device)[rows], window)
    return result


def _ssim(first: Tensor, second: Tensor, sizes: Tensor, window: int) -> Tensor:
    luminance, contrast = ssim_maps(first, second, window)
    return mean_of_corner((luminance * contrast).mean(1), sizes - (window - 1))


def ssim_maps(first: Tensor, second: Tensor, window: int = SSIM_WINDOW) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast-structure, whose product is SSIM, `(B, C, H - window + 1, W - window + 1)`."""
    first, second = first.float(), second.float()
    stacked = torch.stack([first, second, first.square(), second.square(), first * second])  # (5, B, C, H, W)
    mean1, mean2, square1, square2, product = _blur(stacked, window)
    variance1 = (square1 - mean1.square()).clamp_min(0)
    variance2 = (square2 - mean2.square()).clamp_min(0)
    covariance = product - mean1 * mean2
    luminance = (2 * mean1 * mean2 + _SSIM_C1) / (mean1.square() + mean2.square() + _SSIM_C1)
    contrast = (2 * covariance + _SSIM_C2) / (variance1 + variance2 + _SSIM_C2)
    return luminance, contrast


def _blur(stacked: Tensor, window: int) -> Tensor:
    """Filter `(..., H, W)` with a normalised Gaussian, keeping the positions where the window fits."""
    distance = torch.arange(window, device=stacked.device, dtype=torch.float32) - window // 2
    sigma = _SSIM_SIGMA * max(1, window // 2) / (SSIM_WINDOW // 2)
    weights = torch.exp(-0.5 * (distance / sigma).square())
    weights = weights / weights.sum()
    flat = stacked.reshape(-1, 1, *stacked.shape[-2:])
    flat = F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return flat.reshape(*stacked.shape[:-2], *flat.shape[-2:])


def mean_of_corner(values: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean of the upper left `sizes[b] = (h, w)` values of each `values (B, H, W)`, `(B,)`."""
    height, width = values.shape[-2:]
    rows = torch.arange(height, device=values.device) < sizes[:, 0, None]  # (B, H)
    columns = torch.arange(width, device=values.device) < sizes[:, 1, None]  # (B, W)
    inside = rows[:, :, None] & columns[:, None, :]
    return (values * inside).sum((1, 2)) / sizes.prod(1)
