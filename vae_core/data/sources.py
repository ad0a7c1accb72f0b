"""What every source of images gives to the preparation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
# what is being done, how many are done, of how many
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Item:
    """One image, already at its final size.

    Attributes:
        name: unique within the source.
        pixels: `(C, H, W)` uint8.
        label: a word, or None where there is none.
        official: the split that the source itself puts the image in; None where it has no splits.
    """

    name: str
    pixels: Pixels
    label: str | None = None
    official: Literal["train", "test"] | None = None


class Source(Protocol):
    """A place that images come from."""

    label_names: tuple[str, ...] | None  # their order, where the source fixes it; else the sorted labels

    def __len__(self) -> int:
        """Return how many items (images and skipped ones together) there are."""
        ...

    def stamp(self) -> object:
        """Return a JSON-able value that changes with the source's content, found without reading it."""
        ...

    def items(self) -> Iterator[Item | Skipped]:
        """Yield every image, in an order that depends on the names alone."""
        ...


def with_channels(gray: Pixels, channels: int) -> Pixels:
    """Return `(channels, H, W)` from a gray `(H, W)` image by repeating it."""
    return np.repeat(gray[None], channels, axis=0)
