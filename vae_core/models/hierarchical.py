"""A VAE with groups of latent dimensions, each with a prior that follows from the groups above it.

Shapes: B images, C channels, H x W pixels (padded), M latent dimensions in G groups of M_1 ... M_G, F features,
h x w positions of a spatial latent.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vae_core.losses import kl_per_dimension, reparameterize
from vae_core.models.coded import CodedModel, bounded, no_autocast, over_positions
from vae_core.models.coders import ImageDecoder, ImageEncoder
from vae_core.models.latent import Latent

_HIDDEN = 64  # units of the small networks between groups


class HierarchicalVAE(CodedModel):
    """Latent groups from the top down: p(z) = prod p(z_g | z_<g), q(z|x) = prod q(z_g | x, z_<g).

    Group g's code is z_g = m_g(z_<g) + s_g(z_<g) * e_g, and what `z`, `mu`, `logvar` and `prior` speak of is e, the
    code relative to its prior's mean and scale. So the prior of e is N(0, I), the KL is the usual one, and a group that
    is not used has mu 0 whatever is above it. `decode` turns e into z from the top down. Relative posteriors are those
    of Vahdat and Kautz 2020 ("NVAE", section 3.2), with the mean's difference in units of the prior's scale; top-down
    groups those of Sonderby et al. 2016 ("Ladder Variational Autoencoders").
    """

    posteriors: nn.ModuleList
    given_above: nn.ModuleList
    priors: nn.ModuleList

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: ImageDecoder,
        *,
        groups: Sequence[int],
        logvar_bound: float,
    ) -> None:
        above = [sum(groups[:position]) for position in range(len(groups))]  # dimensions above each group
        lower = list(zip(above[1:], groups[1:], strict=True))
        heads = {
            "posteriors": nn.ModuleList(encoder.layer(encoder.features, 2 * own) for own in groups),
            "given_above": nn.ModuleList(_small(encoder, known, 2 * own) for known, own in lower),
            "priors": nn.ModuleList(_small(encoder, known, 2 * own) for known, own in lower),
        }
        super().__init__(encoder, decoder, latent_dim=sum(groups), heads=heads)
        self.groups = tuple(groups)
        self.logvar_bound = logvar_bound

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return e of `images (B, C, H, W)`, `(B, M)` or `(B, M, h, w)`, and its posterior along the drawn path."""
        features, skips = self.encoder.with_maps(images)
        with no_autocast(images.device.type):
            features = features.float()
            shaped = noise.view(-1, self.latent_dim, *features.shape[2:])
            drawn: list[Tensor] = []
            means, logvars = [], []
            path: tuple[Tensor, ...] = ()
            for group, part in enumerate(torch.split(shaped, list(self.groups), dim=1)):
                mu, raw = self._posterior(group, features, path).chunk(2, dim=1)
                logvar = bounded(raw, self.logvar_bound)
                drawn.append(reparameterize(mu, logvar, part))
                path = (*path, self._code(group, drawn[-1], path))
                means.append(mu)
                logvars.append(logvar)
            mu, logvar = torch.cat(means, dim=1), torch.cat(logvars, dim=1)
            kl = over_positions(kl_per_dimension(mu, logvar))
        return Latent(torch.cat(drawn, dim=1), mu, logvar, kl, skips, groups=self.groups)

    def decode(
        self,
        z: Tensor,
        size: tuple[int, int],
        labels: Tensor | None = None,
        skips: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return logits `(B, C, H, W)` for e, `(B, M)` or `(B, M, h, w)`, and `size = (H, W)`."""
        with no_autocast(z.device.type):
            path: tuple[Tensor, ...] = ()
            for group, part in enumerate(torch.split(z.float(), list(self.groups), dim=1)):
                path = (*path, self._code(group, part, path))
        return super().decode(torch.cat(path, dim=1), size, labels, skips)

    def _posterior(self, group: int, features: Tensor, path: tuple[Tensor, ...]) -> Tensor:
        """Return mu and raw log variance of e_g, `(B, 2 * M_g, ...)`: as of a plain VAE, plus what those above add."""
        given: Tensor = self.posteriors[group](features)
        return given if group == 0 else given + self.given_above[group - 1](torch.cat(path, dim=1))

    def _code(self, group: int, relative: Tensor, path: tuple[Tensor, ...]) -> Tensor:
        """Return z_g from e_g `(B, M_g, ...)` and the groups above it."""
        if group == 0:
            return relative
        mean, raw = self.priors[group - 1](torch.cat(path, dim=1)).chunk(2, dim=1)
        return reparameterize(mean, bounded(raw, self.logvar_bound), relative)


def group_sizes(latent_dim: int, groups: int) -> tuple[int, ...]:
    """Return `latent_dim` dimensions divided over `groups` as evenly as can be, the larger groups on top."""
    share, rest = divmod(latent_dim, groups)
    return tuple(share + (group < rest) for group in range(groups))


def _small(encoder: ImageEncoder, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(encoder.layer(inputs, _HIDDEN), nn.ReLU(), encoder.layer(_HIDDEN, outputs))
