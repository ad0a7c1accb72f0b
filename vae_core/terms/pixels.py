"""Terms that compare pixels and their neighbourhoods.

Letters: B images, C channels, H x W padded pixels.
"""

import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from vae_core.metrics import SSIM_WINDOW, mean_of_corner, ssim_maps, ssim_per_image
from vae_core.terms.base import Term, TermSetup, register_term

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest first
_FEWEST_SCALES = 2  # with one it is SSIM
_LEAST = 0.05


@register_term("ssim")
class Ssim(Term):
    """1 - SSIM, as `metrics.ssim_per_image` has it; between 0 and 2 per pixel."""

    def __init__(self, setup: TermSetup) -> None:
        self.name = "ssim"

    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return 1 - SSIM."""
        return 1 - ssim_per_image(reconstructions, images, sizes)


@register_term("ms_ssim")
class MsSsim(Term):
    """1 - MS-SSIM with as many of the five scales as fit the smallest image; named after them (`ms_ssim_3`).

    The weights of the scales that are left out go to the others in proportion. Each scale halves the image by
    the mean of 2 x 2 px, an odd last row or column being dropped. Logarithms of a scale's mean below 0.05 are
    continued by their tangent, since a mean can be negative.
    Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment".
    """

    @staticmethod
    def mistake(setup: TermSetup) -> str | None:
        """Return a message where fewer than two scales fit."""
        if scales_that_fit(setup.smallest_side) >= _FEWEST_SCALES:
            return None
        return (
            f"loss.terms.ms_ssim: needs two scales and therefore images of at least {2 * SSIM_WINDOW} px, but the "
            f"smallest side of the data is {setup.smallest_side} px; use loss.terms.ssim"
        )

    def __init__(self, setup: TermSetup) -> None:
        scales = scales_that_fit(setup.smallest_side)
        self.name = f"ms_ssim_{scales}"
        weights = _SCALE_WEIGHTS[:scales]
        self._weights = [weight / sum(weights) for weight in weights]

    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return 1 - MS-SSIM."""
        sizes = sizes.to(images.device)
        logarithm = images.new_zeros(len(images))
        for number, weight in enumerate(self._weights):
            if number > 0:
                reconstructions, images = F.avg_pool2d(reconstructions, 2), F.avg_pool2d(images, 2)
                sizes = sizes // 2
            luminance, contrast = ssim_maps(reconstructions, images)  # (B, C, H - 10, W - 10)
            is_last = number == len(self._weights) - 1
            measured = (luminance * contrast if is_last else contrast).mean(1)
            mean = mean_of_corner(measured, sizes - (SSIM_WINDOW - 1))
            logarithm = logarithm + weight * _ln(mean)
        return 1 - logarithm.exp()


def _ln(values: Tensor) -> Tensor:
    """Return the logarithm, continued below `_LEAST` by its tangent, so that the unlike still feel which way is up."""
    return values.clamp_min(_LEAST).log() + (values - _LEAST).clamp_max(0) / _LEAST


def scales_that_fit(side: int) -> int:
    """Return how many scales of MS-SSIM an image with a smallest side of `side` px has room for, at most five."""
    return sum(side >> scale >= SSIM_WINDOW for scale in range(len(_SCALE_WEIGHTS)))


@register_term("gradient")
class Gradient(Term):
    """Mean absolute difference of edges: of the steps to the next pixel, rightwards plus downwards.

    Blind to brightness: 0 for any two images that differ by a constant. A size of one pixel has no edges.
    Source: Mathieu et al. 2016, "Deep multi-scale video prediction beyond mean square error", equation 6 (alpha 1).
    """

    def __init__(self, setup: TermSetup) -> None:
        self.name = "gradient"

    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the sum over both directions of the mean over the real pairs of neighbours."""
        sizes = sizes.to(images.device)
        difference = reconstructions - images
        result = images.new_zeros(len(images))
        for direction in (0, 1):
            steps = difference.diff(dim=2 + direction).abs().mean(1)  # (B, H - 1, W) or (B, H, W - 1)
            pairs = sizes.clone()
            pairs[:, direction] -= 1
            result = result + mean_of_corner(steps, pairs)
        return result
