"""From indices to padded tensors: the padded shape of an image depends on that image alone.

Letters: B images, C channels, H and W padded height and width in px.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from vae_core.random_streams import generator

if TYPE_CHECKING:
    from vae_core.data.dataset import Dataset

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images of one padded shape.

    Attributes:
        indices: `(B,)` int64, positions in the data set.
        images: `(B, C, H, W)` float32 in [0, 1], zero below and right of the real pixels.
        mask: `(B, 1, H, W)` float32, 1 on real pixels.
        sizes: `(B, 2)` int64 on the CPU, real height and width in px.
    """

    indices: torch.Tensor
    images: torch.Tensor
    mask: torch.Tensor
    sizes: torch.Tensor


def padding_multiple(stride: int, pad_multiple: int | None) -> int:
    """Return the px that padded sizes are a multiple of: the model's stride and, where given, `pad_multiple`."""
    return math.lcm(stride, pad_multiple or 1)


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return height and width rounded up to `multiple` px."""
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def load_batch(dataset: "Dataset", indices: Indices, multiple: int, device: torch.device | str) -> Batch:
    """Read the images at `indices`, which must share one padded shape, onto `device`."""
    sizes = dataset.sizes[indices]  # (B, 2)
    height, width = padded_size((int(sizes[:, 0].max()), int(sizes[:, 1].max())), multiple)
    pixels = np.zeros((len(indices), dataset.channels, height, width), dtype=np.uint8)
    mask = np.zeros((len(indices), 1, height, width), dtype=np.uint8)
    for row, index in enumerate(indices):
        h, w = sizes[row]
        pixels[row, :, :h, :w] = dataset.image(int(index))
        mask[row, :, :h, :w] = 1
    return Batch(
        indices=torch.from_numpy(np.asarray(indices, dtype=np.int64)),
        images=torch.from_numpy(pixels).to(device).float().div_(255),
        mask=torch.from_numpy(mask).to(device).float(),
        sizes=torch.from_numpy(np.asarray(sizes, dtype=np.int64)),
    )


def micro_batches(dataset: "Dataset", indices: Indices, multiple: int, pixel_budget: int) -> list[Indices]:
    """Split `indices` into groups of one padded shape with at most `pixel_budget` padded px each.

    Returns:
        Positions into `indices`; a single image larger than the budget is a group of its own.
    """
    shapes: dict[tuple[int, int], list[int]] = {}
    for position, index in enumerate(indices):
        height, width = dataset.sizes[index]
        shapes.setdefault(padded_size((int(height), int(width)), multiple), []).append(position)
    groups = []
    for (height, width), positions in sorted(shapes.items()):
        count = max(1, pixel_budget // (height * width))
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
