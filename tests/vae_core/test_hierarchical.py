import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from vae_core.config import parse_config
from vae_core.evaluation import Evaluator
from vae_core.models.hierarchical import group_sizes
from vae_core.models.vae import build_model

MODEL = {
    "family": "hierarchical",
    "network": "conv",
    "encoder_widths": [4, 8],
    "decoder_widths": [8, 4],
    "latent_dim": 7,
}
TREE = {"model": MODEL | {"groups": 3}, "data": {"pad_multiple": 8}, "evaluate": {"lpips": "off"}}
SIZE = (16, 8)


def build(**changes):
    model = build_model(parse_config({"model": TREE["model"] | changes}, "test").model, 1, 0, "cpu").eval()
    with torch.no_grad():  # an untrained model is so close to its prior that little could go wrong
        for parameter in nn.ModuleList([model.posteriors, model.given_above, model.priors]).parameters():
            parameter.mul_(3)
    return model


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bottleneck", ["vector", "spatial"])
def test_the_rate_is_the_kl_of_each_groups_code_to_its_prior_given_those_above(bottleneck):
    """Recomputed from the codes themselves, in which neither posterior nor prior are relative."""
    model = build(bottleneck=bottleneck)
    images = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    noise = draws(2, model.noise_size(SIZE))
    latent = model.infer(images, noise)
    features = model.encoder(images)
    above, kls = features.new_zeros(2, 0, *features.shape[2:]), []
    parts = zip(*(torch.split(part, [3, 2, 2], dim=1) for part in (latent.mu, latent.logvar, latent.z)), strict=True)
    for group, (mu, logvar, e) in enumerate(parts):
        mean, scale = torch.zeros_like(mu), torch.ones_like(mu)
        if group:
            mean, raw = model.priors[group - 1](above).chunk(2, dim=1)
            scale = (0.5 * 10 * torch.tanh(raw / 10)).exp()
        posterior = Normal(mean + scale * mu, scale * (0.5 * logvar).exp())
        kls.append(kl_divergence(posterior, Normal(mean, scale)))
        above = torch.cat([above, mean + scale * e], dim=1)
    expected = torch.cat(kls, dim=1)
    expected = expected.sum((2, 3)) if bottleneck == "spatial" else expected
    assert torch.allclose(latent.kl, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(model.decode(latent.z, SIZE), model.decoder(above, SIZE), atol=1e-5)


def test_a_lower_group_depends_on_what_was_drawn_above_it():
    model = build()
    images = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    one, two = draws(1, 7), draws(1, 7)
    two[:, :3] += 1
    first, second = model.infer(images, one), model.infer(images, two)
    assert torch.equal(first.mu[:, :3], second.mu[:, :3])
    assert not torch.allclose(first.mu[:, 3:], second.mu[:, 3:], atol=1e-3)


def test_a_group_that_tells_nothing_has_mean_zero_and_no_rate():
    model = build()
    for parameter in (*model.posteriors[1].parameters(), *model.given_above[0].parameters()):
        torch.nn.init.zeros_(parameter)
    latent = model.infer(torch.rand(4, 1, *SIZE, generator=torch.Generator().manual_seed(0)), draws(4, 7))
    assert latent.kl[:, 3:5].abs().max() == 0
    assert latent.mu[:, 3:5].abs().max() == 0
    assert latent.kl[:, :3].min() > 0


@pytest.mark.parametrize(("dims", "groups", "sizes"), [(7, 3, (3, 2, 2)), (2, 2, (1, 1)), (16, 2, (8, 8))])
def test_dimensions_are_divided_evenly(dims, groups, sizes):
    assert group_sizes(dims, groups) == sizes


def test_the_rate_of_every_group_is_reported(make_dataset):
    config = parse_config(TREE, "test")
    result = Evaluator(config, make_dataset(40), "cpu").evaluate(build(), "val", 1.0)
    groups = [result.metrics[f"latent/kl_group_{group}"] for group in range(3)]
    per_dim = result.vectors["kl_per_dim"]
    assert groups == pytest.approx([sum(per_dim[:3]), sum(per_dim[3:5]), sum(per_dim[5:])])
    assert sum(groups) == pytest.approx(result.metrics["val/kl"])
    assert min(groups) > 0
