import math

import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence

from vae_core.losses import (
    LIKELIHOODS,
    MIN_SCALE,
    beta_of_mean_loss,
    effective_beta,
    fitted_scale,
    kl_per_dimension,
    negative_log_likelihood,
    normalised_beta,
    objective,
    real_dims,
    reparameterize,
)

SCALES = {"gaussian": 0.3, "laplace": 0.2, "bernoulli": 1.0}


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def nll(kind, logits, images, mask=None, scale=None):
    mask = torch.ones_like(images[:, :1]) if mask is None else mask
    return negative_log_likelihood(kind, logits, images, mask, SCALES[kind] if scale is None else scale)


def test_kl_equals_that_of_torch_distributions():
    mu, logvar = 2 * randn(7, 5), 3 * randn(7, 5, seed=1)
    expected = kl_divergence(Normal(mu, torch.exp(logvar / 2)), Normal(0.0, 1.0))
    assert torch.allclose(kl_per_dimension(mu, logvar), expected, rtol=1e-5, atol=1e-5)


def test_kl_is_exact_next_to_the_prior():
    logvar = torch.tensor([[1e-3, -1e-4, 0.0]])
    expected = 0.5 * (torch.expm1(logvar.double()) - logvar.double())
    found = kl_per_dimension(torch.zeros(1, 3), logvar)
    assert torch.allclose(found.double(), expected, rtol=2e-3, atol=0)
    assert found[0, 2] == 0


def test_kl_and_samples_are_float32_for_half_precision_input():
    mu, logvar = randn(2, 3).bfloat16(), randn(2, 3).bfloat16()
    assert kl_per_dimension(mu, logvar).dtype == torch.float32
    assert reparameterize(mu, logvar, randn(2, 3)).dtype == torch.float32


def test_reparameterized_samples_have_the_posterior_s_mean_and_deviation():
    mu, logvar = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.8, -1.2]])
    z = reparameterize(mu, logvar, randn(200_000, 2))
    assert torch.allclose(z.mean(0), mu[0], atol=0.01)
    assert torch.allclose(z.std(0), torch.exp(logvar[0] / 2), rtol=0.01)


class TestLikelihoods:
    """Against torch.distributions and scipy."""

    logits, images = 2 * randn(3, 2, 5, 4), rand(3, 2, 5, 4, seed=1)

    @pytest.mark.parametrize("scale", [0.05, 1.0])
    def test_gaussian(self, scale):
        mean = torch.sigmoid(self.logits)
        expected = -Normal(mean, scale).log_prob(self.images).sum((1, 2, 3))
        assert torch.allclose(nll("gaussian", self.logits, self.images, scale=scale), expected, rtol=1e-5)
        again = -scipy.stats.norm(mean.numpy(), scale).logpdf(self.images.numpy()).sum((1, 2, 3))
        assert torch.allclose(expected, torch.tensor(again, dtype=torch.float32), rtol=1e-4)

    @pytest.mark.parametrize("scale", [0.05, 1.0])
    def test_laplace(self, scale):
        mean = torch.sigmoid(self.logits)
        expected = -Laplace(mean, scale).log_prob(self.images).sum((1, 2, 3))
        assert torch.allclose(nll("laplace", self.logits, self.images, scale=scale), expected, rtol=1e-5)
        again = -scipy.stats.laplace(mean.numpy(), scale).logpdf(self.images.numpy()).sum((1, 2, 3))
        assert torch.allclose(expected, torch.tensor(again, dtype=torch.float32), rtol=1e-4)

    def test_bernoulli_on_binary_images(self):
        binary = (self.images > 0.5).float()
        expected = -Bernoulli(logits=self.logits).log_prob(binary).sum((1, 2, 3))
        assert torch.allclose(nll("bernoulli", self.logits, binary), expected, rtol=1e-5)

    def test_bernoulli_on_gray_images_is_the_cross_entropy(self):
        p = scipy.special.expit(self.logits.double().numpy())
        x = self.images.double().numpy()
        expected = -(scipy.special.xlogy(x, p) + scipy.special.xlog1py(1 - x, -p)).sum((1, 2, 3))
        assert nll("bernoulli", self.logits, self.images).tolist() == pytest.approx(expected, rel=1e-5)

    def test_bernoulli_stays_finite_where_the_sigmoid_saturates(self):
        logits = torch.tensor([500.0, -500.0]).view(1, 1, 1, 2)
        assert nll("bernoulli", logits, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)).item() == 1000.0


@pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
class TestEveryLikelihood:
    def test_padding_changes_nothing(self, kind):
        logits, images = randn(2, 3, 6, 5), rand(2, 3, 6, 5)
        mask = torch.zeros(2, 1, 6, 5)
        mask[0, :, :4, :3] = 1
        mask[1, :, :6, :2] = 1
        found = nll(kind, logits, images, mask)
        alone = [
            nll(kind, logits[:1, :, :4, :3], images[:1, :, :4, :3]),
            nll(kind, logits[1:, :, :, :2], images[1:, :, :, :2]),
        ]
        assert torch.allclose(found, torch.cat(alone), rtol=1e-5)
        assert torch.equal(found, nll(kind, logits, torch.where(mask == 1, images, 0.7), mask))
        assert torch.equal(found, nll(kind, torch.where(mask == 1, logits, -3.0), images, mask))
        assert real_dims(mask, 3).tolist() == [36, 36]

    def test_the_loss_of_an_image_does_not_depend_on_its_companions(self, kind):
        logits, images = randn(4, 1, 8, 8), rand(4, 1, 8, 8)
        alone = torch.cat([nll(kind, logits[i : i + 1], images[i : i + 1]) for i in range(4)])
        assert torch.allclose(nll(kind, logits, images), alone, rtol=1e-5)

    def test_it_is_float32_for_half_precision_logits(self, kind):
        assert nll(kind, randn(2, 1, 4, 4).bfloat16(), rand(2, 1, 4, 4)).dtype == torch.float32

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_blank_images_give_finite_gradients(self, kind, value):
        logits = torch.tensor([0.0, 40.0, -40.0, 200.0]).view(1, 1, 2, 2).requires_grad_()
        nll(kind, logits, torch.full((1, 1, 2, 2), value)).sum().backward()
        assert torch.isfinite(logits.grad).all()

    def test_the_fitted_scale_is_the_most_likely_one(self, kind):
        logits, images = randn(3, 1, 8, 8), rand(3, 1, 8, 8, seed=1)
        likelihood = LIKELIHOODS[kind]
        error = likelihood.error(logits, images, torch.ones_like(images)).sum().item()
        best = fitted_scale(kind, error, images.numel())
        if best is None:
            assert kind == "bernoulli"
            return
        values = {factor: nll(kind, logits, images, scale=best * factor).sum().item() for factor in (0.97, 1.0, 1.03)}
        assert min(values, key=values.get) == 1.0


def test_fitted_scales_are_the_errors_themselves_and_never_vanish():
    assert fitted_scale("gaussian", 8.0, 200) == pytest.approx(0.2)
    assert fitted_scale("laplace", 8.0, 200) == pytest.approx(0.04)
    assert fitted_scale("bernoulli", 8.0, 200) is None
    assert fitted_scale("gaussian", 0.0, 200) == fitted_scale("laplace", 0.0, 200) == MIN_SCALE == 1 / 512


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_the_objective_is_reconstruction_plus_beta_kl(beta):
    terms = objective(torch.tensor([3.0, 5.0]), torch.tensor([2.0, 0.25]), beta)
    assert terms.total.tolist() == [3.0 + beta * 2.0, 5.0 + beta * 0.25]
    assert terms.reconstruction.tolist() == [3.0, 5.0]
    assert terms.kl.tolist() == [2.0, 0.25]


class TestBetaTranslation:
    def test_the_documented_sizes(self):
        assert beta_of_mean_loss("gaussian", 1e-6, 512 * 512) == pytest.approx(0.131072)
        assert beta_of_mean_loss("gaussian", 1e-6, 2048 * 1024) == pytest.approx(1.048576)

    @pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
    def test_gradients_of_a_pixel_mean_loss_equal_those_of_the_translated_objective(self, kind):
        logits = randn(1, 3, 6, 4).requires_grad_()
        mu, logvar = randn(1, 5).requires_grad_(), randn(1, 5, seed=1).requires_grad_()
        images, weight, dims, scale = rand(1, 3, 6, 4), 0.01, 72, SCALES[kind]
        kl = kl_per_dimension(mu, logvar).sum(1)
        mean_loss = LIKELIHOODS[kind].pixel_error(logits, images).mean() + weight * kl.sum()
        beta = beta_of_mean_loss(kind, weight, dims, scale)
        total = objective(nll(kind, logits, images), kl, beta).total.sum()
        inputs = (logits, mu, logvar)
        one, two = (
            torch.autograd.grad(mean_loss, inputs, retain_graph=True),
            torch.autograd.grad(total, inputs),
        )
        factor = dims / LIKELIHOODS[kind].unit(scale)
        for first, second in zip(one, two, strict=True):
            assert torch.allclose(first * factor, second, rtol=1e-4, atol=1e-5)

    def test_a_fixed_sigma_and_beta_are_the_same_knob(self):
        """With sigma^2 = beta, NLL + KL is the unit Gaussian's objective over beta, up to a constant."""
        logits, images, kl, beta = randn(2, 1, 4, 4), rand(2, 1, 4, 4), torch.tensor([3.0, 7.0]), 0.2
        with_sigma = objective(nll("gaussian", logits, images, scale=math.sqrt(beta)), kl, 1.0).total
        with_beta = objective(nll("gaussian", logits, images, scale=1.0), kl, beta).total / beta
        difference = with_sigma - with_beta
        assert difference[0].item() == pytest.approx(difference[1].item(), abs=1e-4)

    def test_effective_and_normalised_beta(self):
        assert effective_beta(2.0) == 2.0
        assert effective_beta(2.0, likelihood_coefficient=4.0) == 0.5
        assert normalised_beta(3.0, latent_dim=16, dims=32 * 64) == pytest.approx(3 * 16 / 2048)
