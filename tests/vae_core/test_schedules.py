"""Beta schedules against their documented sequences."""

import math

import pytest

from vae_core.schedules import SCHEDULES, BetaCurve, phase_at


def sequence(name, positions, **curve):
    return [SCHEDULES[name](float(position), BetaCurve(**curve)) for position in positions]


def test_constant_is_beta_everywhere():
    assert sequence("constant", (0.0, 0.5, 100.0), beta=0.3, warmup_epochs=20.0) == [0.3] * 3


def test_linear_is_the_epoch_wise_warm_up_at_epoch_starts():
    found = sequence("linear", range(40), beta=0.001, warmup_epochs=20.0)
    assert found[0] == 0.0
    assert found[10] == pytest.approx(0.0005, rel=1e-12)
    assert found[20:] == [0.001] * 20
    assert found[:21] == pytest.approx([0.001 * epoch / 20 for epoch in range(21)], rel=1e-12)


def test_linear_exponential_is_the_published_function_epoch_by_epoch():
    """The source's own code, for 20 epochs of warm-up in 200."""

    def published(epoch):
        if epoch < 20:
            return 0.5 * (epoch / 20)
        progress = (epoch - 20) / (200 - 20)
        return 1.0 - 0.5 * math.exp(-3 * progress)

    found = sequence("linear_exponential", range(201), beta=1.0, warmup_epochs=20.0, epochs=200)
    assert found == pytest.approx([published(epoch) for epoch in range(201)], rel=1e-12)
    assert found[0] == 0.0
    assert found[10] == 0.25
    assert found[20] == 0.5
    assert found[110] == pytest.approx(0.8884349, abs=1e-7)
    assert found[200] == pytest.approx(0.9751065, abs=1e-7)
    assert sequence("linear_exponential", (10, 110), beta=4.0, warmup_epochs=20.0, epochs=200) == pytest.approx(
        [1.0, 4 * 0.8884349], abs=1e-6
    )


def test_linear_exponential_whose_warm_up_fills_the_training_is_finite():
    assert sequence("linear_exponential", (5, 10), beta=1.0, warmup_epochs=10.0, epochs=10) == pytest.approx(
        [0.25, 1 - 0.5 * math.exp(-3)]
    )


def test_cosine_by_hand():
    found = sequence("cosine", range(6), beta=2.0, warmup_epochs=4.0)
    assert found == pytest.approx([0.0, 1 - math.sqrt(0.5), 1.0, 1 + math.sqrt(0.5), 2.0, 2.0])


def test_sigmoid_by_hand():
    found = sequence("sigmoid", range(6), beta=1.0, warmup_epochs=4.0)
    assert found == pytest.approx([0.0, 0.0701037, 0.5, 0.9298963, 1.0, 1.0], abs=1e-7)


def test_cyclical_is_that_of_fu_et_al():
    """beta_t = f(tau), tau = mod(t - 1, T / M) / (T / M), f(tau) = min(1, tau / R); t from 1; M = 4, R = 0.5."""
    found = sequence("cyclical", range(40), beta=1.0, epochs=40)
    cycle = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert found == pytest.approx(cycle * 4)
    published = [min(1.0, ((t - 1) % (40 / 4)) / (40 / 4) / 0.5) for t in range(1, 41)]
    assert found == pytest.approx(published)
    assert sequence("cyclical", (40, math.inf), beta=3.0, epochs=40) == [3.0, 3.0]


def test_cyclical_takes_cycles_and_ramp():
    found = sequence("cyclical", (0, 1, 2, 3, 4, 4.5, 5), beta=2.0, epochs=8, cycles=2, ramp_share=0.75)
    assert found == pytest.approx([0.0, 2 / 3, 4 / 3, 2.0, 0.0, 1 / 3, 2 / 3])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
class TestEverySchedule:
    def test_it_stays_between_zero_and_beta_and_ends_near_beta(self, name):
        found = sequence(name, [position / 10 for position in range(101)], beta=0.5, warmup_epochs=3.0, epochs=10)
        assert min(found) >= 0
        assert max(found) <= 0.5
        assert sequence(name, (math.inf,), beta=0.5, warmup_epochs=3.0, epochs=10)[0] == pytest.approx(0.5, rel=0.03)

    def test_it_is_in_proportion_to_beta(self, name):
        one = sequence(name, (0.0, 0.3, 1.7, 9.9), beta=1.0, warmup_epochs=3.0, epochs=10)
        three = sequence(name, (0.0, 0.3, 1.7, 9.9), beta=3.0, warmup_epochs=3.0, epochs=10)
        assert three == pytest.approx([3 * value for value in one])

    def test_without_warm_up_it_starts_at_its_end_unless_it_cycles(self, name):
        start = {"cyclical": 0.0, "linear_exponential": 1.0}.get(name, 2.0)
        assert sequence(name, (0.0,), beta=2.0, warmup_epochs=0.0, epochs=10) == [start]


def test_a_phase_ends_where_the_next_begins_and_the_last_never():
    lengths = [50, 100, 50]
    assert [phase_at(epoch, lengths) for epoch in (0, 49.9, 50, 149, 150, 199, 1000, math.inf)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        2,
        2,
    ]
