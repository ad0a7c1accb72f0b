"""Beta schedules against their documented sequences."""

import pytest

from vae_core.schedules import SCHEDULES


def test_constant_is_beta_everywhere() -> None:
    assert [SCHEDULES["constant"](position, 0.3, 20.0) for position in (0.0, 0.5, 100.0)] == [0.3] * 3


def test_linear_is_the_epoch_wise_warm_up_at_epoch_starts() -> None:
    sequence = [SCHEDULES["linear"](float(epoch), 0.001, 20.0) for epoch in range(40)]
    assert sequence[0] == 0.0
    assert sequence[10] == pytest.approx(0.0005, rel=1e-12)
    assert sequence[20:] == [0.001] * 20
    assert sequence[:21] == pytest.approx([0.001 * epoch / 20 for epoch in range(21)], rel=1e-12)


def test_linear_without_warm_up_is_constant() -> None:
    assert SCHEDULES["linear"](0.0, 2.0, 0.0) == 2.0
