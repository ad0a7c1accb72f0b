import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from vae_core.config import parse_config
from vae_core.diagnostics import (
    active_dimensions,
    active_units,
    collapse_verdict,
    curve_roughness,
    kl_spectrum,
    latent_variance,
    mu_std,
    mutual_information,
)
from vae_core.evaluation import Evaluator
from vae_core.losses import kl_per_dimension, reparameterize
from vae_core.models.latent import Latent

HEALTHY = {"active_units": 9, "rate": 20.0, "exchange_cost": 0.5, "latent_dim": 32, "max_active_units": 12}


class TestMutualInformation:
    def sampled(self, mu, logvar):
        noise = torch.tensor(np.random.default_rng(1).standard_normal(mu.shape))
        return mu + (logvar / 2).exp() * noise

    def test_a_collapsed_encoder_tells_nothing(self):
        mu, logvar = torch.full((300, 4), 0.3), torch.full((300, 4), -0.2)
        assert abs(mutual_information(self.sampled(mu, logvar), mu, logvar)) < 1e-9

    def test_separate_posteriors_tell_the_image(self):
        mu = torch.arange(300.0).double()[:, None] * torch.ones(1, 2)
        logvar = torch.full((300, 2), -8.0).double()
        assert mutual_information(self.sampled(mu, logvar), mu, logvar) == pytest.approx(math.log(300), abs=1e-6)

    def test_against_densities_image_by_image(self, monkeypatch):
        monkeypatch.setattr("vae_core.diagnostics._PAIRS_AT_ONCE", 7 * 40)  # several blocks of rows
        random = np.random.default_rng(2)
        mu, logvar = (torch.tensor(random.standard_normal((40, 3))) for _ in range(2))
        z = self.sampled(mu, logvar)
        log_q = torch.distributions.Normal(mu, (logvar / 2).exp()).log_prob(z[:, None]).sum(2)  # (z of i, x of n)
        expected = float((log_q.diagonal() - torch.logsumexp(log_q, 1) + math.log(40)).mean())
        assert mutual_information(z, mu, logvar) == pytest.approx(expected, abs=1e-12)
        assert 0.1 < expected < math.log(40) - 0.1

    def test_a_linear_channel_has_its_closed_form(self):
        """z = mu + noise with mu ~ N(0, 1 - s), noise ~ N(0, s) in M dimensions: I = -M / 2 ln s."""
        random = np.random.default_rng(3)
        mu = torch.tensor(random.standard_normal((4000, 2)) * math.sqrt(0.7))
        logvar = torch.full((4000, 2), math.log(0.3)).double()
        assert mutual_information(self.sampled(mu, logvar), mu, logvar) == pytest.approx(-math.log(0.3), abs=0.05)


class TestLinearVae:
    """Probabilistic PCA (Tipping and Bishop 1999): the optimal linear VAE has closed forms.

    For eigenvalues l_j of the data and noise variance s: Var(mu_j) = 1 - s / l_j, sigma_j^2 = s / l_j,
    KL_j = ln(l_j / s) / 2. A dimension with l_j = s carries nothing.
    """

    eigenvalues = np.array([0.5, 8.0, 0.505, 1.0, 0.51, 0.5, 3.0])
    noise = 0.5

    def encoded(self, count=500):
        random = np.random.default_rng(0)
        dims = len(self.eigenvalues)
        axes = np.linalg.qr(random.standard_normal((dims, dims)))[0]
        white = random.standard_normal((count, dims))
        white -= white.mean(0)
        white = white @ np.linalg.inv(np.linalg.cholesky(white.T @ white / (count - 1))).T  # exact covariance
        data = white * np.sqrt(self.eigenvalues) @ axes.T
        weights = axes * np.sqrt(self.eigenvalues - self.noise)
        precision = np.linalg.inv(weights.T @ weights + self.noise * np.eye(dims))
        mu = data @ weights @ precision
        logvar = np.log(np.diag(self.noise * precision)) * np.ones((count, 1))
        return torch.tensor(mu), torch.tensor(logvar)

    def test_active_units(self):
        mu, _ = self.encoded()
        expected = 1 - self.noise / self.eigenvalues > 0.01
        assert expected.tolist() == [False, True, False, True, True, False, True]
        assert active_dimensions(mu).tolist() == expected.tolist()
        assert active_units(mu) == 4

    def test_latent_variance_and_std_of_mu(self):
        mu, logvar = self.encoded()
        assert latent_variance(logvar).tolist() == pytest.approx(self.noise / self.eigenvalues)
        assert mu_std(mu).tolist() == pytest.approx(np.sqrt(1 - self.noise / self.eigenvalues), abs=1e-9)

    def test_kl_spectrum(self):
        mu, logvar = self.encoded(count=2000)
        expected = np.sort(0.5 * np.log(self.eigenvalues / self.noise))[::-1]
        assert kl_spectrum(kl_per_dimension(mu, logvar)).tolist() == pytest.approx(expected, abs=1e-3)


def test_active_units_divide_by_n_minus_one():
    spread = torch.tensor([[0.0, 0.0], [0.1415, 0.1414]])  # variances 0.0100112 and 0.0099970 over n - 1
    assert active_dimensions(spread).tolist() == [True, False]


class TestVerdict:
    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({}, "none"),
            ({"active_units": 0}, "full"),
            ({"rate": 0.49}, "full"),
            ({"rate": 0.49, "exchange_cost": 0.0}, "full"),
            ({"rate": 0.51, "exchange_cost": 0.0099}, "ignored"),
            ({"rate": 0.51, "exchange_cost": 0.01}, "none"),
            ({"exchange_cost": -0.2, "active_units": 1}, "ignored"),
            ({"active_units": 6, "max_active_units": 12}, "partial"),
            ({"active_units": 7, "max_active_units": 12}, "none"),
            ({"active_units": 3, "max_active_units": 3}, "partial"),
            ({"active_units": 4, "max_active_units": 4}, "none"),
            ({"active_units": 4, "max_active_units": 0}, "none"),
        ],
    )
    def test_thresholds(self, change, name):
        assert collapse_verdict(**(HEALTHY | change)).name == name

    def test_it_says_why_and_keeps_its_numbers(self):
        verdict = collapse_verdict(**(HEALTHY | {"active_units": 6}))
        assert verdict.because == "6 of 32 units active, fallen from 12 during the run"
        assert verdict.numbers == {name: float(value) for name, value in (HEALTHY | {"active_units": 6}).items()}
        assert "under 0.5" in collapse_verdict(**(HEALTHY | {"rate": 0.2})).because
        assert "costs 0.30%, under 1%" in collapse_verdict(**(HEALTHY | {"exchange_cost": 0.003})).because


def test_codes_without_a_scale_of_their_own_are_judged_by_the_exchange_alone():
    healthy = HEALTHY | {"active_units": None, "rate": None}
    assert collapse_verdict(**healthy).name == "none"
    ignored = collapse_verdict(**(healthy | {"exchange_cost": 0.003}))
    assert (ignored.name, ignored.because) == ("ignored", "exchanging z between images costs 0.30%, under 1%")
    assert "active_units" not in ignored.numbers


def test_roughness_is_the_deviation_of_second_differences():
    assert curve_roughness([9.0, 7.0, 5.0, 3.0]) == 0.0
    assert curve_roughness([1.0, 2.0, 3.0]) is None
    losses = [10.0, 6.0, 7.0, 3.0, 4.5, 2.0]
    second = [c - 2 * b + a for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    assert curve_roughness(losses) == pytest.approx(statistics.stdev(second))


class Planted(nn.Module):
    """A VAE by hand: mu is a 4 x 4 thumbnail times `spread`, the decoder paints it with `contrast`."""

    latent_dim, stride = 16, 8

    def __init__(self, spread, contrast, logvar=-6.0, kept=16):
        super().__init__()
        self.spread, self.contrast, self.logvar = spread, contrast, logvar
        self.kept = (torch.arange(16) - 5) % 16 < kept  # an inner patch first

    def noise_size(self, size):
        return 16

    def infer(self, images, noise, labels=None):
        mu = self.spread * adaptive_avg_pool2d(images, 4).flatten(1) * self.kept
        logvar = torch.full_like(mu, self.logvar) * self.kept
        return Latent(reparameterize(mu, logvar, noise), mu, logvar, kl_per_dimension(mu, logvar))

    def decode(self, z, size, labels=None, skips=()):
        image = interpolate((z * self.kept).view(-1, 1, 4, 4) / max(self.spread, 1e-9), size=size)
        return self.contrast * (image - 0.3)


class TestPlantedModels:
    @pytest.fixture
    def judge(self, make_dataset):
        config = parse_config({"model": {"encoder_widths": [4, 4, 4]}, "evaluate": {"lpips": "off"}}, "test")
        evaluator = Evaluator(config, make_dataset(100), "cpu")

        def judged(model, most=0):
            metrics = evaluator.evaluate(model, "test", 1.0).metrics
            return collapse_verdict(
                active_units=metrics["test/active_units"],
                rate=metrics["test/kl"],
                exchange_cost=metrics["test/exchange_cost"],
                latent_dim=16,
                max_active_units=most,
            ).name

        return judged

    def test_healthy(self, judge):
        assert judge(Planted(spread=10.0, contrast=5.0)) == "none"

    def test_encoder_collapsed_onto_the_prior(self, judge):
        assert judge(Planted(spread=0.0, contrast=5.0, logvar=0.0)) == "full"

    def test_decoder_that_ignores_z(self, judge):
        assert judge(Planted(spread=10.0, contrast=0.0)) == "ignored"

    def test_one_dimension_of_sixteen_left(self, judge):
        assert judge(Planted(spread=10.0, contrast=5.0, kept=1)) == "partial"

    def test_half_of_the_dimensions_lost_during_the_run(self, judge):
        assert judge(Planted(spread=10.0, contrast=5.0, kept=8)) == "none"
        assert judge(Planted(spread=10.0, contrast=5.0, kept=8), most=16) == "partial"
