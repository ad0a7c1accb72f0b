"""The constant mean image and PCA of a data set whose images may differ in height.

Letters: n training images, B images of a batch, k components, C channels, H x W the largest height and width
of the data set in px ("canvas"), h x w those of an image, d = C * H * W.

Every image lies in the upper left corner of the canvas. A pixel that an image does not have counts as the
training mean of that pixel, so no component is spent on the images' heights, which a VAE's decoder is told
for free.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vae_core.data.batches import Indices
from vae_core.data.dataset import Dataset

Floats = npt.NDArray[np.float64]

_BLOCK_VALUES = 2**23  # float64 numbers held at once; 64 MiB
_LEAST_EIGENVALUE = 1e-12  # of the largest; below it float64 leaves nothing but rounding


@dataclass(frozen=True)
class Pca:
    """Principal components of the training split.

    Attributes:
        mean: `(C, H, W)` float64, the training mean of each pixel, of 1.
        components: `(k, C, H, W)` float32, orthonormal, largest variance first; fewer than asked for where
            the training images do not span as many.
    """

    mean: Floats
    components: npt.NDArray[np.float32]


def mean_image(dataset: Dataset, indices: Indices) -> Floats:
    """Return the mean of each pixel over the images that have it, `(C, H, W)` float64, of 1.

    A pixel that none of the images has gets the mean over all their pixels.
    """
    height, width = dataset.sizes.max(axis=0)
    total = np.zeros((dataset.channels, height, width))
    count = np.zeros((height, width))
    for index in indices:
        h, w = dataset.sizes[index]
        total[:, :h, :w] += dataset.image(int(index))
        count[:h, :w] += 1
    overall = total.sum() / (count.sum() * dataset.channels)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), overall) / 255
    return mean


def fit_pca(dataset: Dataset, indices: Indices, count: int) -> Pca:
    """Return the first `count` principal components of the images at `indices`.

    Exact and deterministic, with no random draw: eigenvectors of the smaller of the covariance (d x d) and
    the Gram matrix (n x n), summed up in float64 over blocks: the images are never in memory together.
    """
    mean = mean_image(dataset, indices)
    count = min(count, len(indices), mean.size)
    wide = mean.size > len(indices)
    flat = _from_gram(dataset, indices, mean, count) if wide else _from_covariance(dataset, indices, mean, count)
    return Pca(mean, flat.reshape(-1, *mean.shape))


def _from_covariance(dataset: Dataset, indices: Indices, mean: Floats, count: int) -> npt.NDArray[np.float32]:
    covariance = np.zeros((mean.size, mean.size))
    step = max(1, _BLOCK_VALUES // mean.size)
    for start in range(0, len(indices), step):
        block = _centred(dataset, indices[start : start + step], mean, slice(None)).reshape(-1, mean.size)
        covariance += block.T @ block
    _, vectors = _largest(covariance, count)
    return vectors.T.astype(np.float32)


def _from_gram(dataset: Dataset, indices: Indices, mean: Floats, count: int) -> npt.NDArray[np.float32]:
    gram = np.zeros((len(indices), len(indices)))
    for _, block in _row_blocks(dataset, indices, mean):
        gram += block @ block.T
    values, vectors = _largest(gram, count)
    to_components = (vectors / np.sqrt(values)).T  # (k, n)
    components = np.empty((len(values), *mean.shape), dtype=np.float32)
    for rows, block in _row_blocks(dataset, indices, mean):
        part = components[:, :, rows]
        part[:] = (to_components @ block).reshape(part.shape)
    return components


def _largest(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the `count` largest eigenvalues, descending, and their eigenvectors as columns; no zero ones."""
    from scipy.linalg import eigh

    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - count, size - 1])
    kept = values[::-1] > max(values[-1], 0) * _LEAST_EIGENVALUE
    return values[::-1][kept], vectors[:, ::-1][:, kept]


def _row_blocks(dataset: Dataset, indices: Indices, mean: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield rows of the canvas and the centred images there, `(n, C * rows * W)`."""
    channels, height, width = mean.shape
    step = max(1, _BLOCK_VALUES // (len(indices) * channels * width))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        yield rows, _centred(dataset, indices, mean, rows).reshape(len(indices), -1)


def _centred(dataset: Dataset, indices: Indices, mean: Floats, rows: slice) -> Floats:
    """Return the images minus the mean on some rows of the canvas, zero where an image has no pixel."""
    part = mean[:, rows]
    centred = np.zeros((len(indices), *part.shape))
    for position, index in enumerate(indices):
        image = dataset.image(int(index))[:, rows]
        _, h, w = image.shape
        centred[position, :, :h, :w] = image / 255.0 - part[:, :h, :w]
    return centred
