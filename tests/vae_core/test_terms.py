"""The registry of terms: one contract for all, and each against an independent reference."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from skimage.metrics import structural_similarity

from vae_core.data.batches import Batch
from vae_core.errors import UserError
from vae_core.perceptual import Lpips
from vae_core.schema.terms import TermWeights
from vae_core.terms import TERMS, TermSetup
from vae_core.terms.networks import FeatureNetwork
from vae_core.terms.pixels import scales_that_fit

TEST_DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
TORCH_HOME = TEST_DATA / "torch_home"
has_weights = (TORCH_HOME / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth").is_file()
needs_weights = pytest.mark.skipif(not has_weights, reason=f"no SqueezeNet weights under {TORCH_HOME}")
NETWORKS = ["squeezenet", "vgg16", "resnet18"]
CASES = [pytest.param(name, marks=needs_weights) if name == "lpips" else name for name in TERMS]


@pytest.fixture(autouse=True)
def torch_home(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(TORCH_HOME))


def setup(**changes):
    return TermSetup(**{"device": "cpu", "smallest_side": 24, "weights": "random", **changes})


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_of(images, sizes):
    mask = torch.zeros_like(images[:, :1])
    for row, (height, width) in enumerate(sizes):
        mask[row, :, :height, :width] = 1
    images = images * mask
    indices, labels = torch.arange(len(images)), torch.full((len(images),), -1)
    return Batch(indices=indices, images=images, inputs=images, mask=mask, sizes=torch.tensor(sizes), labels=labels)


def whole(images):
    return batch_of(images, [tuple(images.shape[-2:])] * len(images))


def test_every_term_has_a_weight_in_the_config_and_the_other_way_round():
    assert set(TERMS) == set(TermWeights.model_fields)


@pytest.mark.parametrize("name", CASES)
class TestEveryTerm:
    sizes = ((24, 32), (32, 27), (24, 24))

    @pytest.fixture
    def term(self, name):
        return TERMS[name](setup())

    @pytest.fixture(params=[1, 3])
    def batch(self, request):
        return batch_of(torch.sigmoid(2 * randn(3, request.param, 32, 32, seed=1)), self.sizes)

    def test_it_is_float32_positive_and_per_image(self, term, batch):
        value = term(randn(*batch.images.shape), batch)
        assert value.shape == (3,)
        assert value.dtype == torch.float32
        assert (value > 0).all()

    def test_it_depends_neither_on_companions_nor_on_padding(self, term, batch):
        logits = randn(*batch.images.shape)
        value = term(logits, batch)
        for row, (height, width) in enumerate(self.sizes):
            alone = whole(batch.images[row : row + 1, :, :height, :width])
            assert term(logits[row : row + 1, :, :height, :width], alone).item() == pytest.approx(
                value[row].item(), rel=1e-5
            )
        rubbish = torch.where(batch.mask == 1, logits, 7.0)
        assert torch.equal(term(rubbish, batch), value)

    def test_no_gradient_reaches_the_padding(self, term, batch):
        logits = randn(*batch.images.shape).requires_grad_()
        term(logits, batch).sum().backward()
        assert (logits.grad * (1 - batch.mask)).abs().max() == 0
        assert ((logits.grad * batch.mask).abs().amax((1, 2, 3)) > 0).all()

    def test_it_is_zero_at_a_perfect_reconstruction(self, term, batch):
        value = term(torch.logit(batch.images.clamp(1e-6, 1 - 1e-6)), batch)
        assert (value / batch.mask.sum((1, 2, 3))).abs().max() < 2e-5

    @pytest.mark.parametrize("gray", [0.0, 0.4, 1.0])
    def test_blank_images_give_a_gradient_that_is_finite_and_not_zero(self, term, gray):
        logits = randn(2, 1, 32, 32).requires_grad_()
        term(logits, whole(torch.full((2, 1, 32, 32), gray))).sum().backward()
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad.abs().amax((1, 2, 3)) > 0).all()

    @pytest.mark.parametrize(("logit", "gray"), [(0.0, 0.5), (-100.0, 0.0), (-100.0, 1.0), (100.0, 0.0), (0.0, 0.0)])
    def test_blank_reconstructions_give_a_finite_gradient(self, term, logit, gray):
        logits = torch.full((1, 1, 24, 24), logit, requires_grad=True)
        value = term(logits, whole(torch.full((1, 1, 24, 24), gray)))
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(logits.grad).all()

    def test_autocast_changes_nothing(self, term, batch):
        logits = randn(*batch.images.shape).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = term(logits, batch)
        assert under.dtype == torch.float32
        assert torch.equal(under, term(logits, batch))

    def test_its_scale_follows_the_size_of_the_image(self, name, term):
        """Twice the sides with noise of the same kind: four times the value, up to seams and chance."""
        values = []
        for side in (48, 96):
            images, logits = torch.sigmoid(randn(1, 1, side, side, seed=1)), randn(1, 1, side, side)
            values.append(term(logits, whole(images)).item())
        tolerance = 0.5 if name in ("lpips", "perceptual") else 0.15  # borders are a larger part of features
        assert values[1] / values[0] == pytest.approx(4, rel=tolerance)

    def test_building_it_draws_from_no_global_generator_and_twice_gives_the_same(self, name, batch):
        before = torch.get_rng_state()
        first, second = TERMS[name](setup()), TERMS[name](setup())
        assert torch.equal(before, torch.get_rng_state())
        logits = randn(*batch.images.shape)
        assert torch.equal(first(logits, batch), second(logits, batch))


class TestSsim:
    def test_it_is_one_minus_scikit_image_s_times_the_values(self):
        images, logits = torch.sigmoid(randn(1, 3, 24, 30)), randn(1, 3, 24, 30, seed=1)
        reference = structural_similarity(
            torch.sigmoid(logits)[0].double().numpy(),
            images[0].double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        assert TERMS["ssim"](setup())(logits, whole(images)).item() == pytest.approx(
            (1 - reference) * 3 * 24 * 30, rel=1e-4
        )


class TestMsSsim:
    def test_as_many_scales_as_fit_and_the_name_says_so(self):
        assert [scales_that_fit(side) for side in (10, 11, 21, 22, 44, 88, 160, 176, 5000)] == [
            0,
            1,
            1,
            2,
            3,
            4,
            4,
            5,
            5,
        ]
        assert TERMS["ms_ssim"](setup(smallest_side=44)).name == "ms_ssim_3"

    def test_one_scale_is_a_mistake(self):
        mistake = TERMS["ms_ssim"].mistake(setup(smallest_side=21))
        assert mistake == (
            "loss.terms.ms_ssim: needs two scales and therefore images of at least 22 px, but the smallest side of the "
            "data is 21 px; use loss.terms.ssim"
        )
        assert TERMS["ms_ssim"].mistake(setup(smallest_side=22)) is None

    @pytest.mark.parametrize("scales", [2, 3, 5])
    def test_it_is_the_product_of_wang_et_al_with_scipy_s_gaussians(self, scales):
        smooth = F.interpolate(randn(1, 1, 12, 12), size=(177, 180), mode="bilinear")
        images, logits = torch.sigmoid(2 * smooth), 2 * smooth + 0.3 * randn(1, 1, 177, 180, seed=1)
        term = TERMS["ms_ssim"](setup(smallest_side=11 * 2 ** (scales - 1)))
        assert term.name == f"ms_ssim_{scales}"
        first, second = (each[0, 0].double().numpy() for each in (torch.sigmoid(logits), images))
        weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
        expected = 1.0
        for number, weight in enumerate(weights / weights.sum()):
            luminance, contrast = scipy_ssim(first, second)
            expected *= (luminance * contrast if number == scales - 1 else contrast).mean() ** weight
            first, second = halved(first), halved(second)
        assert 1 - term(logits, whole(images)).item() / (177 * 180) == pytest.approx(expected, abs=1e-5)


def scipy_ssim(first, second):
    def mean(values):
        return scipy.ndimage.gaussian_filter(values, 1.5, truncate=3.5)[5:-5, 5:-5]

    mean1, mean2 = mean(first), mean(second)
    variance1, variance2 = mean(first**2) - mean1**2, mean(second**2) - mean2**2
    luminance = (2 * mean1 * mean2 + 1e-4) / (mean1**2 + mean2**2 + 1e-4)
    return luminance, (2 * (mean(first * second) - mean1 * mean2) + 9e-4) / (variance1 + variance2 + 9e-4)


def halved(image):
    height, width = (side // 2 * 2 for side in image.shape)
    return image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def test_gradient_is_the_mean_difference_of_neighbours_in_both_directions():
    images, logits = torch.sigmoid(randn(1, 2, 5, 7)), randn(1, 2, 5, 7, seed=1)
    difference = (torch.sigmoid(logits) - images).double().numpy()
    expected = np.abs(np.diff(difference, axis=2)).mean() + np.abs(np.diff(difference, axis=3)).mean()
    assert TERMS["gradient"](setup())(logits, whole(images)).item() == pytest.approx(expected * 2 * 5 * 7, rel=1e-5)


class TestPerceptual:
    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("distance", ["l1", "mse"])
    def test_it_sums_the_mean_distance_of_each_layer_s_features(self, network, distance):
        images, logits = torch.sigmoid(randn(2, 1, 32, 32)), randn(2, 1, 32, 32, seed=1)
        features = FeatureNetwork(network, weights="random", path=None, device="cpu").features
        measure = F.l1_loss if distance == "l1" else F.mse_loss
        expected = [
            sum(
                measure(mine, target).item()
                for mine, target in zip(
                    features(torch.sigmoid(logits[row : row + 1])), features(images[row : row + 1]), strict=True
                )
            )
            for row in range(2)
        ]
        term = TERMS["perceptual"](setup(network=network, distance=distance))
        assert (term(logits, whole(images)) / 1024).tolist() == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("network", NETWORKS)
    def test_the_network_stays_frozen(self, network):
        term = TERMS["perceptual"](setup(network=network))
        parts = term._network._parts
        before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
        logits = randn(2, 3, 32, 32).requires_grad_()
        term(logits, whole(torch.full((2, 3, 32, 32), 0.5))).sum().backward()
        assert (logits.grad.abs().amax((1, 2, 3)) > 0).all()
        assert all(torch.equal(before[name], tensor) for name, tensor in parts.state_dict().items())
        assert not parts.training
        assert all(not weight.requires_grad and weight.grad is None for weight in parts.parameters())

    @pytest.mark.parametrize(
        ("network", "channels"), [("vgg16", [64, 128, 256, 512]), ("resnet18", [64, 64, 128, 256])]
    )
    def test_features_come_from_the_documented_layers(self, network, channels):
        from torchvision import models

        reference = getattr(models, network)(weights=None).eval()
        found = FeatureNetwork(network, weights="random", path=None, device="cpu")
        assert [each.shape[1] for each in found.features(torch.rand(1, 1, 32, 32))] == channels
        if network == "vgg16":
            after = [type(layer).__name__ for layer in reference.features]
            assert [after[index] for index in (3, 8, 15, 22)] == ["ReLU"] * 4
            assert [sum(kind == "MaxPool2d" for kind in after[:index]) for index in (3, 8, 15, 22)] == [0, 1, 2, 3]

    @needs_weights
    def test_squeezenet_s_features_are_torchvision_s_on_normalised_images(self):
        from torchvision import models, transforms

        reference = models.squeezenet1_1(weights=None).eval()
        file = TORCH_HOME / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth"
        reference.load_state_dict({k: v.float() for k, v in torch.load(file, weights_only=True).items()})
        images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
        values = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images)
        found = FeatureNetwork("squeezenet", weights="imagenet", path=None, device="cpu").features(images)
        for number, layer in enumerate(reference.features):
            values = layer(values)
            if number in (1, 4, 7, 9, 10, 11, 12):
                assert torch.allclose(found.pop(0), values, atol=1e-5)
        assert found == []

    @pytest.mark.parametrize(
        ("network", "file"), [("vgg16", "vgg16-397923af.pth"), ("resnet18", "resnet18-f37072fd.pth")]
    )
    def test_missing_weights_are_one_message_with_file_place_and_source(self, network, file, monkeypatch, tmp_path):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        mistake = TERMS["perceptual"].mistake(setup(network=network, weights="imagenet"))
        assert "loss.terms.perceptual: " in mistake
        assert str(tmp_path / "hub/checkpoints" / file) in mistake
        assert f"https://download.pytorch.org/models/{file}" in mistake
        assert "TORCH_HOME" in mistake
        assert "loss.perceptual.weights to random" in mistake
        assert TERMS["perceptual"].mistake(setup(network=network, weights="random")) is None

    @pytest.mark.parametrize("network", ["resnet18", "squeezenet"])
    def test_a_checkpoint_is_recognised_by_its_names(self, network, tmp_path):
        from torchvision import models

        constructor = {"squeezenet": "squeezenet1_1"}.get(network, network)
        with torch.random.fork_rng():
            theirs = getattr(models, constructor)(weights=None, num_classes=3).eval()
        torch.save(theirs.state_dict(), tmp_path / "mine.pth")
        term = TERMS["perceptual"](setup(network="checkpoint", path=str(tmp_path / "mine.pth"), weights="imagenet"))
        own = dict(theirs.named_parameters())
        first = next(iter(term._network._parts.parameters()))
        assert torch.equal(first, own["conv1.weight" if network == "resnet18" else "features.0.weight"])

    def test_a_checkpoint_that_is_missing_or_something_else_is_refused(self, tmp_path):
        missing = setup(network="checkpoint", path=str(tmp_path / "no.pth"), weights="imagenet")
        assert "no file at" in TERMS["perceptual"].mistake(missing)
        torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
        other = setup(network="checkpoint", path=str(tmp_path / "other.pth"), weights="imagenet")
        with pytest.raises(UserError, match=r"other\.pth: cannot be read as weights of checkpoint \(no state dict of"):
            TERMS["perceptual"](other)


@needs_weights
class TestLpips:
    def test_it_is_the_metric_per_pixel(self):
        images, logits = torch.sigmoid(randn(2, 1, 32, 40)), randn(2, 1, 32, 40, seed=1)
        value = TERMS["lpips"](setup())(logits, whole(images)) / (32 * 40)
        metric = Lpips("cpu")(torch.sigmoid(logits), images, torch.tensor([(32, 40)] * 2))
        assert torch.equal(value, metric)

    def test_the_value_in_torchmetrics_documentation_has_a_gradient(self):
        generator = torch.Generator().manual_seed(42)
        first, second = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
        first.requires_grad_()
        found = Lpips("cpu").distance(first, second, torch.full((2, 2), 100))
        assert found.tolist() == pytest.approx([0.10236, 0.09377], abs=1e-5)
        found.sum().backward()
        assert (first.grad.abs().amax((1, 2, 3)) > 0).all()

    def test_features_of_zero_have_a_finite_gradient(self):
        measure = Lpips("cpu")
        for weight in measure._network.net.parameters():
            weight.zero_()  # every feature of every image is exactly 0
        images = torch.zeros(2, 1, 32, 32, requires_grad=True)
        value = measure.distance(images, torch.ones(2, 1, 32, 32), torch.full((2, 2), 32))
        value.sum().backward()
        assert value.tolist() == [0.0, 0.0]
        assert torch.isfinite(images.grad).all()

    def test_missing_weights_are_a_mistake(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        assert "loss.terms.lpips: SqueezeNet weights not found at" in TERMS["lpips"].mistake(setup())
