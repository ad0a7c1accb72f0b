"""Augmentations one by one: what each does to an image, against torchvision, SciPy and counting."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms import functional as reference

from vae_core.config import parse_config
from vae_core.data.augment import AUGMENTATIONS, Augmenter, augmenter_of, corruptions, geometry, photometric
from vae_core.data.augment.warp import homography, rotation, warp, window
from vae_core.errors import UserError
from vae_core.random_streams import generator
from vae_core.schema.augment import AugmentConfig

SIZES = [(1, 64, 32), (3, 13, 40), (1, 1, 8), (3, 9, 8)]


def page(channels=1, height=48, width=32, key="page"):
    return torch.rand(channels, height, width, generator=generator("test", key))


def smooth(height=48, width=32):
    """Return an image without steep edges, so that two ways to interpolate agree."""
    noise = np.random.default_rng(0).random((height, width))
    image = scipy.ndimage.gaussian_filter(noise, 3)
    return torch.from_numpy((image - image.min()) / np.ptp(image)).float()[None]


def applied(name, image, key, **changes):
    entry = AUGMENTATIONS[name]
    return entry.function(image, generator("test", key), **{**entry.shown, **changes})


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestEveryAugmentation:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_keeps_size_type_range_and_the_image_it_got(self, name, size):
        image = page(*size)
        before = image.clone()
        for key in range(20):
            varied = applied(name, image, key)
            assert varied.shape == image.shape
            assert varied.dtype == torch.float32
            assert varied.min() >= 0
            assert varied.max() <= 1
            assert torch.equal(image, before)

    def test_is_decided_by_its_key(self, name):
        image = page()
        varied = [applied(name, image, key) for key in range(20)]
        assert all(torch.equal(applied(name, image, key), varied[key]) for key in reversed(range(20)))
        assert any(not torch.equal(left, right) for left, right in pairwise(varied))

    def test_leaves_the_global_generators_alone(self, name):
        torch.manual_seed(5)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - is what this test is about
        first = [applied(name, page(), key) for key in range(10)]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
        torch.manual_seed(6)
        assert all(torch.equal(applied(name, page(), key), first[key]) for key in range(10))

    def test_is_off_by_default_and_named_by_fields_of_the_config(self, name):
        entry = AUGMENTATIONS[name]
        assert set(entry.shown) <= set(AugmentConfig.model_fields)
        assert not entry.is_on(AugmentConfig())
        settings = AugmentConfig.model_validate(entry.shown)
        assert entry.is_on(settings)
        assert entry.strengths(settings) == entry.shown
        assert augmenter_of(settings) is not None

    def test_comes_alone_out_of_the_augmenter_on_the_side_it_belongs_to(self, name):
        entry = AUGMENTATIONS[name]
        image, changed_targets = page(), 0
        augmenter = Augmenter(AugmentConfig.model_validate(entry.shown))
        for epoch in range(10):
            target, inputs = augmenter.pair(image, "augment", 0, epoch)
            alone = entry.function(image, generator("augment", 0, epoch, name), **entry.shown)
            assert torch.equal(inputs, alone)
            changed_targets += not torch.equal(target, image)
            if not entry.input_only:
                assert torch.equal(target, inputs)
        assert (changed_targets == 0) == entry.input_only


def test_every_field_but_crop_and_mixup_belongs_to_exactly_one_augmentation():
    fields = [field for entry in AUGMENTATIONS.values() for field in entry.shown]
    assert sorted([*fields, "crop_height", "latent_mixup"]) == sorted(AugmentConfig.model_fields)


def test_the_order_is_geometry_then_elements_then_brightness_then_corruptions_and_the_configs():
    kinds = [entry.function.__module__.rpartition(".")[2] for entry in AUGMENTATIONS.values()]
    assert list(dict.fromkeys(kinds)) == ["geometry", "elements", "photometric", "corruptions"]
    assert kinds == sorted(kinds, key=["geometry", "elements", "photometric", "corruptions"].index)
    assert [entry.input_only for entry in AUGMENTATIONS.values()] == [kind == "corruptions" for kind in kinds]
    positions = [list(AugmentConfig.model_fields).index(entry.switch) for entry in AUGMENTATIONS.values()]
    assert positions == sorted(positions)


def test_everything_together_is_applied_in_the_registrys_order():
    settings = AugmentConfig.model_validate(
        {field: value for entry in AUGMENTATIONS.values() for field, value in entry.shown.items()}
    )
    expected = page()
    for name, entry in AUGMENTATIONS.items():
        if name == "Gaussian noise":
            target = expected
        expected = entry.function(expected, generator("augment", 1, 2, name), **entry.shown)
    found = Augmenter(settings).pair(page(), "augment", 1, 2)
    assert torch.equal(found[0], target)
    assert torch.equal(found[1], expected)


def test_switching_one_on_does_not_move_what_the_others_draw():
    """Cells of a study that differ in one augmentation see the same draws of all others."""
    alone = Augmenter(AugmentConfig(gaussian_noise=0.1)).pair(page(), "augment", 0, 0, 7)
    flipped = Augmenter(AugmentConfig(gaussian_noise=0.1, flip_horizontal=1.0)).pair(page(), "augment", 0, 0, 7)
    again = Augmenter(AugmentConfig(gaussian_noise=0.1)).pair(page().flip(2), "augment", 0, 0, 7)
    assert torch.equal(flipped[1], again[1])
    assert not torch.equal(flipped[1], alone[1])


class TestGeometry:
    def test_flips_are_exact_and_as_frequent_as_asked(self):
        image = page(3)
        for name, field, axis in (("horizontal flip", "flip_horizontal", 2), ("vertical flip", "flip_vertical", 1)):
            mirrored = torch.from_numpy(np.flip(image.numpy(), axis).copy())
            varied = [applied(name, image, key, **{field: 0.3}) for key in range(1000)]
            count = sum(torch.equal(one, mirrored) for one in varied)
            assert count + sum(torch.equal(one, image) for one in varied) == 1000
            assert scipy.stats.binomtest(count, 1000, 0.3).pvalue > 1e-4

    def test_nothing_moves_under_the_identity_a_full_window_and_a_whole_turn(self):
        image = page(3)
        for matrix in (rotation(0, 48, 32), rotation(360, 48, 32), window(0, 0, 1, 1)):
            torch.testing.assert_close(warp(image, matrix), image, atol=2e-5, rtol=0)
        torch.testing.assert_close(warp(image, rotation(180, 48, 32)), image.flip(1, 2), atol=2e-5, rtol=0)

    def test_a_warp_is_scipys_with_the_nearest_pixel_outside(self):
        image = page()
        matrix = homography([(3, 2), (30, 5), (28, 44), (1, 40)], [(0, 0), (32, 0), (32, 48), (0, 48)])
        y, x = np.mgrid[:48, :32] + 0.5
        across, down, scale = np.einsum("ij,jhw->ihw", np.array(matrix), np.stack([x, y, np.ones_like(x)]))
        places = np.stack([down / scale, across / scale]) - 0.5
        expected = scipy.ndimage.map_coordinates(image[0].double().numpy(), places, order=1, mode="nearest")
        assert ((places < 0) | (places > [[[47]], [[31]]])).any()  # it does look outside
        np.testing.assert_allclose(warp(image, matrix)[0].numpy(), expected, atol=2e-5)

    @pytest.mark.parametrize("degrees", [-30.0, 7.0, 90.0])
    def test_a_rotation_is_torchvisions_where_the_image_is_shown(self, degrees):
        image, ones = smooth(40, 40), torch.ones(1, 40, 40)
        inside = reference.rotate(ones, degrees, reference.InterpolationMode.BILINEAR)[0] > 0.999
        expected = reference.rotate(image, degrees, reference.InterpolationMode.BILINEAR)
        found = warp(image, rotation(degrees, 40, 40))
        assert inside.float().mean() > 0.6
        torch.testing.assert_close(found[:, inside], expected[:, inside], atol=1e-4, rtol=0)

    def test_a_perspective_is_torchvisions_where_the_image_is_shown(self):
        image, ones = smooth(), torch.ones(1, 48, 32)
        corners, moved = [[0, 0], [32, 0], [32, 48], [0, 48]], [[2, 3], [31, 1], [29, 45], [4, 46]]
        expected = reference.perspective(image, corners, moved)
        inside = reference.perspective(ones, corners, moved)[0] > 0.999
        found = warp(image, homography([tuple(p) for p in moved], [tuple(p) for p in corners]))
        torch.testing.assert_close(found[:, inside], expected[:, inside], atol=1e-3, rtol=0)

    def test_a_window_is_torchvisions_resized_crop_away_from_its_edge(self):
        image = smooth(48, 32)
        expected = reference.resized_crop(image, 12, 8, 24, 16, [48, 32], antialias=False)
        found = warp(image, window(12, 8, 0.5, 0.5))
        torch.testing.assert_close(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5, rtol=0)

    def test_a_shift_moves_by_up_to_the_share_of_each_side(self, monkeypatch):
        ramp = torch.arange(100.0).expand(50, 100)[None] / 100
        moved = [100 * float((geometry.move(ramp, generator(key), shift=0.1) - ramp)[0, 25, 50]) for key in range(200)]
        assert max(map(abs, moved)) <= 10.0 + 1e-3
        assert scipy.stats.kstest(moved, scipy.stats.uniform(-10, 20).cdf).pvalue > 1e-3

    def test_rotations_and_perspectives_stay_within_their_bounds(self, monkeypatch):
        seen = []
        monkeypatch.setattr(geometry, "warp", lambda image, matrix: seen.append(matrix) or image)
        for key in range(200):
            geometry.rotate(page(), generator(key), rotation_degrees=5.0)
        angles = [math.degrees(math.asin(matrix[1][0])) for matrix in seen]
        assert max(map(abs, angles)) <= 5
        assert scipy.stats.kstest(angles, scipy.stats.uniform(-5, 10).cdf).pvalue > 1e-3
        seen.clear()
        for key in range(200):
            geometry.change_perspective(page(), generator(key), perspective=1.0, perspective_distortion=0.2)
        corners = np.array([[0, 0, 1], [32, 0, 1], [32, 48, 1], [0, 48, 1]])
        shown = np.einsum("kij,cj->kci", np.linalg.inv(np.array(seen)), corners)
        moves = np.abs(shown[..., :2] / shown[..., 2:] - corners[:, :2]) / [32, 48]
        assert moves.max() <= 0.1 + 1e-6
        assert moves.max() > 0.098

    def test_a_resized_crop_shows_a_window_of_the_least_area_or_more_inside_the_image(self, monkeypatch):
        seen = []
        monkeypatch.setattr(geometry, "warp", lambda image, matrix: seen.append(matrix) or image)
        for key in range(300):
            geometry.resize_crop(page(), generator(key), resized_crop=1.0, resized_crop_min_area=0.4)
        for (wide, _, left), (_, tall, top), _ in seen:
            assert 0.4 <= wide * tall <= 1
            assert 0.74 < wide / tall < 1.34
            assert 0 <= left <= left + 32 * wide <= 32 + 1e-6
            assert 0 <= top <= top + 48 * tall <= 48 + 1e-6


class TestPhotometry:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_jitters_are_torchvisions_with_factors_in_their_range(self, channels, monkeypatch):
        image = page(channels)
        for function, name, expected in (
            (photometric.jitter_brightness, "brightness_jitter", reference.adjust_brightness),
            (photometric.jitter_contrast, "contrast_jitter", reference.adjust_contrast),
        ):
            for factor in (0.6, 1.0, 1.3):
                monkeypatch.setattr(photometric, "uniform", lambda *_, factor=factor: factor)
                found = function(image, generator("any"), **{name: 0.4})
                torch.testing.assert_close(found, expected(image, factor), atol=1e-5, rtol=0)
        monkeypatch.undo()
        flat = torch.full((1, 4, 4), 0.5)
        varied = [float(applied("brightness jitter", flat, key, brightness_jitter=0.2).mean()) for key in range(300)]
        assert scipy.stats.kstest(varied, scipy.stats.uniform(0.4, 0.2).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
    def test_auto_augment_is_torchvisions_with_the_keyed_seed(self, policy):
        image = (page(3) * 255).round()
        for key in range(10):
            found = photometric.apply_policy(image / 255, generator("test", key), auto_augment=policy)
            seed = int(torch.randint(2**62, (), generator=generator("test", key)))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                expected = AutoAugment(AutoAugmentPolicy[policy.upper()])(image.byte())
            assert torch.equal(found, expected.float() / 255)


class TestElements:
    @pytest.mark.parametrize("name", ["lines", "text blocks"])
    def test_are_drawn_in_few_grays_over_a_small_part(self, name):
        for key in range(50):
            image = torch.full((3, 96, 64), 2.0)  # a value that nothing draws
            drawn = applied(name, image, key)
            changed = drawn[:, (drawn != 2.0).any(0)]
            assert 0 < changed.shape[1] < 0.35 * 96 * 64
            assert torch.equal(changed[0], changed[1])
            assert len(changed[0].unique()) <= 3

    def test_a_line_is_one_straight_bar(self):
        bars = 0
        for key in range(40):
            drawn = applied("lines", torch.full((1, 64, 64), 2.0), key)[0]
            for gray in set(drawn.unique().tolist()) - {2.0}:
                y, x = np.nonzero(drawn.numpy() == np.float32(gray))
                sides = sorted([np.ptp(y) + 1, np.ptp(x) + 1])
                assert sides[0] <= 2
                assert sides[1] >= 12
                bars += 1
        assert bars > 40


class TestCorruptions:
    def test_gaussian_noise_has_the_standard_deviation_and_is_clipped(self):
        gray = torch.full((1, 300, 300), 0.5)
        noise = corruptions.add_gaussian_noise(gray, generator("n"), gaussian_noise=0.1) - gray
        assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
        assert abs(float(noise.mean())) < 0.002
        assert scipy.stats.kstest(noise.flatten()[:2000].numpy(), scipy.stats.norm(0, 0.1).cdf).pvalue > 1e-3
        black = corruptions.add_gaussian_noise(torch.zeros(1, 300, 300), generator("n"), gaussian_noise=0.1)
        assert float((black == 0).float().mean()) == pytest.approx(0.5, abs=0.01)

    def test_uniform_noise_reaches_as_far_as_it_says(self):
        gray = torch.full((1, 300, 300), 0.5)
        noise = corruptions.add_uniform_noise(gray, generator("n"), uniform_noise=0.25) - gray
        assert float(noise.std()) == pytest.approx(0.25 / 3**0.5, rel=0.02)
        assert scipy.stats.kstest(noise.flatten()[:2000].numpy(), scipy.stats.uniform(-0.25, 0.5).cdf).pvalue > 1e-3

    def test_salt_is_white_and_pepper_black_at_the_rates_asked_in_all_channels_of_a_pixel(self):
        gray = torch.full((3, 200, 200), 0.5)
        turned = corruptions.sprinkle(gray, generator("n"), salt_pepper=1.0, salt_pepper_share=0.06)
        assert set(turned.unique().tolist()) == {0.0, 0.5, 1.0}
        assert torch.equal(turned[0], turned[1])
        for value in (0.0, 1.0):
            count = int((turned[0] == value).sum())
            assert scipy.stats.binomtest(count, 200 * 200, 0.03).pvalue > 1e-4

    def test_salt_and_pepper_come_over_as_many_images_as_asked(self):
        gray = torch.full((1, 40, 40), 0.5)
        count = sum(bool((applied("salt and pepper", gray, key, salt_pepper=0.5) != gray).any()) for key in range(400))
        assert scipy.stats.binomtest(count, 400, 0.5).pvalue > 1e-4

    @pytest.mark.parametrize("size", [(200, 200), (640, 40), (40, 640)])
    def test_one_rectangle_of_the_share_asked_is_erased(self, size):
        image = torch.full((1, *size), 0.5)
        shares, aspects = [], []
        for key in range(300):
            hole = applied("erasing", image, key, erase_min_area=0.02, erase_max_area=0.1, erase_value=1.0)[0] == 1
            y, x = np.nonzero(hole.numpy())
            tall, wide = np.ptp(y) + 1, np.ptp(x) + 1
            assert tall * wide == len(y)  # a full rectangle
            shares.append(float(hole.float().mean()))
            aspects.append(tall / wide)
        assert min(shares) > 0.02 * 0.93  # sides are whole px
        assert max(shares) < 0.1 * 1.07
        assert scipy.stats.kstest(shares, scipy.stats.uniform(0.02, 0.08).cdf).pvalue > 1e-3
        if size == (200, 200):
            assert min(aspects) > 0.25
            assert max(aspects) < 3.6
            assert scipy.stats.kstest(np.log(aspects), scipy.stats.uniform(np.log(0.3), np.log(11)).cdf).pvalue > 1e-3


MISTAKES = [
    ({"flip_horizontal": 1.5}, "flip_horizontal: should be less than or equal to 1; got 1.5"),
    ({"flip_horizonal": 0.5}, "flip_horizonal: no such field; did you mean flip_horizontal"),
    ({"erase_min_area": 0.3}, "erase_min_area must not exceed erase_max_area, not 0.3 and 0.1"),
    ({"crop_height": 5000}, "augment.crop_height must not exceed max_height.*not 5000 and 4096"),
    ({"auto_augment": "mnist"}, "auto_augment: should be 'imagenet', 'cifar10' or 'svhn'; got 'mnist'"),
    ({"rotation_degrees": -1.0}, "rotation_degrees: should be greater than or equal to 0; got -1.0"),
]


@pytest.mark.parametrize(("augment", "message"), MISTAKES)
def test_a_mistake_names_the_field_and_what_is_valid(augment, message):
    with pytest.raises(UserError, match=message):
        parse_config({"data": {"augment": augment}}, "test")
