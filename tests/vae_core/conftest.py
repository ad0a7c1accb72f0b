"""A tiny data set of pages with boxes, made in memory."""

import numpy as np
import pytest
import torch

from vae_core.data.dataset import RECORD, Dataset, Summary
from vae_core.data.splits import SPLITS


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make_dataset():
    """Return a function (count, channels, sizes, classes) -> Dataset; sizes and labels are drawn from in turn."""

    def make(count=40, channels=1, sizes=((24, 16), (16, 16), (13, 16)), classes=0):
        random = np.random.default_rng(0)
        images = [_page(random, channels, sizes[index % len(sizes)]) for index in range(count)]
        records = np.zeros(count, dtype=RECORD)
        for index, image in enumerate(images):
            split = SPLITS.index(("train", "train", "val", "train", "test")[index % 5])
            label = index // 5 % classes if classes else -1
            records[index] = (*image.shape[1:], label, index, split, b"0" * 32)
        summary = Summary(
            source="synthetic",
            fingerprint="0" * 16,
            channels=channels,
            names=[f"page-{index}" for index in range(count)],
            label_names=[f"class-{label}" for label in range(classes)],
            skipped=[],
            excluded={},
        )
        return Dataset(summary, records, np.concatenate([image.ravel() for image in images]))

    return make


def _page(random, channels, size):
    page = np.full((channels, *size), 20, dtype=np.uint8)
    for _ in range(3):
        top, left = random.integers(0, size[0] - 4), random.integers(0, size[1] - 4)
        page[:, top : top + random.integers(3, 12), left : left + random.integers(3, 12)] += 60
    return page
