"""The weight average against its recurrence, and optimizers that move what they are given."""

import copy

import pytest
import torch
from torch import nn

from vae_core.optimisation import Optimisation, WeightAverage
from vae_core.schema.optim import OptimConfig


def test_the_average_follows_its_recurrence_with_a_warmed_up_decay():
    model = nn.Linear(3, 2)
    average = WeightAverage(copy.deepcopy(model), 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.model.weight.detach(), expected)
    assert not average.model.weight.requires_grad


def test_the_average_takes_in_small_steps_in_float32_and_copies_buffers():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(copy.deepcopy(model), 0.9999)
    model[1].running_mean += 3
    with torch.no_grad():
        model[0].weight += 1e-3
    before = average.model[0].weight.detach().clone()
    average.update(model, 10**6)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean)
    torch.testing.assert_close(average.model[0].weight.detach() - before, torch.full((2, 2), 1e-7), rtol=0.5, atol=0)


@pytest.mark.parametrize("algorithm", ["adam", "adamw", "sgd"])
def test_a_step_moves_the_given_parameters_alone_and_states_are_restored(algorithm):
    mine, other = nn.Linear(2, 1), nn.Linear(2, 1)
    for layer in (mine, other):
        nn.init.constant_(layer.weight, 0.5)
    inputs = torch.tensor([[1.0, 2.0]])

    def optimisation(model):
        return Optimisation(
            model.parameters(),
            OptimConfig(algorithm=algorithm, lr=0.1, clip_norm=1.0),
            epochs=1,
            higher_is_better=True,
            scaler=torch.amp.GradScaler("cpu", enabled=False),
        )

    def step(optimisation, model):
        optimisation.zero_grad()
        optimisation.backward((model(inputs) + other(inputs)).square().sum())
        return optimisation.step(0.0, 0.5)

    first = optimisation(mine)
    untouched = other.weight.detach().clone()
    before = mine.weight.detach().clone()
    assert float(step(first, mine)) > 1.0  # the norm before clipping
    assert not torch.equal(mine.weight, before)
    assert torch.equal(other.weight, untouched)
    twin = copy.deepcopy(mine)
    second = optimisation(twin)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(first, mine)
    step(second, twin)
    assert torch.equal(mine.weight, twin.weight)
