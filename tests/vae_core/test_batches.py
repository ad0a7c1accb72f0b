"""Padded shapes, micro-batches and the order of an epoch."""

import numpy as np
import pytest
import torch

from vae_core.data.batches import (
    effective_batches,
    epoch_order,
    load_batch,
    micro_batches,
    padded_size,
    padding_multiple,
)


@pytest.mark.parametrize(("size", "padded"), [((1, 8), (8, 8)), ((8, 9), (8, 16)), ((17, 16), (24, 16))])
def test_sizes_are_rounded_up_to_the_multiple(size, padded):
    assert padded_size(size, 8) == padded


def test_the_multiple_serves_both_the_stride_and_the_option():
    assert padding_multiple(8, None) == 8
    assert padding_multiple(8, 12) == 24


def test_a_batch_holds_the_pixels_zero_padding_and_a_mask_of_the_real_ones(make_dataset):
    dataset = make_dataset(count=10, sizes=((13, 16), (11, 14)))
    batch = load_batch(dataset, np.array([0, 1]), 16, "cpu")
    assert batch.images.shape == (2, 1, 16, 16)
    for row, index in enumerate([0, 1]):
        height, width = dataset.sizes[index]
        expected = torch.zeros(1, 16, 16)
        expected[:, :height, :width] = torch.from_numpy(dataset.image(index).copy()).float() / 255
        assert torch.equal(batch.images[row], expected)
        assert batch.mask[row].sum() == height * width
        assert batch.mask[row, 0, :height, :width].all()
    assert batch.sizes.tolist() == dataset.sizes[[0, 1]].tolist()


@pytest.mark.parametrize("budget", [1, 16 * 16, 3 * 16 * 24, 10**9])
def test_micro_batches_cover_every_image_once_with_one_shape_and_within_the_budget(make_dataset, budget):
    dataset = make_dataset(count=40)
    indices = dataset.splits["train"]
    groups = micro_batches(dataset, indices, 8, budget)
    assert sorted(position for group in groups for position in group) == list(range(len(indices)))
    for group in groups:
        shapes = {padded_size(tuple(dataset.sizes[indices[position]]), 8) for position in group}
        assert len(shapes) == 1
        height, width = shapes.pop()
        assert len(group) == 1 or len(group) * height * width <= budget


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    indices = np.arange(100, 200)
    first = epoch_order(1, 2, indices)
    assert sorted(first) == list(indices)
    assert np.array_equal(first, epoch_order(1, 2, indices))
    assert not np.array_equal(first, epoch_order(1, 3, indices))
    assert not np.array_equal(first, epoch_order(2, 2, indices))


def test_effective_batches_can_start_anywhere_and_keep_the_last_smaller_one():
    order = np.arange(10)
    assert [len(batch) for batch in effective_batches(order, 4, 0)] == [4, 4, 2]
    assert [list(batch) for batch in effective_batches(order, 4, 2)] == [[8, 9]]
    assert list(effective_batches(order, 4, 3)) == []
