import numpy as np
import pytest

from vae_core.data.near_duplicates import group_near_duplicates, near_any, near_pairs, thumbnail
from vae_core.data.splits import assign_splits, combined_hash
from vae_core.errors import UserError


def random_thumbnails(count, seed, channels=1, spread=0.02):
    """Clusters of thumbnails that lie about as far apart as the tolerances of the tests."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 1, (max(1, count // 8), channels, 8, 8))
    noise = rng.normal(0, spread, (count, channels, 8, 8))
    return np.clip(centres[rng.integers(0, len(centres), count)] + noise, 0, 1).astype(np.float32)


def brute_force_pairs(thumbnails, aspects, tolerance):
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float64)
    found = set()
    for i in range(len(flat)):
        for j in range(i + 1, len(flat)):
            alike = abs(aspects[i] - aspects[j]) <= 0.02 * max(aspects[i], aspects[j])
            if alike and np.abs(flat[i] - flat[j]).mean() <= tolerance:
                found.add((i, j))
    return found


def pairs_of(thumbnails, aspects, tolerance):
    blocks = list(near_pairs(thumbnails, aspects, tolerance))
    return [tuple(sorted(pair)) for a, b in blocks for pair in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.022, 0.3])
def test_near_pairs_are_those_of_comparing_all_with_all(channels, tolerance):
    thumbnails = random_thumbnails(300, seed=1, channels=channels)
    thumbnails[7] = thumbnails[3]
    aspects = np.random.default_rng(2).choice([1.0, 1.015, 1.03], 300)
    aspects[[3, 7]] = 1.0
    found = pairs_of(thumbnails, aspects, tolerance)
    assert len(found) == len(set(found))
    assert set(found) == brute_force_pairs(thumbnails, aspects, tolerance)
    assert (3, 7) in found


def test_near_pairs_do_not_depend_on_the_size_of_the_blocks(monkeypatch):
    thumbnails = random_thumbnails(200, seed=3)
    whole = pairs_of(thumbnails, np.ones(200), 0.02)
    for name, size in (("_ROWS", 7), ("_COLUMNS", 11), ("_PAIRS", 5)):
        monkeypatch.setattr(f"vae_core.data.near_duplicates.{name}", size)
    assert len(whole) > 50
    assert set(pairs_of(thumbnails, np.ones(200), 0.02)) == set(whole)


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_pairs_whose_means_differ_by_all_of_the_tolerance_are_found(monkeypatch, rows):
    monkeypatch.setattr("vae_core.data.near_duplicates._ROWS", rows)
    levels = np.arange(10, dtype=np.float32)[:, None, None, None] / 16
    thumbnails = np.broadcast_to(levels, (10, 1, 8, 8))
    assert set(pairs_of(thumbnails, np.ones(10), 1 / 16)) == {(index, index + 1) for index in range(9)}


def test_groups_are_the_connected_components_of_the_near_pairs():
    thumbnails = np.zeros((6, 1, 8, 8), dtype=np.float32)
    thumbnails[:, 0, 0, 0] = np.array([0.0, 0.9, 0.5, 0.3, 1.2, 0.6]) / 0.64 * 0.64
    groups = group_near_duplicates(thumbnails, np.ones(6), tolerance=0.31 / 64)
    assert groups.tolist() == [0, 0, 0, 0, 0, 0]
    groups = group_near_duplicates(thumbnails, np.ones(6), tolerance=0.21 / 64)
    assert groups.tolist() == [0, 1, 2, 2, 3, 2]


def test_groups_at_a_huge_tolerance_are_one_group_and_quick():
    groups = group_near_duplicates(random_thumbnails(3000, seed=4), np.ones(3000), tolerance=1.0)
    assert set(groups.tolist()) == {0}


def test_an_aspect_more_than_two_percent_off_is_no_near_duplicate():
    thumbnails = np.zeros((3, 1, 8, 8), dtype=np.float32)
    assert group_near_duplicates(thumbnails, np.array([1.0, 1.019, 1.05]), 0.01).tolist() == [0, 0, 1]


def test_near_any_finds_direct_neighbours_alone():
    thumbnails = np.zeros((4, 1, 8, 8), dtype=np.float32)
    thumbnails[:, 0, 0, 0] = [0.0, 0.5, 1.0, 0.0]
    marked = np.array([True, False, False, False])
    found = near_any(thumbnails, np.ones(4), 0.55 / 64, marked)
    assert found.tolist() == [False, True, False, True]


def test_a_thumbnail_is_the_area_average():
    pixels = np.arange(24 * 12, dtype=np.uint16).reshape(1, 24, 12).astype(np.uint8)
    fine = np.repeat(np.repeat(pixels[0].astype(float), 2, axis=0), 2, axis=1)
    expected = fine.reshape(8, 6, 8, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(thumbnail(pixels)[0], expected, atol=1e-6)


def digests(count):
    return [f"{value:032x}" for value in np.random.default_rng(0).permutation(count)]


def split(groups, hashes, **changes):
    options = {"seed": 0, "val_fraction": 0.15, "test_fraction": 0.15} | changes
    return assign_splits(np.asarray(groups), hashes, **options)


def test_splits_have_the_exact_sizes_where_groups_allow():
    result = split(np.arange(600), digests(600))
    assert np.bincount(result).tolist() == [420, 90, 90]


def test_groups_are_never_divided_and_sizes_stay_exact_to_within_a_group():
    groups = np.sort(np.random.default_rng(1).integers(0, 60, 500))
    result = split(groups, digests(500))
    for group in np.unique(groups):
        assert len(set(result[groups == group].tolist())) == 1
    counts = np.bincount(result)
    largest = np.bincount(groups).max()
    assert 75 - largest < counts[1] <= 75
    assert 75 - largest < counts[2] <= 75


def test_splits_depend_on_contents_and_seed_but_not_on_the_order_of_the_images():
    hashes = digests(200)
    order = np.random.default_rng(5).permutation(200)
    first = split(np.arange(200), hashes)
    shuffled = split(np.arange(200), [hashes[index] for index in order])
    assert first[order].tolist() == shuffled.tolist()
    assert first.tolist() != split(np.arange(200), hashes, seed=1).tolist()


def test_few_new_images_move_few_old_ones():
    hashes = digests(1010)
    before, after = split(np.arange(1000), hashes[:1000]), split(np.arange(1010), hashes)
    assert (before != after[:1000]).mean() < 0.02


def test_the_official_test_images_are_the_test_split():
    test = np.zeros(100, dtype=bool)
    test[80:] = True
    result = split(np.arange(100), digests(100), official_test=test)
    assert ((result == 2) == test).all()
    assert np.bincount(result).tolist() == [65, 15, 20]


@pytest.mark.parametrize(
    ("groups", "counts"),
    [([0, 1], "train 0, val 1, test 1"), ([0] * 20, "train 20, val 0, test 0")],
)
def test_a_split_without_images_is_refused_with_the_counts(groups, counts):
    with pytest.raises(UserError, match=f"{len(groups)} images gave {counts}"):
        split(groups, digests(len(groups)))


def test_three_images_suffice():
    assert sorted(split([0, 1, 2], digests(3)).tolist()) == [0, 1, 2]


def test_a_combined_hash_depends_on_the_set_alone():
    assert combined_hash(["a", "b"]) == combined_hash(["b", "a"]) != combined_hash(["a", "c"])
