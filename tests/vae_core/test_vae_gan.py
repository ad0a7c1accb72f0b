"""The vae_gan: its discriminator, its losses against hand-written ones, and two optimizers that keep to their own."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support.training import assert_bit_equal, epochs_of, through_disk
from torch import nn

from vae_core.adversary import GanAdversary, discriminator_loss
from vae_core.config import override, parse_config
from vae_core.data.batches import epoch_order, load_batch
from vae_core.errors import UserError
from vae_core.events import Epoch, Evaluation, Step
from vae_core.models.discriminator import Discriminator
from vae_core.models.latent import Latent
from vae_core.models.vae import build_discriminator, build_model, check_on_meta
from vae_core.optimisation import Optimisation
from vae_core.random_streams import generator
from vae_core.schema.optim import OptimConfig
from vae_core.trainer import Trainer

TREE = {
    "data": {"pad_multiple": 8, "width": 16},
    "model": {
        "family": "vae_gan",
        "network": "conv",
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "discriminator_widths": [5, 6],
    },
    "loss": {"adversarial": 0.5},
    "optim": {"lr": 1e-2},
    "train": {"epochs": 2, "effective_batch": 7, "device": "cpu"},
    "evaluate": {"lpips": "off"},
}
PLAIN_DESCENT = {"optim.algorithm": "sgd", "optim.momentum": 0.0, "optim.lr": 1e-2}
UNPADDED = ((24, 16), (16, 16))
LOGGED = {"train/adversarial", "train/discriminator_loss", "train/discriminator_accuracy"}


def config(**changes):
    return parse_config(override(TREE, changes), "test")


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def discriminator_of(trainer):
    return copied(trainer.state_dict()["adversary"]["discriminator"])


def is_same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def written_out(state, channels=1):
    """Return the discriminator as it is usually written, with the weights of `state`; gives probabilities."""
    first, second = (state[f"features.{place}.weight"].shape[0] for place in (0, 2))
    network = nn.Sequential(
        nn.Conv2d(channels, first, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(first, second, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(second, 1, 1),
        nn.Sigmoid(),
        nn.Flatten(0),
    )
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network


def opponent(weight=0.5, device="cpu"):
    """Return an adversary of its own, and its discriminator."""
    discriminator = build_discriminator(config().model, 1, 0, device)
    optimisation = Optimisation(
        discriminator.parameters(),
        OptimConfig(lr=0.1),
        epochs=1,
        higher_is_better=True,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )
    adversary = GanAdversary(
        discriminator, optimisation, weight=weight, start_epochs=0, real_label=0.9, autocast=nullcontext
    )
    adversary.start_step(0.0)
    return adversary, discriminator


def batch_of(images, mask=None):
    return SimpleNamespace(images=images, mask=torch.ones_like(images[:, :1]) if mask is None else mask)


class TestTheDiscriminator:
    @pytest.fixture
    def judge(self):
        return build_discriminator(config().model, 3, 0, "cpu")

    @pytest.mark.parametrize("size", [(8, 8), (24, 16), (13, 30)])
    def test_on_images_without_padding_it_is_the_one_usually_written(self, judge, size):
        images = numbers(4, 3, *size)
        odds = judge(images, torch.ones(4, 1, *size))
        expected = written_out(judge.state_dict(), channels=3)(images)
        assert torch.allclose(torch.sigmoid(odds), expected, atol=1e-6)
        assert expected.std() > 1e-4

    def test_what_lies_on_the_padding_makes_no_difference_and_gets_no_gradient(self, judge):
        mask = torch.zeros(2, 1, 24, 16)
        mask[:, :, :13, :15] = 1
        images = numbers(2, 3, 24, 16).requires_grad_()
        other = torch.where(mask > 0, images.detach(), 1 - images.detach())
        odds = judge(images, mask)
        assert torch.equal(odds, judge(other, mask))
        assert not torch.allclose(odds, judge(other, torch.ones_like(mask)), atol=1e-4)
        odds.sum().backward()
        assert (images.grad * (1 - mask)).abs().max() == 0
        assert ((images.grad.abs().sum(1, keepdim=True) > 0) == (mask > 0)).all()

    def test_positions_far_from_real_pixels_do_not_dilute_the_score(self, judge):
        images, mask = torch.zeros(1, 3, 64, 16), torch.zeros(1, 1, 64, 16)
        images[:, :, :16], mask[:, :, :16] = numbers(1, 3, 16, 16), 1
        tall, short = judge(images, mask), judge(images[:, :, :24], mask[:, :, :24])
        assert torch.allclose(tall, short, atol=1e-6)
        assert not torch.allclose(tall, judge(images, torch.ones_like(mask)), atol=1e-4)

    def test_an_image_alone_and_in_a_batch_agree(self, judge):
        images, mask = numbers(4, 3, 24, 16), torch.ones(4, 1, 24, 16)
        alone = torch.cat([judge(images[row, None], mask[row, None]) for row in range(4)])
        assert torch.allclose(judge(images, mask), alone, rtol=1e-5)

    def test_its_weights_depend_on_the_seed_alone_and_it_is_no_part_of_the_model(self):
        first, second, other = (build_discriminator(config().model, 1, seed, "cpu").state_dict() for seed in (3, 3, 4))
        assert is_same(first, second)
        assert not torch.equal(first["features.0.weight"], other["features.0.weight"])
        plain = build_model(config(**{"model.family": "vae"}).model, 1, 3, "cpu").state_dict()
        assert_bit_equal(build_model(config().model, 1, 3, "cpu").state_dict(), plain)

    def test_there_is_a_convolution_for_each_width(self):
        widths = [layer.out_channels for layer in Discriminator(1, widths=(3, 4, 5)).features[::2]]
        assert widths == [3, 4, 5]

    def test_images_too_small_for_it_are_refused_before_training(self):
        small = {"model.discriminator_widths": [4] * 5}
        check_on_meta(config(**small), [(32, 32)])
        with pytest.raises(UserError, match=r"discriminator_widths: .* halves images padded to 16 x 32 px too often"):
            check_on_meta(config(**small), [(16, 32)])
        check_on_meta(config(**small, **{"model.family": "vae"}), [(16, 32)])


class TestTheLosses:
    def test_the_discriminator_pays_the_cross_entropies_of_a_smoothed_and_a_false_label(self):
        real, fake = torch.linspace(-12, 12, 13), torch.linspace(10, -14, 13)
        right = F.binary_cross_entropy(
            torch.sigmoid(real.double()), torch.full((13,), 0.9, dtype=torch.float64), reduction="none"
        )
        wrong = F.binary_cross_entropy(torch.sigmoid(fake.double()), torch.zeros(13).double(), reduction="none")
        assert torch.allclose(discriminator_loss(real, fake, 0.9).double(), (right + wrong) / 2, rtol=1e-5)

    def test_the_model_pays_for_the_odds_of_its_reconstruction_by_the_images_real_values(self):
        adversary, discriminator = opponent(weight=0.25)
        logits, images = 4 * numbers(3, 1, 24, 16) - 2, numbers(3, 1, 24, 16, seed=1)
        mask = torch.ones_like(images)
        mask[1, :, 13:] = 0
        losses = adversary.oppose(plain_latent(commitment=torch.ones(3)), logits, batch_of(images, mask)).losses
        probability = torch.sigmoid(discriminator(torch.sigmoid(logits), mask).double())
        expected = -0.25 * torch.tensor([24 * 16, 13 * 16, 24 * 16]) * torch.log(probability)
        assert torch.allclose(losses["adversarial"].double(), expected, rtol=1e-5)
        assert torch.equal(losses["commitment"], torch.ones(3))

    def test_the_accuracy_counts_right_judgements_and_calls_no_opinion_a_fake(self):
        adversary, discriminator = opponent()
        images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8), torch.ones(1, 8, 8)])
        logits = 200 * torch.stack([-torch.ones(1, 8, 8), -torch.ones(1, 8, 8), torch.ones(1, 8, 8)])
        brightness_decides(discriminator)
        logged = adversary.learn(logits, batch_of(images), 3)
        assert logged["discriminator_accuracy"].tolist() == [0.5, 1.0, 0.5]
        assert logged["discriminator_loss"].shape == (3,)

    def test_nothing_waits_for_the_device(self):
        adversary, _ = opponent(device="meta")
        logits, batch = torch.empty(2, 1, 16, 16, device="meta"), batch_of(torch.empty(2, 1, 16, 16, device="meta"))
        assert adversary.oppose(plain_latent(), logits, batch).losses["adversarial"].shape == (2,)
        assert adversary.learn(logits, batch, 2)["discriminator_accuracy"].shape == (2,)

    def test_under_autocast_they_stay_float32(self):
        adversary, _ = opponent()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, batch = numbers(2, 1, 16, 16).bfloat16(), batch_of(numbers(2, 1, 16, 16))
            assert adversary.oppose(plain_latent(), logits, batch).losses["adversarial"].dtype == torch.float32
            assert adversary.learn(logits, batch, 2)["discriminator_loss"].dtype == torch.float32


def plain_latent(**losses):
    nothing = torch.zeros(1, 1)
    return Latent(nothing, nothing, nothing, nothing, losses=losses)


@torch.no_grad()
def brightness_decides(discriminator):
    """Give white images positive and black ones zero log odds."""
    for name, weight in discriminator.named_parameters():
        weight.fill_(0.0 if name.endswith("bias") else 0.1)


class TestOwnWeightsOnly:
    def test_the_models_backward_leaves_nothing_in_the_discriminator_and_the_other_way_round(self):
        adversary, discriminator = opponent()
        model = build_model(config().model, 1, 0, "cpu")
        images = numbers(3, 1, 24, 16)
        latent = model.infer(images, torch.zeros(3, 3))
        logits = model.decode(latent.z, (24, 16))
        adversary.oppose(latent, logits, batch_of(images)).losses["adversarial"].sum().backward()
        assert all(weight.grad is None for weight in discriminator.parameters())
        mine = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        assert all(gradient.abs().max() > 0 for name, gradient in mine.items() if "logvar" not in name)
        adversary.learn(logits, batch_of(images), 3)
        assert_bit_equal({name: weight.grad for name, weight in model.named_parameters()}, mine)
        assert all(weight.grad.abs().max() > 0 for weight in discriminator.parameters())

    def test_each_optimizer_moves_its_own(self, make_dataset):
        dataset = make_dataset(30)
        states = {}
        for lr, discriminator_lr in ((1e-2, 1e-2), (1e-2, 3e-2), (2e-2, 1e-2)):
            trainer = Trainer(config(**{"optim.lr": lr, "optim.discriminator_lr": discriminator_lr}), dataset)
            start = copied(trainer.model.state_dict()), discriminator_of(trainer)
            next(trainer.fit())
            states[lr, discriminator_lr] = copied(trainer.model.state_dict()), discriminator_of(trainer)
        before, faster_judge, faster_model = states.values()
        assert_bit_equal(faster_judge[0], before[0])
        assert not is_same(faster_judge[1], before[1])
        assert_bit_equal(faster_model[1], before[1])
        assert not is_same(faster_model[0], before[0])
        # The first step of Adam is lr for every weight that has a gradient: each optimizer has its own rate.
        moved = faster_judge[1]["score.weight"] - start[1]["score.weight"]
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, 3e-2), rtol=1e-2, atol=0)

    def test_the_default_rate_is_the_models(self, make_dataset):
        states = []
        for rate in (None, 1e-2):
            trainer = Trainer(config(**{"optim.discriminator_lr": rate}), make_dataset(30))
            next(trainer.fit())
            states.append(discriminator_of(trainer))
        assert_bit_equal(*states)

    def test_each_is_clipped_by_its_own_norm(self, make_dataset):
        trainer = Trainer(config(**PLAIN_DESCENT | {"optim.lr": 1.0, "optim.clip_norm": 1e-3}), make_dataset(30))
        before = copied(trainer.model.state_dict()), discriminator_of(trainer)
        next(trainer.fit())
        for start, end in zip(before, (trainer.model.state_dict(), discriminator_of(trainer)), strict=True):
            norm = sum(float((end[name].double() - start[name].double()).square().sum()) for name in start) ** 0.5
            assert norm == pytest.approx(1e-3, rel=1e-2)


def test_one_step_is_plain_descent_on_both_losses_written_out_by_hand(make_dataset):
    """A loop over single images, and the discriminator as it is usually written, give both first gradients."""
    dataset = make_dataset(30, sizes=UNPADDED)
    chosen = config(**PLAIN_DESCENT | {"train.effective_batch": 5, "optim.discriminator_lr": 1.0, "loss.beta": 2.0})
    trainer = Trainer(chosen, dataset)
    model = build_model(chosen.model, 1, 0, "cpu")
    before = copied(trainer.model.state_dict())
    judged_before = discriminator_of(trainer)
    judge = written_out(judged_before)
    next(trainer.fit())

    noise = torch.randn(5, 3, generator=generator("z", 0, 0))
    total, judgement = torch.zeros(()), torch.zeros(())
    for row, index in enumerate(epoch_order(0, 0, dataset.splits["train"])[:5]):
        image = load_batch(dataset, np.array([index]), 8, "cpu").images
        mu, logvar = model.encode(image)
        mean = torch.sigmoid(model.decode(mu + torch.exp(0.5 * logvar) * noise[row : row + 1], tuple(image.shape[-2:])))
        posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
        fooled = F.binary_cross_entropy(judge(mean), torch.ones(1))
        total = total - torch.distributions.Normal(mean, 1.0).log_prob(image).sum() + 2.0 * kl
        total = total + 0.5 * image.numel() * fooled
        found = F.binary_cross_entropy(judge(mean.detach()), torch.zeros(1))
        judgement = judgement + (F.binary_cross_entropy(judge(image), torch.tensor([0.9])) + found) / 2
    names = [name for name, _ in model.named_parameters()]
    for name, gradient in zip(names, torch.autograd.grad(total / 5, list(model.parameters())), strict=True):
        moved = (before[name] - trainer.model.state_dict()[name]) / 1e-2
        torch.testing.assert_close(moved, gradient, rtol=1e-3, atol=1e-3, msg=name)
    judged = discriminator_of(trainer)
    gradients = torch.autograd.grad(judgement / 5, list(judge.parameters()))
    for (name, start), gradient in zip(judged_before.items(), gradients, strict=True):
        torch.testing.assert_close(start - judged[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


class TestInTraining:
    @pytest.fixture
    def dataset(self, make_dataset):
        return make_dataset(30)

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"optim.ema_decay": 0.9, "optim.lr_schedule": "cosine", "optim.discriminator_lr": 3e-3},
            {"optim.lr_schedule": "plateau", "optim.plateau_patience": 1, "train.epochs": 3},
            {"loss.adversarial_start_epochs": 1, "train.amp": "bf16"},
        ],
        ids=["plain", "averaged cosine", "plateau", "warm-up bf16"],
    )
    def test_a_run_resumed_after_any_event_ends_bit_equal(self, dataset, changes):
        whole = Trainer(config(**changes), dataset)
        events, states = [], []
        for event in whole.fit():
            events.append(event)
            states.append((through_disk(whole.state_dict()), whole.epoch))
        for state, done in states[:-1]:
            resumed = Trainer(config(**changes), dataset)
            resumed.load_state_dict(state)
            assert epochs_of(resumed.fit()) == epochs_of(events)[done:]
            assert_bit_equal(resumed.model.state_dict(), whole.model.state_dict())
            assert_bit_equal(discriminator_of(resumed), discriminator_of(whole))
        assert resumed.test().metrics == whole.test().metrics

    def test_how_a_step_is_split_changes_rounding_alone(self, dataset):
        results, logged = [], []
        for budget in (1, 10**9):
            changes = PLAIN_DESCENT | {"train.effective_batch": 18, "train.epochs": 1}
            trainer = Trainer(config(**changes), dataset, pixel_budget=budget)
            logged += epochs_of(trainer.fit())
            results.append(trainer.model.state_dict() | discriminator_of(trainer))
        for name, tensor in results[0].items():
            torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-5, msg=name)
        for key in LOGGED:
            assert logged[0][key] == pytest.approx(logged[1][key], rel=1e-4), key

    def test_until_the_warm_up_ends_it_is_a_vae_and_the_discriminator_waits(self, dataset):
        trainer = Trainer(config(**{"loss.adversarial_start_epochs": 1}), dataset)
        plain = Trainer(config(**{"model.family": "vae"}), dataset)
        start, epochs = discriminator_of(trainer), []
        for event, other in zip(trainer.fit(), plain.fit(), strict=True):
            if isinstance(event, Step):
                is_warm = event.epoch >= 1
                assert is_same(trainer.model.state_dict(), plain.model.state_dict()) != is_warm
                assert is_same(discriminator_of(trainer), start) != is_warm
            if isinstance(event, Epoch):
                epochs.append(event.metrics.keys() - other.metrics.keys())
        assert epochs == [set(), LOGGED]

    def test_without_a_weight_the_model_is_a_vae_that_is_watched(self, dataset):
        watched = Trainer(config(**{"loss.adversarial": 0.0}), dataset)
        plain = Trainer(config(**{"model.family": "vae"}), dataset)
        start = discriminator_of(watched)
        events = list(watched.fit())
        ours, theirs = epochs_of(events), epochs_of(plain.fit())
        assert [{key: value for key, value in epoch.items() if key not in LOGGED} for epoch in ours] == theirs
        assert_bit_equal(watched.model.state_dict(), plain.model.state_dict())
        assert not is_same(discriminator_of(watched), start)
        assert watched.test().metrics == plain.test().metrics

    def test_the_objective_in_training_includes_it_and_what_is_evaluated_does_not(self, dataset):
        trainer = Trainer(config(**PLAIN_DESCENT | {"optim.lr": 1e-30}), dataset)  # nothing moves
        evaluations = [event.metrics for event in trainer.fit() if isinstance(event, Evaluation)]
        epoch = Trainer(config(**PLAIN_DESCENT | {"optim.lr": 1e-30}), dataset)
        logged = epochs_of(epoch.fit())[0]
        parts = logged["train/reconstruction"] + logged["train/kl"] + logged["train/adversarial"]
        assert logged["train/objective"] == pytest.approx(parts)
        plain = build_model(config(**{"model.family": "vae"}).model, 1, 0, "cpu")
        plain.load_state_dict(trainer.best_model().state_dict())
        assert trainer.evaluator.evaluate(plain, "val", 1.0).metrics == evaluations[0]

    def test_a_discriminator_of_a_frozen_model_learns_to_tell(self, dataset):
        changes = {"optim.lr": 1e-30, "optim.discriminator_lr": 1e-2, "train.epochs": 12, "evaluate.every_epochs": 12}
        accuracies = [epoch["train/discriminator_accuracy"] for epoch in epochs_of(self.trained(dataset, changes))]
        assert accuracies[0] < 0.9 < accuracies[-1]

    def test_a_model_learns_to_fool_a_frozen_discriminator(self, dataset):
        changes = {"optim.discriminator_lr": 1e-30, "loss.adversarial": 10.0, "train.epochs": 6}
        losses = [epoch["train/adversarial"] for epoch in epochs_of(self.trained(dataset, changes))]
        assert losses[-1] < losses[0] - 10

    @staticmethod
    def trained(dataset, changes):
        return Trainer(config(**changes), dataset).fit()

    def test_both_rates_fall_when_the_selected_metric_stops_improving(self, dataset):
        changes = {"optim.lr": 0.3, "optim.lr_schedule": "plateau", "optim.plateau_patience": 1, "train.epochs": 6}
        trainer = Trainer(config(**changes), dataset)
        list(trainer.fit())
        state = trainer.state_dict()
        assert state["optimisation"]["plateau"]["scale"] < 1
        assert state["adversary"]["optimisation"]["plateau"] == state["optimisation"]["plateau"]

    def test_blank_images_leave_everything_finite(self, dataset):
        dataset._pixels[:] = 0
        trainer = Trainer(config(), dataset)
        epochs = epochs_of(trainer.fit())
        assert all(np.isfinite(value) for epoch in epochs for value in epoch.values())
        assert all(torch.isfinite(tensor).all() for tensor in discriminator_of(trainer).values())

    def test_both_optimizers_share_the_scale_of_half_precision(self, dataset):
        chosen = config(**{"train.amp": "fp16"})
        trainer = Trainer(chosen, dataset)
        start = copied(trainer.model.state_dict()), discriminator_of(trainer)
        epochs = epochs_of(trainer.fit())
        assert np.isfinite(epochs[-1]["train/discriminator_loss"])
        assert not is_same(trainer.model.state_dict(), start[0])
        assert not is_same(discriminator_of(trainer), start[1])


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_rate_below_the_schedules_floor_is_refused(schedule):
    changes = {"optim.lr_schedule": schedule, "optim.min_lr": 1e-4, "optim.discriminator_lr": 1e-5}
    with pytest.raises(UserError, match=r"min_lr must not be above discriminator_lr, not 0\.0001 and 1e-05"):
        config(**changes)
