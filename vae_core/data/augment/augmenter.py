"""The subsection `data.augment` at work on single images."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_core.data.augment.draws import whole
from vae_core.data.augment.registry import AUGMENTATIONS
from vae_core.random_streams import generator
from vae_core.schema.augment import AugmentConfig

if TYPE_CHECKING:
    from vae_core.data.batches import Reader
    from vae_core.data.dataset import Dataset


class Augmenter:
    """Applies what is switched on, in the order of `AUGMENTATIONS`.

    Each augmentation draws from a generator of its own: switching one on does not move what the others draw.

    Args:
        settings: the subsection `data.augment`.
        target_too: also apply what changes input and target together; without it only corruptions are left.

    Attributes:
        corrupts: whether the input can differ from the target.
    """

    def __init__(self, settings: AugmentConfig, *, target_too: bool = True) -> None:
        chosen = [(name, entry) for name, entry in AUGMENTATIONS.items() if entry.is_on(settings)]
        self._strengths = {name: entry.strengths(settings) for name, entry in chosen}
        self._together = [name for name, entry in chosen if target_too and not entry.input_only]
        self._input_only = [name for name, entry in chosen if entry.input_only]
        self._random_window = target_too
        self.corrupts = bool(self._input_only)

    def pair(self, image: Tensor, *key: str | int) -> tuple[Tensor, Tensor]:
        """Return the target and the input made of `image (C, h, w)`, float32 in [0, 1] and of its size.

        Args:
            image: stays as it is.
            key: what the random numbers are for; the same key gives the same pair.
        """
        target = self._apply(self._together, image, key)
        return target, self._apply(self._input_only, target, key)

    def reader(self, dataset: "Dataset", *key: str | int) -> "Reader":
        """Return a function from an index to its pair; random numbers are keyed by `key` and the index.

        Args:
            dataset: an image that it crops is cropped to a random window instead of its middle.
            key: purpose first, then for example the seed and the epoch.
        """

        def read(index: int) -> tuple[Tensor, Tensor]:
            hidden = dataset.hidden_rows(index) if self._random_window else 0
            top = whole(generator(*key, index, "crop"), 0, hidden) if hidden else None
            image = torch.from_numpy(dataset.image(index, top).copy()).float().div_(255)
            return self.pair(image, *key, index)

        return read

    def _apply(self, names: list[str], image: Tensor, key: tuple[str | int, ...]) -> Tensor:
        for name in names:
            image = AUGMENTATIONS[name].function(image, generator(*key, name), **self._strengths[name])
        return image


def augmenter_of(settings: AugmentConfig) -> Augmenter | None:
    """Return what the subsection `data.augment` asks for, None where everything is off."""
    is_on = settings.crop_height is not None or any(entry.is_on(settings) for entry in AUGMENTATIONS.values())
    return Augmenter(settings) if is_on else None
