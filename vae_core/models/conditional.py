"""A VAE whose encoder and decoder know the image's label, and which infers the label where it is unknown.

Shapes: B images, C channels, H x W pixels (padded), K labels, F features, M latent dimensions, h x w positions of a
spatial latent, R = B rows where the labels are known, B K where every image is inferred once for each label.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from vae_core.losses import kl_per_dimension, reparameterize
from vae_core.models.coded import CodedModel, bounded, no_autocast, over_positions
from vae_core.models.coders import ImageDecoder, ImageEncoder
from vae_core.models.latent import Latent


class ConditionalVAE(CodedModel):
    """q(z|x, y) and p(x|z, y) with p(y) uniform over K labels; with a weight for it, a classifier q(y|x).

    Each label adds a learned vector to the encoder's features, before a ReLU that lets the two act on one another,
    and one to what the decoder makes of z. The posterior's KL to its prior N(0, I) is in `kl`. What the label costs
    is in `losses`: ln K, and `classification` times -ln q(y|x); of unknown labels ln K - H(q(y|x)) alone, while
    everything else is to be averaged over the labels, each weighing q(y|x): `Latent.over_labels`.
    Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", model M2, equations 6 to 9.

    Args:
        encoder: images to features.
        decoder: codes of M + K channels to logits.
        latent_dim: M.
        classes: K.
        classification: weight of the classifier's cross-entropy (nats); 0: no classifier.
        logvar_bound: nats; see `bounded`.
    """

    of_label: nn.Module
    to_mu: nn.Module
    to_logvar: nn.Module
    classifier: nn.Module

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: ImageDecoder,
        *,
        latent_dim: int,
        classes: int,
        classification: float,
        logvar_bound: float,
    ) -> None:
        features = encoder.features
        heads: dict[str, nn.Module] = {"of_label": nn.Linear(classes, features, bias=False)}
        heads |= {name: encoder.layer(features, latent_dim) for name in ("to_mu", "to_logvar")}
        if classification > 0:
            heads["classifier"] = nn.Linear(features, classes)
        super().__init__(encoder, decoder, latent_dim=latent_dim, heads=heads)
        self.classes = classes
        self.classification = classification
        self.logvar_bound = logvar_bound

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the latent of `images (B, C, H, W)` given their labels, or of unknown ones for every label.

        The rows for one image share its noise.

        Raises:
            ValueError: not one label per image, known and unknown ones mixed, or no classifier for the latter.
        """
        labels = self._known(labels, images.shape[0])
        features, skips = self.encoder.with_maps(images)
        with no_autocast(images.device.type):
            features = features.float()
            log_q = self._log_probabilities(features) if self.classification > 0 else None  # (B, K)
            losses = self._losses(log_q, labels, features)
            if labels is None:
                features, noise = self._for_each_label(features), self._for_each_label(noise)
                skips = tuple(self._for_each_label(part) for part in skips)
                labels = torch.arange(self.classes).repeat(images.shape[0])  # (R,)
            mu, logvar = self._posterior(features, labels)
            z = reparameterize(mu, logvar, noise.view(mu.shape))
            kl = over_positions(kl_per_dimension(mu, logvar))  # (R, M)
        probabilities = None if log_q is None else log_q.exp()
        return Latent(z, mu, logvar, kl, skips, losses, labels=labels, label_probabilities=probabilities)

    def decode(
        self,
        z: Tensor,
        size: tuple[int, int],
        labels: Tensor | None = None,
        skips: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Return logits `(R, C, H, W)` for `z (R, M)` or `(R, M, h, w)` with `labels (R,)`, and `size = (H, W)`.

        Raises:
            ValueError: there are no labels.
        """
        if labels is None:
            raise ValueError("family: cvae decodes for a label; give labels")
        label = _spread(self._one_hot(labels, z), z)
        label = label.expand(-1, -1, *z.shape[2:])  # (R, K) or (R, K, h, w)
        return super().decode(torch.cat([z, label], dim=1), size, labels, skips)

    def _known(self, labels: Tensor | None, count: int) -> Tensor | None:
        """Return the labels of `count` images; None: all of them are unknown."""
        if labels is not None:  # on the CPU: nobody waits
            if len(labels) != count:
                raise ValueError(f"family: cvae needs the labels of all {count} images, -1 for an unknown one")
            unknown = labels < 0
            if unknown.any() and not unknown.all():
                raise ValueError("known and unknown labels must come in batches of their own")
            if unknown.any():
                labels = None
        if labels is None and self.classification == 0:
            raise ValueError("unknown labels need a classifier; set model.classification above 0")
        return labels

    def _for_each_label(self, values: Tensor) -> Tensor:
        """Return `values (B, ...)` with every image K times, one after the other: `(B K, ...)`."""
        return values.repeat_interleave(self.classes, dim=0)

    def _posterior(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x, y) for `features (R, F)` or `(R, F, h, w)` and `labels (R,)`."""
        told = torch.relu(features + _spread(self.of_label(self._one_hot(labels, features)), features))
        return self.to_mu(told), bounded(self.to_logvar(told), self.logvar_bound)

    def _log_probabilities(self, features: Tensor) -> Tensor:
        """Return ln q(y|x), `(B, K)`; of spatial features from their mean over positions."""
        return F.log_softmax(self.classifier(features if features.dim() == 2 else features.mean((2, 3))), dim=1)

    def _losses(self, log_q: Tensor | None, labels: Tensor | None, like: Tensor) -> Mapping[str, Tensor]:
        """Return the KL of the label's posterior to its prior, and the weighted cross-entropy, `(B,)` nats each."""
        losses = {"label_kl": like.new_full((like.shape[0],), math.log(self.classes))}
        if log_q is None:
            return losses
        cross_entropy = like.new_zeros(like.shape[0])
        if labels is None:
            losses["label_kl"] = losses["label_kl"] + (log_q.exp() * log_q).sum(1)
        else:
            cross_entropy = -(log_q * self._one_hot(labels, like)).sum(1)
        return losses | {"classification": self.classification * cross_entropy}

    def _one_hot(self, labels: Tensor, like: Tensor) -> Tensor:
        """Return `(R, K)` float32 on the device of `like`, for `labels (R,)` on the CPU."""
        return F.one_hot(labels, self.classes).float().to(like.device)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Return `values (R, N)` with the number of dimensions of `like`: `(R, N, 1, 1)` beside a map."""
    return values if like.dim() == 2 else values[:, :, None, None]
