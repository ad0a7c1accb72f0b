"""Learning rates against torch's own schedulers and closed forms."""

import math

import pytest
import torch

from vae_core.learning_rate import LR_SCHEDULES, LearningRate, Plateau


def rates(steps_per_epoch, epochs, **settings):
    rate = LearningRate(peak=0.1, epochs=epochs, **{"floor": 0.001, **settings})
    count = steps_per_epoch * epochs
    return [rate.at(step / steps_per_epoch, (step + 1) / steps_per_epoch) for step in range(count)]


def torch_rates(make, count):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", sorted(LR_SCHEDULES))
def test_every_schedule_is_positive_and_reaches_its_peak(name):
    found = rates(10, 6, schedule=name)
    assert min(found) > 0
    assert max(found) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("factor", [1, 2])
def test_cosine_restarts_as_torch_does(factor):
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
            optimizer, T_0=20, T_mult=factor, eta_min=0.001
        ),
        70,
    )
    found = rates(10, 7, schedule="cosine", restart_epochs=2.0, restart_factor=float(factor))
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_fractional_cycle_factor_restarts_where_the_cycles_end():
    rate = LearningRate(peak=1.0, floor=0.0, schedule="cosine", epochs=20, restart_epochs=4.0, restart_factor=1.5)
    for restart in (0.0, 4.0, 10.0, 19.0):
        assert rate.at(restart, restart) == 1.0
    assert rate.at(2.0, 2.0) == pytest.approx(0.5)
    assert rate.at(7.0, 7.0) == pytest.approx(0.5)
    assert rate.at(14.5, 14.5) == pytest.approx(0.5)


def test_one_cycle_is_torchs_up_to_the_width_of_a_step():
    count = 2000
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=count + 1, cycle_momentum=False
        ),
        count,
    )
    assert rates(count // 10, 10, schedule="one_cycle") == pytest.approx(expected, abs=0.1 * 6 / count)


def test_warm_up_multiplies_the_schedule_and_no_step_is_lost():
    linear = rates(4, 3, schedule="constant", warmup_epochs=1.0)
    assert linear == pytest.approx([0.025, 0.05, 0.075, 0.1] + [0.1] * 8)
    exponential = rates(4, 3, schedule="constant", warmup="exponential", warmup_epochs=1.0)
    assert exponential[:4] == pytest.approx([0.1 * 0.01 ** (1 - share) for share in (0.25, 0.5, 0.75, 1.0)])
    both = rates(4, 3, schedule="cosine", floor=0.0, warmup_epochs=1.0)
    assert both[1] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 0.25 / 3)) / 2)


@pytest.mark.parametrize("higher", [True, False])
def test_plateau_lowers_the_rate_when_torchs_does(higher):
    values = [1.0, 2.0, 1.5, 1.5, 1.5, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max" if higher else "min", factor=0.5, patience=2, threshold=0.0, min_lr=0.1
    )
    plateau = Plateau(factor=0.5, least=0.1, patience=2, higher_is_better=higher)
    for value in values:
        reference.step(value)
        plateau.observe(value)
        assert plateau.scale == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plateau.scale < 1
