"""KL controls: their rules step by step, and that they reach their targets in real trainings."""

import math

import pytest
import torch

from vae_core.config import override, parse_config
from vae_core.errors import UserError
from vae_core.events import Epoch
from vae_core.kl_control import Capacity, FreeBits, PiControl, Plain
from vae_core.running_mean import RunningMean
from vae_core.trainer import Trainer

SMALL = {
    "model": {
        "latent_dim": 3,
        "encoder_widths": [4, 8],
        "decoder_widths": [8, 4],
        "norm_groups": 2,
        "stem_kernel": 3,
        "spp_levels": [4],
        "cbam": False,
    },
    "optim": {"lr": 5e-3, "lr_schedule": "cosine", "min_lr": 1e-6},
    "train": {"epochs": 80, "effective_batch": 24, "device": "cpu"},
    "evaluate": {"lpips": "off", "every_epochs": 1000},
    "data": {"pad_multiple": 8},
}


def kl_of(*rows):
    return torch.tensor(rows, dtype=torch.float32)


class TestRunningMean:
    def test_it_is_the_corrected_exponential_mean_of_step_means(self):
        mean = RunningMean(1, "cpu", decay=0.5)
        found, steps = [], [kl_of([1.0], [3.0]), kl_of([8.0]), kl_of([0.0], [0.0], [6.0])]
        assert mean.value.tolist() == [0.0]
        for values in steps:
            mean.add(values)
            mean.commit()
            found.append(mean.value.item())
        assert found == pytest.approx([2.0, (2 * 0.25 + 8 * 0.5) / 0.75, (2 * 0.125 + 8 * 0.25 + 2 * 0.5) / 0.875])

    def test_the_split_of_a_step_does_not_matter_and_nothing_counts_before_its_end(self):
        values = 100 * torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
        found = []
        for size in (1, 7, 64):
            mean = RunningMean(3, "cpu", decay=0.9)
            for part in values.split(size):
                mean.add(part)
                assert mean.value.tolist() == [0.0] * 3
            mean.commit()
            found.append(mean.value)
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(found[0], values.double().mean(0), rtol=1e-12, atol=0)

    def test_a_step_that_is_not_finite_and_one_without_images_leave_it_alone(self):
        mean = RunningMean(2, "cpu", decay=0.5)
        mean.add(kl_of([1.0, 2.0]))
        mean.commit()
        mean.add(kl_of([math.nan, 5.0]))
        mean.commit()
        mean.commit()
        assert mean.value.tolist() == [1.0, 2.0]


def always(beta):
    return lambda _: beta


def observed(control, *kls):
    """Take a step for each KL of one image."""
    for kl in kls:
        control.cost(kl, 0.0)
        control.finish_step()


def cost(control, kl, position=0.0):
    """Return value per image and gradient of `beta * kl + correction`."""
    kl = kl.clone().requires_grad_()
    found = control.cost(kl, position)
    value = found.beta * kl.sum(1) + found.correction
    value.sum().backward()
    return value.detach(), kl.grad


class TestPlain:
    def test_it_costs_the_scheduled_beta(self):
        value, gradient = cost(Plain(lambda position: 2 * position), kl_of([1.0, 2.0]), 1.5)
        assert value.tolist() == [9.0]
        assert gradient.tolist() == [[3.0, 3.0]]


class TestFreeBits:
    def test_dimensions_below_the_threshold_in_earlier_steps_cost_it_and_have_no_gradient(self):
        control = FreeBits(always(2.0), nats=0.5, latent_dim=3, device="cpu")
        observed(control, kl_of([0.1, 0.6, 3.0], [0.3, 0.6, 1.0]))
        value, gradient = cost(control, kl_of([0.2, 0.9, 2.0], [5.0, 0.4, 0.0]))
        assert value.tolist() == pytest.approx([2 * (0.5 + 0.9 + 2.0), 2 * (0.5 + 0.4 + 0.0)])
        assert gradient.tolist() == [[0.0, 2.0, 2.0]] * 2

    def test_its_gradient_is_that_of_the_maximum_at_the_batch_mean(self):
        control = FreeBits(always(1.5), nats=0.5, latent_dim=4, device="cpu")
        kl = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.2, 0.9, 1.5, 4.0])
        observed(control, kl)
        direct = kl.clone().requires_grad_()
        value = 1.5 * direct.mean(0).clamp_min(0.5).sum() * len(kl)
        value.backward()
        found, gradient = cost(control, kl)
        torch.testing.assert_close(gradient, direct.grad)
        torch.testing.assert_close(found.sum(), value.detach())

    def test_everything_is_free_before_anything_is_known(self):
        control = FreeBits(always(1.0), nats=0.5, latent_dim=2, device="cpu")
        value, gradient = cost(control, kl_of([3.0, 0.1]))
        assert value.tolist() == [1.0]
        assert gradient.abs().max() == 0


class TestCapacity:
    def control(self):
        return Capacity(capacity=10.0, epochs=4.0, gamma=3.0, device="cpu")

    def test_the_capacity_rises_linearly(self):
        assert [self.control().target(epoch) for epoch in (0, 1, 2, 4, 9, math.inf)] == [
            0.0,
            2.5,
            5.0,
            10.0,
            10.0,
            10.0,
        ]

    @pytest.mark.parametrize(("before", "sign"), [(4.0, -1), (6.0, 1)])
    def test_it_pulls_the_kl_to_the_capacity_from_both_sides(self, before, sign):
        control = self.control()
        observed(control, kl_of([before - 1, 1.0]))
        value, gradient = cost(control, kl_of([before - 1, 1.0]), 2.0)
        assert value.tolist() == [3.0 * abs(before - 5.0)]
        assert gradient.tolist() == [[3.0 * sign] * 2]


class TestPiControl:
    def control(self, **changes):
        settings = {"target": 10.0, "kp": 0.5, "ki": 0.01, "least": 0.1, "greatest": 2.0, **changes}
        return PiControl(**settings, device="cpu")

    def test_it_starts_at_the_least_beta(self):
        assert self.control().cost(kl_of([1.0]), 0.0).beta.item() == 0.1

    def test_beta_follows_the_published_rule(self):
        control = self.control()
        integral, mean, weight = 0.0, 0.0, 0.0
        for kl in (11.0, 14.0, 12.0, 10.5, 9.0, 9.5):
            observed(control, kl_of([kl / 2, kl / 2]))
            mean, weight = 0.5 * mean + 0.5 * kl, 0.5 * weight + 0.5
            error = 10.0 - mean / weight
            integral -= 0.01 * error
            assert control.beta.item() == pytest.approx(min(2.0, max(0.1, 0.5 / (1 + math.exp(error)) + integral)))

    def test_a_kl_above_its_target_raises_beta_and_one_below_lowers_it(self):
        control = self.control(least=0.0)
        betas = []
        for kl in [30.0] * 5 + [1.0] * 5:
            observed(control, kl_of([kl]))
            betas.append(control.beta.item())
        assert betas[:5] == sorted(betas[:5])
        assert betas[5:] == sorted(betas[5:], reverse=True)

    @pytest.mark.parametrize(("far", "back", "bound", "way"), [(200.0, 5.0, 2.0, -1), (0.0, 15.0, 0.1, 1)])
    def test_the_integral_does_not_wind_up_at_a_bound(self, far, back, bound, way):
        """After a thousand steps at the bound, beta leaves it within a few steps, as after a hundred."""
        answers = []
        for steps in (100, 1000):
            control = self.control()
            observed(control, *[kl_of([far])] * steps)
            assert control.beta.item() == bound
            count = 0
            while control.beta.item() == bound and count < 500:
                observed(control, kl_of([back]))
                count += 1
            assert (control.beta.item() - bound) * way > 0
            answers.append(count)
        assert answers[0] == answers[1] < 60

    def test_an_enormous_error_is_finite(self):
        control = self.control()
        observed(control, kl_of([1e30]))
        assert control.beta.item() == 2.0


def trained(dataset, **changes):
    trainer = Trainer(parse_config(override(SMALL, changes), "test"), dataset)
    *_, last = [event for event in trainer.fit() if isinstance(event, Epoch)]
    return trainer, last.metrics


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(count=80, sizes=((16, 16),))


def train_kl(trainer, dataset):
    """Return the mean KL of each dimension over the training split, `(M,)`."""
    from vae_core.data.batches import load_batch

    batch = load_batch(dataset, dataset.splits["train"], 8, "cpu")
    with torch.no_grad():
        return trainer.model.infer(batch.images, torch.zeros(len(batch.images), 3)).kl.mean(0)


class TestTargetsAreReached:
    """Within 5% of the target at the end of a training whose plain form ends at another KL."""

    def test_capacity(self, dataset):
        changes = {"loss.capacity": 3.0, "loss.capacity_epochs": 10.0, "loss.capacity_gamma": 30.0}
        _, metrics = trained(dataset, **{"loss.sigma": 0.1, "loss.kl_control": "capacity"}, **changes)
        assert metrics["train/kl"] == pytest.approx(3.0, rel=0.05)

    def test_capacity_raises_a_kl_that_would_collapse(self, dataset):
        changes = {"loss.capacity": 2.0, "loss.capacity_epochs": 10.0, "loss.capacity_gamma": 10.0}
        _, metrics = trained(dataset, **{"loss.kl_control": "capacity"}, **changes)
        assert metrics["train/kl"] == pytest.approx(2.0, rel=0.05)
        _, plain = trained(dataset)
        assert plain["train/kl"] < 1.0

    def test_free_bits(self, dataset):
        changes = {"loss.sigma": 0.1, "loss.kl_control": "free_bits", "loss.free_bits": 0.5, "loss.beta": 60.0}
        trainer, metrics = trained(dataset, **changes)
        assert metrics["train/kl"] == pytest.approx(1.5, rel=0.05)
        assert train_kl(trainer, dataset).tolist() == pytest.approx([0.5] * 3, rel=0.05)

    def test_pi(self, dataset):
        changes = {"loss.kl_control": "pi", "loss.kl_target": 2.0, "loss.pi_ki": 0.1, "loss.pi_kp": 1.0}
        trainer, metrics = trained(dataset, **{"loss.sigma": 0.2}, **changes)
        assert metrics["train/kl"] == pytest.approx(2.0, rel=0.05)
        assert metrics["train/effective_beta"] == pytest.approx(trainer.last_beta, rel=0.05)
        _, plain = trained(dataset, **{"loss.sigma": 0.2})
        assert plain["train/kl"] > 3.0


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"free_bits": 0.5}, r"free_bits: 0.5 does nothing with kl_control: plain; set kl_control: free_bits"),
        ({"kl_control": "pi", "capacity": 3.0}, r"capacity: 3.0 does nothing with kl_control: pi"),
        ({"kl_control": "capacity", "beta": 2.0}, r"kl_control: capacity sets the coefficient of the KL itself"),
        ({"kl_control": "pi", "beta_schedule": "linear"}, r"kl_control: pi sets the coefficient of the KL itself"),
        ({"kl_control": "pi", "phases": [{"epochs": 1, "beta": 1}]}, r"kl_control: pi sets the coefficient"),
        (
            {"kl_control": "pi", "beta_min": 2.0, "beta_max": 1.0},
            r"beta_min must not be above beta_max, not 2.0 and 1.0",
        ),
        ({"kl_control": "PI"}, r"should be 'plain', 'free_bits', 'capacity' or 'pi'"),
    ],
)
def test_settings_that_would_do_nothing_or_contradict_are_refused(tree, message):
    with pytest.raises(UserError, match=message):
        parse_config({"loss": tree}, "f")
