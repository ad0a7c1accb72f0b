"""The plain networks against the course material's, the spatial bottleneck, and the autoencoder."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_core.config import load_base, override, parse_config
from vae_core.errors import UserError
from vae_core.evaluation import Evaluator
from vae_core.models.latent import Latent, LatentModel
from vae_core.models.vae import build_model, check_on_meta
from vae_core.trainer import Trainer

SMALL = {"encoder_widths": [4, 8], "decoder_widths": [8, 4], "norm_groups": 2, "latent_dim": 3, "cbam": False}


def base(name, **changes):
    return parse_config(override(load_base(name, "test"), changes), "test")


def built(config):
    return build_model(config.model, config.data.channels, 0, "cpu").eval()


def pixels(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def copied(layers, weights):
    """Fill plain `layers` with the parameters of a model, in order."""
    for own, given in zip(layers.parameters(), weights, strict=True):
        assert own.shape == given.shape
        own.data.copy_(given.data)
    return layers


class TestPlainNetworks:
    def test_conv_is_two_convolutions_and_a_flattening_at_28_px(self):
        model = built(base("fashion-mnist-conv"))
        encoder = copied(
            nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten()),
            model.encoder.parameters(),
        )
        up = copied(
            nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)),
            model.decoder.layers.parameters(),
        )
        images, z = pixels(3, 1, 28, 28), pixels(3, 10)
        mu, _ = model.encode(images)
        assert model.to_mu.weight.shape == (10, 3136)
        assert torch.allclose(mu, model.to_mu(encoder(images)), atol=1e-5)
        expected = up(F.relu(model.decoder.project(z)).view(-1, 64, 7, 7))
        assert torch.allclose(model.decode(z, (28, 28)), expected, atol=1e-5)

    def test_conv_takes_any_multiple_of_its_stride(self):
        model = built(base("fashion-mnist-conv"))
        assert model.decode(model.encode(pixels(2, 1, 44, 8))[0], (44, 8)).shape == (2, 1, 44, 8)

    def test_mlp_is_784_400_20(self):
        model = built(base("mnist-mlp"))
        encoder = copied(nn.Sequential(nn.Linear(784, 400), nn.ReLU()), model.encoder.parameters())
        decoder = copied(nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784)), model.decoder.parameters())
        images, z = pixels(3, 1, 28, 28), pixels(3, 20)
        mu, _ = model.encode(images)
        assert torch.allclose(mu, model.to_mu(encoder(images.view(-1, 784))), atol=1e-6)
        assert torch.allclose(model.decode(z, (28, 28)), decoder(z).view(-1, 1, 28, 28), atol=1e-6)

    def test_mlp_refuses_another_size_before_anything_runs(self):
        config = base("mnist-mlp")
        assert (
            check_on_meta(config, [(28, 28)])
            == 784 * 400 + 400 + 2 * (400 * 20 + 20) + 20 * 400 + 400 + 400 * 784 + 784
        )
        with pytest.raises(UserError, match="takes images of image_size 28 x 28 px, not 28 x 32"):
            check_on_meta(config, [(28, 28), (28, 32)])
        with pytest.raises(ValueError, match="image_size 28 x 28 px, not 32 x 28"):
            built(config).decode(torch.zeros(1, 20), (32, 28))

    @pytest.mark.parametrize(("name", "most"), [("images-small", 250_000), ("images", 20_000_000)])
    def test_the_rgb_models_stay_under_their_limits(self, name, most):
        config = base(name)
        assert config.data.channels == 3
        assert most / 10 < check_on_meta(config, [(config.data.width, config.data.width)]) < most


def spatial(**changes):
    return parse_config(
        override(
            {
                "model": SMALL | {"bottleneck": "spatial", "stem_kernel": 3},
                "data": {"pad_multiple": 8},
                "evaluate": {"lpips": "off"},
                "train": {"device": "cpu", "epochs": 1},
            },
            changes,
        ),
        "test",
    )


class TestSpatialBottleneck:
    def test_the_rate_sums_over_positions(self):
        model = built(spatial())
        latent = model.infer(pixels(2, 1, 16, 8), torch.zeros(2, model.noise_size((16, 8))))
        posterior = Normal(latent.mu, (latent.logvar / 2).exp())
        expected = kl_divergence(posterior, Normal(0.0, 1.0)).sum((2, 3))
        assert latent.kl.shape == (2, 3)
        assert torch.allclose(latent.kl, expected, rtol=1e-5)
        assert torch.equal(latent.z, latent.mu)

    def test_it_has_neither_pyramid_nor_grid_so_a_shifted_image_shifts_the_code(self):
        model = built(spatial(**{"model.network": "conv"}))
        wide = pixels(1, 1, 16, 48)
        mu = model.encode(wide)[0]
        shifted = model.encode(wide.roll(4, dims=3))[0]
        assert torch.allclose(shifted[..., 3:-2], mu[..., 2:-3], atol=1e-6)

    def test_active_units_count_variance_over_images_and_positions(self, make_dataset):
        config, dataset = spatial(), make_dataset(40)
        model = built(config)
        with torch.no_grad():
            model.to_mu.weight.mul_(torch.tensor([30.0, 1e-4, 1.0])[:, None, None, None])
        result = Evaluator(config, dataset, "cpu").evaluate(model, "val", 1.0)
        rows = []
        for index in dataset.splits["val"]:
            height, width = dataset.sizes[index]
            image = torch.zeros(1, 1, -(-int(height) // 8) * 8, -(-int(width) // 8) * 8)
            image[0, :, :height, :width] = torch.tensor(dataset.image(int(index)).copy()) / 255
            rows.append(model.encode(image)[0].detach()[0].flatten(1).T.double().numpy())
        std = np.concatenate(rows).std(axis=0, ddof=1)
        assert result.vectors["mu_std_per_dim"] == pytest.approx(std.tolist(), rel=1e-4, abs=1e-9)
        assert result.metrics["latent/active_units"] == (std**2 > 0.01).sum()
        assert 0 < result.metrics["latent/active_units"] < 3

    def test_exchanging_codes_between_images_of_different_sizes_costs_something(self, make_dataset):
        """The decoder shows the code: the exchange cost is that of swapped pictures, stretched by the nearest."""
        config, dataset = spatial(), make_dataset(30, sizes=((24, 16), (16, 16)))
        evaluator = Evaluator(config, dataset, "cpu")
        metrics = evaluator.evaluate(_Thumbnails(), "test", 1.0).metrics
        pictures = [torch.tensor(dataset.image(int(i)).copy())[None] / 255 for i in dataset.splits["test"]]
        codes = [F.avg_pool2d(picture, 4) for picture in pictures]
        own = cost = 0.0
        for position, picture in enumerate(pictures):
            other = codes[(position + len(codes) // 2) % len(codes)]
            swapped = F.interpolate(other, codes[position].shape[2:], mode="nearest")
            for code, add in ((codes[position], "own"), (swapped, "cost")):
                shown = F.interpolate(code, picture.shape[2:], mode="nearest").clamp(1e-4, 1 - 1e-4)
                error = float((shown - picture).square().sum())
                own, cost = (own + error, cost) if add == "own" else (own, cost + error)
        assert {picture.shape[2] for picture in pictures} == {24, 16}
        assert metrics["test/exchange_cost"] == pytest.approx(cost / own - 1, rel=1e-3)


class _Thumbnails(LatentModel):
    """The code is the image at a quarter of its size, and the decoder shows it."""

    has_prior = False

    def noise_size(self, size):
        return 0

    def infer(self, images, noise, labels=None):
        code = F.avg_pool2d(images, 4)
        return Latent(code, code, None, torch.zeros(len(images), 1))

    def decode(self, z, size, labels=None, skips=()):
        return torch.logit(F.interpolate(z, size, mode="nearest").clamp(1e-4, 1 - 1e-4))

    def prior(self, noise, size):
        return noise


class TestAutoencoder:
    @pytest.fixture
    def trained(self, make_dataset):
        config = spatial(**{"model.family": "ae", "model.bottleneck": "vector"})
        trainer = Trainer(config, make_dataset(30))
        list(trainer.fit())
        return trainer

    def test_its_code_has_no_noise_and_no_rate(self, trained):
        assert trained.model.noise_size((16, 8)) == 0
        latent = trained.model.infer(pixels(2, 1, 16, 8), torch.zeros(2, 0))
        assert latent.z is latent.mu
        assert latent.logvar is None
        assert latent.kl.tolist() == [[0.0] * 3] * 2

    def test_another_scale_of_its_codes_changes_no_verdict(self, trained):
        before = trained.test()
        weights = trained._best["model"]
        for name in weights:
            if name.startswith("to_code"):
                weights[name] = weights[name] * 0.01
            elif name == "decoder.project.weight":
                weights[name] = weights[name] * 100
        after = trained.test()
        assert after.metrics["test/mse"] == pytest.approx(before.metrics["test/mse"], rel=1e-3)
        assert after.metrics["test/active_units"] == 0
        assert after.verdict.name == before.verdict.name
        assert "active_units" not in after.verdict.numbers

    def test_it_is_judged_without_a_rate_and_says_what_its_elbo_is_not(self, trained):
        result = trained.test()
        assert "rate" not in result.verdict.numbers
        assert "nats" not in result.verdict.because
        assert result.metrics["test/elbo"] == -result.metrics["test/reconstruction"]
        assert "test/latent_variance" not in result.metrics
        assert trained.tags["elbo"] == "no bound but -reconstruction: family ae has no prior"
