"""Latent mixup: partners and shares, and a step against a loop over single images."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from vae_core.config import override, parse_config
from vae_core.data.batches import epoch_order, load_batch
from vae_core.errors import UserError
from vae_core.mixup import plan_mixing
from vae_core.random_streams import generator
from vae_core.trainer import Trainer

SMALL = {
    "model": {"latent_dim": 3, "encoder_widths": [4, 8], "decoder_widths": [8, 4], "norm_groups": 2, "stem_kernel": 3},
    "optim": {"algorithm": "sgd", "momentum": 0.0, "lr": 1.0},
    "train": {"epochs": 2, "effective_batch": 9, "device": "cpu"},
    "evaluate": {"lpips": "off"},
    "data": {"pad_multiple": 8, "augment": {"latent_mixup": 0.7}},
    "loss": {"beta": 2.0},
}


def config(**changes):
    return parse_config(override(SMALL, changes), "test")


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_partners_share_a_shape_are_nobody_elses_and_never_oneself_where_there_is_another():
    shapes = [(8, 8)] * 5 + [(16, 8)] * 2 + [(24, 8)]
    plans = [plan_mixing(shapes, 1.0, 0, step) for step in range(20)]
    for plan in plans:
        assert sorted(plan.partners) == list(range(8))
        assert all(shapes[partner] == shapes[own] for own, partner in enumerate(plan.partners))
        assert all(partner != own for own, partner in enumerate(plan.partners[:7]))
        assert plan.partners[7] == 7
    assert len({tuple(plan.partners) for plan in plans}) > 5
    again = plan_mixing(shapes, 1.0, 0, 3)
    assert np.array_equal(again.partners, plans[3].partners)
    assert torch.equal(again.shares, plans[3].shares)


def test_shares_are_beta_distributed():
    shares = np.concatenate([plan_mixing([(8, 8)] * 100, 0.4, 1, step).shares.numpy() for step in range(50)])
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.01


def test_a_step_is_the_gradient_of_a_loop_over_single_images(make_dataset):
    dataset = make_dataset(40)
    trainer = Trainer(config(), dataset)
    model = copy.deepcopy(trainer.model)
    before = weights(trainer)
    next(trainer.fit())
    moved = {name: before[name] - tensor for name, tensor in weights(trainer).items()}

    indices = epoch_order(0, 0, dataset.splits["train"])[:9]
    images = [load_batch(dataset, np.array([index]), 8, "cpu").images for index in indices]
    plan = plan_mixing([tuple(image.shape[-2:]) for image in images], 0.7, 0, 0)
    noise = torch.randn(9, 3, generator=generator("z", 0, 0))
    codes, rates = [], []
    for image, draw in zip(images, noise, strict=True):
        mu, logvar = model.encode(image)
        codes.append(mu + torch.exp(0.5 * logvar) * draw)
        rates.append(0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum())
    total = torch.zeros(())
    for own, partner in enumerate(plan.partners):
        share = plan.shares[own]
        z = share * codes[own] + (1 - share) * codes[partner]
        drawn = torch.sigmoid(model.decode(z, tuple(images[own].shape[-2:])))
        for target, part in ((own, share), (partner, 1 - share)):
            height, width = dataset.sizes[indices[target]]
            real = (slice(None), slice(None), slice(0, height), slice(0, width))
            nll = -torch.distributions.Normal(drawn[real], 1.0).log_prob(images[target][real]).sum()
            total = total + part * nll
        total = total + 2.0 * rates[own]
    (total / 9).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(moved[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_the_split_of_a_step_changes_nothing_and_a_resumed_run_is_bit_equal(make_dataset):
    dataset = make_dataset(40)
    whole, split = Trainer(config(), dataset), Trainer(config(), dataset, pixel_budget=1)
    next(whole.fit())
    next(split.fit())
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(split)[name], rtol=1e-4, atol=1e-5)
    slow = {"optim.lr": 1e-4}
    trainer = Trainer(config(**slow), dataset)
    fit = trainer.fit()
    for _ in range(3):
        next(fit)
    resumed = Trainer(config(**slow), dataset)
    resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    list(fit)
    list(resumed.fit())
    for name, tensor in weights(trainer).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


@pytest.mark.parametrize(
    "loss",
    [{"kl_control": "pi"}, {"kl_control": "capacity"}, {"kl_control": "free_bits"}, {"sigma_mode": "learned"}],
    ids=str,
)
def test_it_goes_with_every_kl_control_and_sigma(make_dataset, loss):
    trainer = Trainer(config(**{"loss": loss, "optim.lr": 1e-4, "train.epochs": 1}), make_dataset(40))
    assert all(np.isfinite(value) for event in trainer.fit() for value in getattr(event, "metrics", {}).values())


def test_an_optimal_sigma_counts_each_error_as_the_loss_does(make_dataset):
    dataset = make_dataset(40)
    changes = {"loss": {"sigma_mode": "optimal"}, "optim.lr": 1e-9, "data.augment.latent_mixup": 0.1}
    trainer = Trainer(config(**changes), dataset)
    next(trainer.fit())

    indices = epoch_order(0, 0, dataset.splits["train"])[:9]
    images = [load_batch(dataset, np.array([index]), 8, "cpu").images for index in indices]
    plan = plan_mixing([tuple(image.shape[-2:]) for image in images], 0.1, 0, 0)
    noise = torch.randn(9, 3, generator=generator("z", 0, 0))
    errors, values = 0.0, 0.0
    with torch.no_grad():
        codes = [trainer.model.infer(image, draw[None]).z for image, draw in zip(images, noise, strict=True)]
        for own, partner in enumerate(plan.partners):
            share = float(plan.shares[own])
            z = share * codes[own] + (1 - share) * codes[partner]
            drawn = torch.sigmoid(trainer.model.decode(z, tuple(images[own].shape[-2:])))
            for target, part in ((own, share), (partner, 1 - share)):
                height, width = dataset.sizes[indices[target]]
                difference = (drawn - images[target])[..., :height, :width]
                errors += part * float(difference.square().sum())
                values += part * difference.numel()
    assert float(trainer.learner.objective.sigma.value()) == pytest.approx((errors / values) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.family": "vq", "model.bottleneck": "spatial"},
            "latent_mixup needs model.family ae, vae, hierarchical",
        ),
        ({"model.skips": True}, "latent_mixup mixes codes alone"),
    ],
)
def test_codes_that_cannot_be_mixed_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)
