"""Measures the mean image and PCA on the test split, with the very functions that measure models.

Letters: B images of a batch, C channels, H x W the canvas (see pca.py), h x w an image, k components.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from experiments.pca import Floats, Pca, fit_pca, mean_image
from experiments.references import ReferenceRow, References
from vae_core.config import RunConfig
from vae_core.data import Dataset
from vae_core.data.batches import load_batch, micro_batches, padded_size
from vae_core.evaluation import Evaluator
from vae_core.metrics import mse_per_image, ssim_per_image
from vae_core.models.latent import Latent, LatentModel
from vae_core.perceptual import Lpips

_MOST_VALUES = 2**19  # per image; beyond it PCA of a study's images takes minutes and gigabytes
_PIXELS = 2**16  # px per batch; what fits into a cache is twice as fast
_EDGE = 1e-6  # of 1; a mean of exactly 0 or 1 has no finite logit


def measure(config: RunConfig, dataset: Dataset, latent_dims: Sequence[int]) -> References:
    """Fit on train and measure on test.

    Args:
        config: the study's base config; its evaluation likelihood and `evaluate.lpips` count.
        dataset: the base config's data.
        latent_dims: numbers of components, ascending.

    Returns:
        The mean image's row (a VAE that ignores its input: KL 0), one row of PCA per number of components,
        and PCA's MSE for every number of components up to the largest.
    """
    mean = mean_image(dataset, dataset.splits["train"])
    evaluator = Evaluator(config, dataset, "cpu")
    constant = _ConstantImage(mean, evaluator.multiple)
    found = evaluator.evaluate(constant, "test", beta=1.0).metrics
    row = ReferenceRow("mean image", None, found)
    notes = [] if evaluator.lpips_tag in ("measured", "off") else [f"No LPIPS of references: {evaluator.lpips_tag}."]
    if mean.size > _MOST_VALUES:
        notes.append(f"No PCA: its images have {mean.size:,} values, more than {_MOST_VALUES:,}.")
        return References((row,), (), tuple(notes))
    pca = fit_pca(dataset, dataset.splits["train"], max(latent_dims))
    lpips = Lpips("cpu") if evaluator.lpips_tag == "measured" else None
    curve, by_components = _measure_pca(pca, dataset, latent_dims, lpips)
    rows = [ReferenceRow(_name(k, len(pca.components)), k, by_components[k]) for k in latent_dims]
    return References((row, *rows), tuple(curve), tuple(notes))


def _name(components: int, rank: int) -> str:
    name = f"PCA, {components} component{'s' if components != 1 else ''}"
    return name if components <= rank else f"{name} (the train split spans {rank})"


class _ConstantImage(LatentModel):
    """Answers like a VAE whose posterior is the prior and whose decoder draws one image whatever z is."""

    def __init__(self, mean: Floats, multiple: int) -> None:
        super().__init__()
        self.latent_dim = 1
        _, height, width = mean.shape
        bottom, right = (
            padded - side for padded, side in zip(padded_size((height, width), multiple), (height, width), strict=True)
        )
        padded = np.pad(mean, ((0, 0), (0, bottom), (0, right)), mode="edge").clip(_EDGE, 1 - _EDGE)
        self._logits = torch.logit(torch.from_numpy(padded)).float()

    def noise_size(self, size: tuple[int, int]) -> int:
        """Return 1."""
        return 1

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> Latent:
        """Return the prior in one dimension, with mean and log variance `(B, 1)`, as the posterior of every image."""
        zeros = torch.zeros(len(images), 1)
        return Latent(noise, zeros, zeros, zeros)

    def decode(
        self, z: Tensor, size: tuple[int, int], labels: Tensor | None = None, skips: tuple[Tensor, ...] = ()
    ) -> Tensor:
        """Return the same logits `(B, C, *size)` for every z `(B, 1)`."""
        return self._logits[:, : size[0], : size[1]].expand(len(z), -1, -1, -1)

    def prior(self, noise: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `noise (B, 1)`."""
        return noise


def _measure_pca(
    pca: Pca, dataset: Dataset, wanted: Sequence[int], lpips: Lpips | None
) -> tuple[list[float], dict[int, dict[str, float]]]:
    """Return the test MSE for 0, 1, ... components, and all metrics for the wanted numbers of them.

    A reconstruction is clipped to [0, 1], as a picture is: it can only gain by that.
    """
    indices = dataset.splits["test"]
    rank = len(pca.components)
    squared = torch.zeros(rank + 1, dtype=torch.float64)
    sums = {count: {"test/ssim": 0.0} | ({"test/lpips": 0.0} if lpips else {}) for count in wanted}
    for positions in micro_batches(dataset, indices, 1, _PIXELS):
        batch = load_batch(dataset, indices[positions], 1, "cpu")  # images (B, C, h, w) of one size
        for count, picture in enumerate(_reconstructions(pca, batch.images)):
            shown = picture.clamp(0, 1)
            squared[count] += mse_per_image(shown, batch.images, batch.sizes).double().sum()
            for own in (k for k in wanted if min(k, rank) == count):
                sums[own]["test/ssim"] += float(ssim_per_image(shown, batch.images, batch.sizes).double().sum())
                if lpips:
                    sums[own]["test/lpips"] += float(lpips(shown, batch.images, batch.sizes).double().sum())
    curve = (squared / len(indices)).tolist()
    rows = {
        count: {"test/mse": curve[min(count, rank)]} | {key: value / len(indices) for key, value in found.items()}
        for count, found in sums.items()
    }
    return curve, rows


def _reconstructions(pca: Pca, images: Tensor) -> Iterator[Tensor]:
    """Yield the reconstructions of `images (B, C, h, w)` with 0, 1, ... k components, each of their shape."""
    _, _, h, w = images.shape
    mean = torch.from_numpy(pca.mean[:, :h, :w]).float()
    components = torch.from_numpy(pca.components)[:, :, :h, :w]  # (k, C, h, w)
    scores = torch.einsum("bchw,kchw->bk", images - mean, components)
    picture = mean.expand_as(images)
    yield picture
    for score, component in zip(scores.T, components, strict=True):
        picture = picture + score[:, None, None, None] * component
        yield picture
