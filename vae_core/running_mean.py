"""What earlier optimizer steps measured, for the parts of an objective that depend on more than one image."""

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """An exponentially weighted mean, over optimizer steps, of the mean of K numbers over a step's images.

    Lives on the device and never makes the host wait. The images of a step are added micro-batch by micro-batch
    in float64, so how a step was split does not matter, and count only from `commit` on. A step with a number
    that is not finite is left out.

    Args:
        size: K.
        device: where it lives.
        decay: share of the old mean that a step keeps; the start is corrected for.
    """

    total: Tensor
    weight: Tensor
    pending: Tensor
    images: Tensor

    def __init__(self, size: int, device: torch.device | str, *, decay: float) -> None:
        super().__init__()
        self._decay = decay
        for name, shape in {"total": (size,), "weight": (), "pending": (size,), "images": ()}.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64, device=device))

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Take in `values (B, K)` of a micro-batch's images."""
        self.pending += values.double().sum(0)
        self.images += len(values)

    @torch.no_grad()
    def commit(self) -> None:
        """Count the images added since the last call as one optimizer step."""
        mean = self.pending / self.images  # (K,)
        share = (1 - self._decay) * torch.isfinite(mean).all()
        self.total.lerp_(torch.where(share > 0, mean, 0.0), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)
        self.pending.zero_()
        self.images.zero_()

    @property
    def started(self) -> Tensor:
        """Return whether a step was counted, a scalar bool tensor."""
        return self.weight > 0

    @property
    def value(self) -> Tensor:
        """Return the mean, `(K,)` float64; 0 before the first step."""
        return self.total / torch.where(self.started, self.weight, 1.0)
