import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vae_core.errors import UserError
from vae_core.metrics import mse_per_image, ssim_per_image
from vae_core.perceptual import Lpips, lpips_available

TEST_DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
TORCH_HOME = TEST_DATA / "torch_home"
needs_weights = pytest.mark.skipif(
    not (TORCH_HOME / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth").is_file(),
    reason=f"no SqueezeNet weights under {TORCH_HOME}; set VAE_SWEEP_TEST_DATA",
)

SIZES = [(24, 32), (32, 17), (11, 40), (32, 32)]


def padded(sizes=SIZES, channels=3, seed=0):
    """Return images, noisy copies and sizes; the padding holds rubbish that no metric may see."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(sizes), channels, 40, 40, generator=generator)
    copies = (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return copies, images, torch.tensor(sizes)


def crops(copies, images, sizes):
    for copy, image, (height, width) in zip(copies, images, sizes.tolist(), strict=True):
        yield copy[:, :height, :width].double().numpy(), image[:, :height, :width].double().numpy()


def reference_ssim(copy, image, sigma=1.5):
    return structural_similarity(
        copy,
        image,
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=sigma,
        use_sample_covariance=False,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_mse_is_the_mean_over_real_pixels(channels):
    batch = padded(channels=channels)
    expected = [np.square(copy - image).mean() for copy, image in crops(*batch)]
    assert mse_per_image(*batch).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_scikit_image_on_real_pixels(channels):
    batch = padded(channels=channels)
    expected = [reference_ssim(copy, image) for copy, image in crops(*batch)]
    assert ssim_per_image(*batch).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("side", "sigma"), [(10, 1.2), (9, 1.2), (8, 0.9), (5, 0.6), (4, 0.3), (3, 0.3)])
def test_small_images_get_a_smaller_window_with_sigma_in_proportion(side, sigma):
    batch = padded([(side, 20), (30, side)])
    expected = [reference_ssim(copy, image, sigma) for copy, image in crops(*batch)]
    assert ssim_per_image(*batch).tolist() == pytest.approx(expected, abs=1e-5)


def test_an_image_one_pixel_high_is_compared_by_luminance():
    copies, images, sizes = padded([(1, 20)], channels=1)
    copy, image = copies[0, 0, 0, :20], images[0, 0, 0, :20]
    expected = ((2 * copy * image + 1e-4) / (copy.square() + image.square() + 1e-4)).mean()
    assert ssim_per_image(copies, images, sizes).item() == pytest.approx(expected.item(), abs=1e-6)


def test_equal_and_blank_images_score_one():
    for image in (
        torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)),
        torch.zeros(2, 1, 20, 20),
    ):
        sizes = torch.tensor([(20, 20), (12, 15)])
        assert ssim_per_image(image, image, sizes).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
        assert mse_per_image(image, image, sizes).tolist() == [0.0, 0.0]


@pytest.fixture
def torch_home(monkeypatch):
    def use(path):
        monkeypatch.setenv("TORCH_HOME", str(path))

    return use


class TestMissingWeights:
    def test_the_reason_names_the_file_its_place_and_its_source(self, torch_home, tmp_path):
        torch_home(tmp_path)
        reason = lpips_available()
        assert str(tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth") in reason
        assert "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth" in reason
        assert "TORCH_HOME" in reason

    def test_asking_for_lpips_is_a_user_error(self, torch_home, tmp_path):
        torch_home(tmp_path)
        with pytest.raises(UserError, match=r"evaluate\.lpips: .*not found at .*set evaluate\.lpips to off"):
            Lpips("cpu")

    @pytest.mark.parametrize("content", [b"", b"not weights", "other"])
    def test_a_damaged_file_is_a_user_error(self, torch_home, tmp_path, content):
        torch_home(tmp_path)
        path = tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
        path.parent.mkdir(parents=True)
        if content == "other":
            torch.save({"features.0.weight": torch.zeros(1)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0\.pth: cannot be read as SqueezeNet"):
            Lpips("cpu")


@needs_weights
class TestLpips:
    @pytest.fixture(autouse=True)
    def weights(self, torch_home):
        torch_home(TORCH_HOME)

    def test_it_gives_the_value_in_torchmetrics_documentation(self):
        generator = torch.Generator().manual_seed(42)
        first, second = (
            torch.rand(2, 3, 100, 100, generator=generator),
            torch.rand(2, 3, 100, 100, generator=generator),
        )
        sizes = torch.full((2, 2), 100)
        found = Lpips("cpu")(first, second, sizes)
        assert found.tolist() == pytest.approx([0.10236, 0.09377], abs=1e-4)

    def test_loading_leaves_the_global_generator_alone_and_warns_of_nothing(self):
        assert lpips_available() is None
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Lpips("cpu")
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize("channels", [1, 3])
    def test_padding_is_cut_off_and_gray_repeated(self, channels):
        measure = Lpips("cpu")
        batch = padded([(24, 32), (32, 17), (24, 32)], channels=channels)
        found = measure(*batch)
        for row, (copy, image) in enumerate(crops(*batch)):
            rgb = [torch.tensor(pixels).float().expand(3, -1, -1)[None] for pixels in (copy, image)]
            size = torch.tensor([rgb[0].shape[-2:]])
            assert found[row].item() == pytest.approx(measure(*rgb, size).item(), abs=1e-5)

    def test_equal_images_are_at_distance_zero_and_blank_ones_are_finite(self):
        measure = Lpips("cpu")
        blank = torch.zeros(2, 1, 32, 32)
        sizes = torch.full((2, 2), 32)
        assert measure(blank, blank, sizes).tolist() == [0.0, 0.0]
        assert torch.isfinite(measure(blank, 1 - blank, sizes)).all()

    def test_images_too_small_for_the_network_are_enlarged_by_a_whole_factor(self):
        measure = Lpips("cpu")
        copies, images, _ = padded([(9, 30)])
        small = measure(copies, images, torch.tensor([(9, 30)])).item()
        large = [batch[:, :, :9, :30].repeat_interleave(2, 2).repeat_interleave(2, 3) for batch in (copies, images)]
        assert small == pytest.approx(measure(*large, torch.tensor([(18, 60)])).item(), abs=1e-6)
        assert np.isfinite(measure(copies, images, torch.tensor([(1, 1)])).item())
        assert np.isfinite(measure(copies, images, torch.tensor([(17, 17)])).item())
