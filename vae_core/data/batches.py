"""From indices to padded tensors: the padded shape of an image depends on that image alone.

Letters: B images, C channels, H and W padded height and width in px.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from vae_core.random_streams import generator

if TYPE_CHECKING:
    from vae_core.data.dataset import Dataset

Indices = npt.NDArray[np.int64]

# Gives the target and the model's input for an index: `(C, h, w)` float32 in [0, 1], of the size in the data set.
Reader = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Batch:
    """Images of one padded shape.

    Attributes:
        indices: `(B,)` int64, positions in the data set.
        images: `(B, C, H, W)` float32 in [0, 1], zero below and right of the real pixels; what is to be reconstructed.
        inputs: `(B, C, H, W)`, what the encoder sees; differs from `images` where these were corrupted.
        mask: `(B, 1, H, W)` float32, 1 on real pixels.
        sizes: `(B, 2)` int64 on the CPU, real height and width in px.
        labels: `(B,)` int64 on the CPU, positions in the data set's `label_names`; -1: unknown, or not to be seen.
    """

    indices: torch.Tensor
    images: torch.Tensor
    inputs: torch.Tensor
    mask: torch.Tensor
    sizes: torch.Tensor
    labels: torch.Tensor

    def repeated(self, times: int) -> "Batch":
        """Return the batch with every image `times` times, one after the other."""
        if times == 1:
            return self
        return Batch(**{name: part.repeat_interleave(times, dim=0) for name, part in vars(self).items()})

    @property
    def padded_size(self) -> tuple[int, int]:
        """Return H and W."""
        height, width = self.images.shape[-2:]
        return height, width


def padding_multiple(stride: int, pad_multiple: int | None) -> int:
    """Return the px that padded sizes are a multiple of: the model's stride and, where given, `pad_multiple`."""
    return math.lcm(stride, pad_multiple or 1)


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return height and width rounded up to `multiple` px."""
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def load_batch(
    dataset: "Dataset",
    indices: Indices,
    multiple: int,
    device: torch.device | str,
    reader: Reader | None = None,
    labels: Indices | None = None,
) -> Batch:
    """Read the images at `indices`, which must share one padded shape, onto `device`.

    Args:
        dataset: where the images are.
        indices: B positions in it.
        multiple: px; see `padded_size`.
        device: where the batch is wanted.
        reader: gives targets and inputs instead of the stored images; see `Augmenter.reader`.
        labels: `(N,)`, of every image of the data set; default: its own.
    """
    sizes = dataset.sizes[indices]  # (B, 2)
    labels = dataset.labels if labels is None else labels
    height, width = padded_size((int(sizes[:, 0].max()), int(sizes[:, 1].max())), multiple)
    mask = np.zeros((len(indices), 1, height, width), dtype=np.uint8)
    for row, (h, w) in enumerate(sizes):
        mask[row, :, :h, :w] = 1
    shape = (len(indices), dataset.channels, height, width)
    if reader is None:
        images = inputs = _stored(dataset, indices, shape).to(device).float().div_(255)
    else:
        images, inputs = (images.to(device) for images in _read(reader, indices, shape))
    return Batch(
        indices=torch.from_numpy(np.asarray(indices, dtype=np.int64)),
        images=images,
        inputs=inputs,
        mask=torch.from_numpy(mask).to(device).float(),
        sizes=torch.from_numpy(np.asarray(sizes, dtype=np.int64)),
        labels=torch.from_numpy(np.full(len(indices), -1) if labels is None else labels[indices]),
    )


def _stored(dataset: "Dataset", indices: Indices, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the stored images `(B, C, H, W)` uint8, zero on the padding."""
    pixels = np.zeros(shape, dtype=np.uint8)
    for row, index in enumerate(indices):
        image = dataset.image(int(index))
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return torch.from_numpy(pixels)


def _read(reader: Reader, indices: Indices, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return targets and inputs, `(B, C, H, W)` float32 each, zero on the padding."""
    targets, inputs = torch.zeros(shape), torch.zeros(shape)
    for row, index in enumerate(indices):
        target, seen = reader(int(index))
        _, height, width = target.shape
        targets[row, :, :height, :width] = target
        inputs[row, :, :height, :width] = seen
    return targets, inputs


def micro_batches(
    dataset: "Dataset", indices: Indices, multiple: int, pixel_budget: int, copies: Indices | None = None
) -> list[Indices]:
    """Split `indices` into groups of one padded shape with at most `pixel_budget` padded px each.

    Args:
        dataset: where the images are.
        indices: B positions in it.
        multiple: px; see `padded_size`.
        pixel_budget: px of padded images in a group.
        copies: `(B,)`, how many reconstructions of each image there will be at once, equal within a group; default 1.

    Returns:
        Positions into `indices`; a single image larger than the budget is a group of its own.
    """
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for position, index in enumerate(indices):
        height, width = padded_size((int(dataset.sizes[index, 0]), int(dataset.sizes[index, 1])), multiple)
        times = 1 if copies is None else int(copies[position])
        shapes.setdefault((height, width, times), []).append(position)
    groups = []
    for (height, width, times), positions in sorted(shapes.items()):
        count = max(1, pixel_budget // (height * width * times))
        groups += [positions[start : start + count] for start in range(0, len(positions), count)]
    return [np.asarray(group, dtype=np.int64) for group in groups]


def epoch_order(seed: int, epoch: int, indices: Indices) -> Indices:
    """Return `indices` in the order in which epoch number `epoch` visits them."""
    order = torch.randperm(len(indices), generator=generator("order", seed, epoch)).numpy()
    return np.asarray(indices[order], dtype=np.int64)


def effective_batches(order: Indices, effective_batch: int, start: int) -> Iterator[Indices]:
    """Yield the images of each optimizer step from step `start` of the epoch on; the last may be smaller."""
    for first in range(start * effective_batch, len(order), effective_batch):
        yield order[first : first + effective_batch]
