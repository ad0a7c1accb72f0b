"""Terms that compare the features of a frozen network.

Letters: B images, C channels, H x W padded pixels, K features of h x w positions.
"""

import torch
from torch import Tensor

from vae_core.perceptual import Lpips as LpipsDistance
from vae_core.perceptual import lpips_available, on_real_pixels
from vae_core.terms.base import Term, TermSetup, register_term
from vae_core.terms.networks import FeatureNetwork, why_missing


@register_term("perceptual")
class Perceptual(Term):
    """Distance of a network's features, averaged over features and positions and summed over its layers.

    Source: Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution".

    Raises:
        UserError: the weights cannot be read.
    """

    @staticmethod
    def mistake(setup: TermSetup) -> str | None:
        """Return a message where the weights are missing."""
        reason = None if setup.weights == "random" else why_missing(setup.network, setup.path)
        return reason and f"loss.terms.perceptual: {reason}; or set loss.perceptual.weights to random"

    def __init__(self, setup: TermSetup) -> None:
        self.name = "perceptual"
        self._squared = setup.distance == "mse"
        self._network = FeatureNetwork(setup.network, weights=setup.weights, path=setup.path, device=setup.device)

    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the distance on the real pixels alone."""
        return on_real_pixels(self._distance, reconstructions, images, sizes)

    def _distance(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self._network.features(images)
        result = images.new_zeros(len(images))
        for mine, target in zip(self._network.features(reconstructions), targets, strict=True):  # (B, K, h, w)
            difference = mine - target
            each = difference.square() if self._squared else difference.abs()
            result = result + each.flatten(1).mean(1)
        return result


@register_term("lpips")
class Lpips(Term):
    """LPIPS with SqueezeNet, the same as the metric.

    Raises:
        UserError: the weights cannot be read.
    """

    @staticmethod
    def mistake(setup: TermSetup) -> str | None:  # noqa: ARG004 - one signature for all
        """Return a message where the weights are missing."""
        reason = lpips_available()
        return reason and f"loss.terms.lpips: {reason}"

    def __init__(self, setup: TermSetup) -> None:
        self.name = "lpips"
        self._distance = LpipsDistance(setup.device)

    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the distance on the real pixels alone."""
        return self._distance.distance(reconstructions, images, sizes)
