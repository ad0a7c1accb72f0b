"""What a term is, what it is built from, and the registry.

Letters: B images, C channels, H x W padded pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vae_core.data.batches import Batch
from vae_core.losses import real_dims


@dataclass(frozen=True)
class TermSetup:
    """What terms are built from.

    Attributes:
        device: where the images are.
        smallest_side: px, of any image.
        network: whose features `perceptual` compares: squeezenet, vgg16, resnet18 or checkpoint.
        path: file of the checkpoint.
        distance: of features, l1 or mse.
        weights: of the network, imagenet or random.
    """

    device: torch.device | str
    smallest_side: int
    network: str = "squeezenet"
    path: str | None = None
    distance: str = "l1"
    weights: str = "imagenet"


class Term(ABC):
    """A surrogate for the likelihood: how far reconstructions are from their images, 0 where they are equal.

    Values are nats only by declaration: the mean per pixel times the image's real values, C * H * W.

    Attributes:
        name: as it is logged; says what the name in the config leaves open.
    """

    name: str

    @staticmethod
    def mistake(setup: TermSetup) -> str | None:  # noqa: ARG004 - one signature for all
        """Return why the term cannot be built from `setup`, at no cost, or None where it can."""
        return None

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the term of each image, `(B,)` float32 also under autocast, for `logits (B, C, H, W)`."""
        with torch.autocast(logits.device.type, enabled=False):
            means = self.per_pixel(torch.sigmoid(logits.float()), batch.images.float(), batch.sizes)
            return means * real_dims(batch.mask, batch.images.shape[1])

    @abstractmethod
    def __init__(self, setup: TermSetup) -> None: ...

    @abstractmethod
    def per_pixel(self, reconstructions: Tensor, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the mean over real pixels, `(B,)`, with a gradient to the reconstructions.

        Args:
            reconstructions: `(B, C, H, W)` in [0, 1].
            images: `(B, C, H, W)` in [0, 1].
            sizes: `(B, 2)` int64 on the CPU, real heights and widths in px.
        """


TERMS: dict[str, type[Term]] = {}


def term_mistakes(names: Iterable[str], setup: TermSetup) -> list[str]:
    """Return why terms cannot be built from `setup`; one message for each that cannot."""
    return [mistake for name in names if (mistake := TERMS[name].mistake(setup)) is not None]


Registered = TypeVar("Registered", bound=type[Term])


def register_term(name: str) -> Callable[[Registered], Registered]:
    """Make a class of terms selectable as `loss.terms.<name>`; it is built from a `TermSetup`."""

    def register(term: Registered) -> Registered:
        TERMS[name] = term
        return term

    return register
