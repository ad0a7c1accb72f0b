"""A model as one function from images to images, as others use it: one tensor in, one tensor out."""

import torch
from torch import Tensor, nn

from vae_core.models.latent import LatentModel


class Reconstructor(nn.Module):
    """Reconstructs images from the mean of their posterior; no randomness.

    Args:
        model: any family; put into eval mode.
    """

    def __init__(self, model: LatentModel) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions `(B, C, H, W)` in [0, 1] of `images (B, C, H, W)` in [0, 1], padded sizes.

        A conditional model is told no label: its reconstruction is the mean over the labels that it infers.
        """
        size = (images.shape[-2], images.shape[-1])
        noise = images.new_zeros(images.shape[0], self.model.noise_size(size))
        latent = self.model.infer(images, noise)
        return latent.over_labels(torch.sigmoid(self.model.decode(latent.z, size, latent.labels, latent.skips)))
