"""The families whose encoder gives a Gaussian, or its mean alone.

Shapes: B images, C channels, H x W pixels (padded), M latent dimensions, h x w positions of a spatial latent.
"""

from torch import Tensor, nn

from vae_core.errors import UserError
from vae_core.losses import kl_per_dimension, reparameterize
from vae_core.models.coded import CodedModel, bounded, no_autocast, over_positions
from vae_core.models.coders import ImageDecoder, ImageEncoder
from vae_core.models.latent import Latent


class VAE(CodedModel):
    """A VAE with a Gaussian latent for images of any size that is a multiple of `stride`.

    With a spatial encoder the code is `(B, M, h, w)`: every position has a Gaussian, and the prior N(0, 1).
    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes".
    """

    to_mu: nn.Module
    to_logvar: nn.Module

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, *, latent_dim: int, logvar_bound: float) -> None:
        heads = {name: encoder.layer(encoder.features, latent_dim) for name in ("to_mu", "to_logvar")}
        super().__init__(encoder, decoder, latent_dim=latent_dim, heads=heads)
        self.logvar_bound = logvar_bound

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), each `(B, M)` or `(B, M, h, w)` in float32 even under autocast.

        Args:
            images: `(B, C, H, W)` in [0, 1].

        The log variance (nats) is kept within +-`logvar_bound`; see `bounded`.
        """
        return self._posterior(self.encoder(images))

    def _posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        with no_autocast(features.device.type):
            features = features.float()
            return self.to_mu(features), bounded(self.to_logvar(features), self.logvar_bound)

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the latent of `images (B, C, H, W)`, z being mu + sigma * `noise`; see `LatentModel`."""
        features, skips = self.encoder.with_maps(images)
        mu, logvar = self._posterior(features)
        z = reparameterize(mu, logvar, noise.view(mu.shape))
        return Latent(z, mu, logvar, over_positions(kl_per_dimension(mu, logvar)), skips)


class OpposedVAE(VAE):
    """A VAE that is trained against a discriminator of its reconstructions; see `vae_core.adversary`.

    Source: Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric" (VAE/GAN), of which
    this takes the adversarial loss and leaves the likelihood on pixels.
    """

    has_adversary = True


class Autoencoder(CodedModel):
    """An autoencoder: a code without noise, and without a prior to draw from or a rate to pay.

    Its KL is zero by definition, so a total is the reconstruction term alone, whatever beta is.
    """

    has_prior = False
    unit_prior = False
    to_code: nn.Module

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, *, latent_dim: int) -> None:
        heads = {"to_code": encoder.layer(encoder.features, latent_dim)}
        super().__init__(encoder, decoder, latent_dim=latent_dim, heads=heads)

    def noise_size(self, size: tuple[int, int]) -> int:
        """Return 0."""
        return 0

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the code of `images (B, C, H, W)` with a KL of zero; see `LatentModel`."""
        features, skips = self.encoder.with_maps(images)
        with no_autocast(images.device.type):
            code = self.to_code(features.float())  # (B, M) or (B, M, h, w)
        return Latent(code, code, None, code.new_zeros(code.shape[:2]), skips)

    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Refuse: there is nothing to draw from.

        Raises:
            UserError: always.
        """
        raise UserError("model.family: ae has no prior to draw from; a vae has one")
