import math
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from skimage.metrics import structural_similarity

from vae_core.config import override, parse_config
from vae_core.errors import UserError
from vae_core.evaluation import Evaluator
from vae_core.models.vae import build_model
from vae_core.perceptual import Lpips
from vae_core.random_streams import generator

TEST_DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
TORCH_HOME = TEST_DATA / "torch_home"
TREE = {
    "data": {"pad_multiple": 16},
    "model": {"encoder_widths": [4, 8, 8], "decoder_widths": [8, 8, 4], "norm_groups": 4, "latent_dim": 5},
    "loss": {"reconstruction": "laplace", "sigma": 0.5},
    "evaluate": {"lpips": "off"},
}
NAMES = ["elbo", "reconstruction", "kl", "objective", "elbo_per_pixel", "scale", "mse", "ssim"]


def configured(**changes):
    return parse_config(override(TREE, changes), "test")


def built(config, channels=1):
    model = build_model(config.model, channels, 0, "cpu")
    with torch.no_grad():  # an untrained model's posterior is so close to the prior that little could go wrong
        model.to_mu.weight.mul_(20)
        model.to_logvar.weight.mul_(20)
        model.decoder.project.weight.mul_(5)
    return model


@torch.no_grad()
def encoded(model, dataset, index):
    """Return image, padded size, mu, logvar and z of one image, computed alone."""
    image = torch.tensor(dataset.image(int(index)).copy()).double() / 255
    padded = torch.zeros(image.shape[0], *(-(-side // 16) * 16 for side in image.shape[1:]))
    padded[:, : image.shape[1], : image.shape[2]] = image
    mu, logvar = (row[0].double() for row in model.encode(padded[None]))
    noise = torch.randn(5, generator=generator("evaluation", int(index)))
    return image, tuple(padded.shape[1:]), mu, logvar, mu + (logvar / 2).exp() * noise


@torch.no_grad()
def decoded(model, z, padded_size, image):
    logits = model.decode(z[None].float(), padded_size)[0, :, : image.shape[1], : image.shape[2]]
    return torch.sigmoid(logits.double()).numpy()


def plain_metrics(model, dataset, split, beta):
    """Recompute the panel image by image with scipy and scikit-image (Gaussian; trained on Laplace)."""
    squares = []
    for index in dataset.splits["train"]:
        image, size, _, _, z = encoded(model, dataset, index)
        squares.append(np.square(decoded(model, z, size, image) - image.numpy()).ravel())
    scale = math.sqrt(np.concatenate(squares).mean())
    rows = {name: [] for name in ["elbo", "reconstruction", "kl", "objective", "elbo_per_pixel", "mse", "ssim"]}
    mus, variances, zs, errors = [], [], [], []
    for index in dataset.splits[split]:
        image, size, mu, logvar, z = encoded(model, dataset, index)
        drawn, target = decoded(model, z, size, image), image.numpy()
        nll = -scipy.stats.norm(drawn, scale).logpdf(target).sum()
        kl = 0.5 * float((mu**2 + logvar.exp() - 1 - logvar).sum())
        rows["elbo"].append(-nll - kl)
        rows["reconstruction"].append(nll)
        rows["kl"].append(kl)
        rows["objective"].append(-scipy.stats.laplace(drawn, 0.5).logpdf(target).sum() + beta * kl)
        rows["elbo_per_pixel"].append((-nll - kl) / target.size)
        rows["mse"].append(np.square(drawn - target).mean())
        rows["ssim"].append(
            structural_similarity(
                drawn,
                target,
                channel_axis=0,
                data_range=1.0,
                gaussian_weights=True,
                use_sample_covariance=False,
            )
        )
        mus.append(mu.numpy())
        variances.append(logvar.exp().numpy())
        zs.append(z)
        errors.append(np.square(drawn - target).sum())
    metrics = {name: np.mean(values) for name, values in rows.items()} | {"scale": scale}
    metrics["active_units"] = int((np.var(mus, axis=0, ddof=1) > 0.01).sum())
    metrics["latent_variance"] = np.mean(variances)
    metrics["mu_std"] = np.std(mus, axis=0, ddof=1).mean()
    metrics["exchange_cost"] = plain_exchange(model, dataset, split, zs) / np.sum(errors) - 1
    metrics["mutual_information"] = plain_information(zs, mus, variances)
    return metrics


def plain_information(zs, mus, variances):
    log_q = [
        [scipy.stats.norm(mu, np.sqrt(v)).logpdf(z).sum() for mu, v in zip(mus, variances, strict=True)] for z in zs
    ]
    own = [row[position] for position, row in enumerate(log_q)]
    return np.mean(own - scipy.special.logsumexp(log_q, axis=1)) + math.log(len(zs))


def plain_exchange(model, dataset, split, zs):
    total = 0.0
    for position, index in enumerate(dataset.splits[split]):
        image, size, *_ = encoded(model, dataset, index)
        other = zs[(position + len(zs) // 2) % len(zs)]
        total += np.square(decoded(model, other, size, image) - image.numpy()).sum()
    return total


@pytest.mark.parametrize("channels", [1, 3])
class TestAgainstAPlainRecomputation:
    def test_test_metrics(self, make_dataset, channels):
        config, dataset = configured(), make_dataset(40, channels)
        model = built(config, channels)
        found = Evaluator(config, dataset, "cpu").evaluate(model, "test", 2.0).metrics
        expected = {f"test/{name}": value for name, value in plain_metrics(model, dataset, "test", 2.0).items()}
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert abs(found["test/exchange_cost"]) > 1e-3

    def test_val_metrics_and_vectors(self, make_dataset, channels):
        config, dataset = configured(), make_dataset(40, channels)
        model = built(config, channels)
        result = Evaluator(config, dataset, "cpu").evaluate(model, "val", 0.5)
        plain = plain_metrics(model, dataset, "val", 0.5)
        expected = {f"val/{name}": plain[name] for name in NAMES} | {
            "latent/active_units": plain["active_units"],
            "latent/variance": plain["latent_variance"],
            "latent/mu_std": plain["mu_std"],
        }
        assert result.metrics == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert [len(vector) for vector in result.vectors.values()] == [5, 5, 5]
        assert sum(result.vectors["kl_per_dim"]) == pytest.approx(plain["kl"], rel=1e-4)
        assert np.mean(result.vectors["latent_variance_per_dim"]) == pytest.approx(plain["latent_variance"], rel=1e-4)
        assert np.mean(result.vectors["mu_std_per_dim"]) == pytest.approx(plain["mu_std"], rel=1e-4)


@pytest.fixture
def setting(make_dataset):
    config, dataset = configured(), make_dataset(40)
    return config, dataset, built(config)


def test_two_evaluations_are_bit_equal_and_the_pixel_budget_changes_only_rounding(setting):
    config, dataset, model = setting
    first, second = (Evaluator(config, dataset, "cpu").evaluate(model, "val", 1.0) for _ in range(2))
    assert first == second
    single = Evaluator(config, dataset, "cpu", pixel_budget=1).evaluate(model, "val", 1.0)
    assert single.metrics == pytest.approx(first.metrics, rel=1e-5)
    assert single.vectors["kl_per_dim"] == pytest.approx(first.vectors["kl_per_dim"], rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_the_mode_the_gradients_and_the_global_generators_alone(setting, training):
    config, dataset, model = setting
    model.train(training)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - that nothing draws from it
    Evaluator(config, dataset, "cpu").evaluate(model, "test", 1.0)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_the_mode_is_restored_after_a_failure(setting, monkeypatch):
    config, dataset, model = setting
    monkeypatch.setattr(model, "decode", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        Evaluator(config, dataset, "cpu").evaluate(model.train(), "val", 1.0)
    assert model.training


def test_the_evaluation_likelihood_and_not_the_training_loss_defines_the_elbo(setting):
    config, dataset, model = setting
    other = configured(**{"loss.reconstruction": "gaussian", "loss.sigma": 2.0, "loss.beta": 9.0})
    first, second = (Evaluator(each, dataset, "cpu").evaluate(model, "val", 1.0).metrics for each in (config, other))
    assert {name for name in first if first[name] != second[name]} == {"val/objective"}


def test_bernoulli_has_no_scale(make_dataset):
    config, dataset = configured(**{"evaluate.likelihood": "bernoulli"}), make_dataset(40)
    model = built(config)
    metrics = Evaluator(config, dataset, "cpu").evaluate(model, "val", 1.0).metrics
    losses = []
    for index in dataset.splits["val"]:
        image, size, _, _, z = encoded(model, dataset, index)
        p, x = decoded(model, z, size, image), image.numpy()
        losses.append(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum())
    assert "val/scale" not in metrics
    assert metrics["val/reconstruction"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_laplace_scale_is_the_mean_absolute_error(make_dataset):
    config, dataset = configured(**{"evaluate.likelihood": "laplace"}), make_dataset(40)
    model = built(config)
    errors = []
    for index in dataset.splits["train"]:
        image, size, _, _, z = encoded(model, dataset, index)
        errors.append(np.abs(decoded(model, z, size, image) - image.numpy()).ravel())
    metrics = Evaluator(config, dataset, "cpu").evaluate(model, "val", 1.0).metrics
    assert metrics["val/scale"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)


def test_the_scale_is_fitted_on_a_fixed_choice_of_training_images(make_dataset, monkeypatch):
    config, dataset = configured(**{"evaluate.scale_images": 7}), make_dataset(40)
    seen = []
    read = dataset.image
    monkeypatch.setattr(dataset, "image", lambda index: seen.append(index) or read(index))
    for _ in range(2):
        Evaluator(config, dataset, "cpu").evaluate(built(config), "val", 1.0)
    chosen = [index for index in seen if index not in dataset.splits["val"]]
    assert len(chosen) == 14
    assert sorted(chosen[:7]) == sorted(chosen[7:])
    assert len(set(chosen)) == 7
    assert set(chosen) <= set(dataset.splits["train"])


def test_reconstructions_are_those_that_are_measured(setting):
    config, dataset, model = setting
    evaluator = Evaluator(config, dataset, "cpu")
    targets, drawn = evaluator.examples(model, 4)
    assert len(targets) == len(drawn) == 4
    found = evaluator.reconstruct(model, dataset.splits["val"])
    errors = []
    for index, image in zip(dataset.splits["val"], found, strict=True):
        target, size, _, _, z = encoded(model, dataset, index)
        assert image.shape == target.shape
        assert np.allclose(image, decoded(model, z, size, target), atol=1e-5)
        errors.append(float((image - target).square().mean()))
    assert np.mean(errors) == pytest.approx(evaluator.evaluate(model, "val", 1.0).metrics["val/mse"], rel=1e-5)
    assert evaluator.typical_size == (16, 16)


def test_the_exchange_cost_of_val_is_measured_on_request(setting):
    config, dataset, model = setting
    evaluator = Evaluator(config, dataset, "cpu")
    assert "val/exchange_cost" not in evaluator.evaluate(model, "val", 1.0).metrics
    assert evaluator.evaluate(model, "val", 1.0, exchange=True).metrics["val/exchange_cost"] != 0


def test_a_split_of_one_image_is_refused(make_dataset):
    config, dataset = configured(), make_dataset(5)
    with pytest.raises(UserError, match=r"data\.test_fraction: leaves 1 images in test; at least 2"):
        Evaluator(config, dataset, "cpu").evaluate(built(config), "test", 1.0)


class TestLpips:
    def test_off_is_off(self, setting):
        config, dataset, model = setting
        result = Evaluator(config, dataset, "cpu").evaluate(model, "val", 1.0)
        assert result.tags == {"lpips": "off"}
        assert "val/lpips" not in result.metrics

    def test_without_weights_auto_says_so_and_required_refuses(self, setting, monkeypatch, tmp_path):
        _, dataset, model = setting
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        result = Evaluator(configured(**{"evaluate.lpips": "auto"}), dataset, "cpu").evaluate(model, "val", 1.0)
        assert result.tags["lpips"].startswith("missing: SqueezeNet weights not found at")
        assert "val/lpips" not in result.metrics
        with pytest.raises(UserError, match=r"evaluate\.lpips: LPIPS cannot be measured: SqueezeNet weights"):
            Evaluator(configured(**{"evaluate.lpips": "required"}), dataset, "cpu")

    @pytest.mark.skipif(
        not (TORCH_HOME / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth").is_file(),
        reason=f"no SqueezeNet weights under {TORCH_HOME}; set VAE_SWEEP_TEST_DATA",
    )
    @pytest.mark.parametrize("mode", ["auto", "required"])
    def test_with_weights_it_is_the_mean_over_images(self, setting, monkeypatch, mode):
        _, dataset, model = setting
        monkeypatch.setenv("TORCH_HOME", str(TORCH_HOME))
        evaluator = Evaluator(configured(**{"evaluate.lpips": mode}), dataset, "cpu")
        result = evaluator.evaluate(model, "val", 1.0)
        distances = []
        for index, image in zip(
            dataset.splits["val"], evaluator.reconstruct(model, dataset.splits["val"]), strict=True
        ):
            target = torch.tensor(dataset.image(int(index)).copy())[None] / 255
            distances.append(Lpips("cpu")(image[None], target, torch.tensor([image.shape[1:]])).item())
        assert result.tags == {"lpips": "measured"}
        assert result.metrics["val/lpips"] == pytest.approx(np.mean(distances), rel=1e-4)
