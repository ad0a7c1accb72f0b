"""Which labels a conditional model may see, and whether a data set has those that it needs."""

import hashlib
from collections.abc import Iterator

import numpy as np

from vae_core.config import RunConfig
from vae_core.data.dataset import Dataset, Indices

_FEWEST_CLASSES = 2


def visible_labels(dataset: Dataset, *, fraction: float, seed: int) -> Indices:
    """Return the labels `(N,)` with those of training images hidden, -1, beyond `fraction` of each class.

    Of each class the images with the smallest hashes of `seed` and content keep their label, at least one of them.
    So a smaller fraction keeps a part of what a larger one keeps, and no class is lost.

    Args:
        dataset: its val and test labels stay.
        fraction: share of the training images of each class, above 0.
        seed: `data.split_seed`.
    """
    if dataset.labels is None:
        return np.full(len(dataset), -1, dtype=np.int64)
    labels = dataset.labels.copy()
    if fraction == 1:
        return labels
    train = dataset.splits["train"]
    hashes = dataset.hashes
    for label in np.unique(labels[train][labels[train] >= 0]):
        members = train[labels[train] == label]
        order = sorted(members.tolist(), key=lambda index: (_place(seed, hashes[index]), index))
        labels[order[max(1, round(fraction * len(order))) :]] = -1
    return labels


def _place(seed: int, content: str) -> str:
    return hashlib.sha256(f"{seed}:label:{content}".encode()).hexdigest()


def label_mistakes(config: RunConfig, dataset: Dataset) -> Iterator[str]:
    """Yield why the data set's labels do not serve the model; nothing for models without conditioning."""
    if not config.model.conditional:
        return
    if dataset.labels is None or len(dataset.label_names) < _FEWEST_CLASSES:
        yield (
            f"model.family: cvae needs labels of at least {_FEWEST_CLASSES} classes, and the data set has "
            f"{len(dataset.label_names)}; label it (one subfolder per class, or data.labels), or take family: vae"
        )
        return
    for split in ("val", "test"):
        known = dataset.labels[dataset.splits[split]] >= 0
        if not known.all():
            yield (
                f"model.family: cvae is measured given the label, and {(~known).sum()} of {len(known)} {split} images "
                "have none; label them, or leave them out"
            )
    known = dataset.labels[dataset.splits["train"]] >= 0
    if not known.any():
        yield "model.family: cvae needs labels to learn from, and no training image has one; label some"
    if not known.all() and config.data.unlabelled == "use" and config.model.classification == 0:
        yield (
            f"model.classification: 0 is no classifier, which the {(~known).sum()} training images without a label "
            "need; set it above 0, or data.unlabelled: drop"
        )
