"""Differences, p values and times as text."""

import pytest

from experiments.columns import column_of
from experiments.comparison import Comparison
from experiments.wording import difference_text, effect_text, p_text, spent

SSIM = column_of("test/ssim")


def compared(difference, low=None, high=None, p=0.01):
    return Comparison(difference, low, high, None, p, None, 5)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "no p"),
        (0.00012, "p < 0.001"),
        (0.0023, "p = 0.002"),
        (0.0451, "p = 0.0451"),
        (0.0503, "p = 0.0503"),
        (0.061, "p = 0.061"),
        (1.0, "p = 1"),
    ],
)
def test_p_values(p, text):
    assert p_text(p) == text


def test_a_difference_has_its_sign_and_its_interval_to_the_same_digits():
    assert difference_text(compared(0.1, 0.0812, 0.1188), SSIM) == "+0.100 [+0.081, +0.119]"
    assert difference_text(compared(-0.1, -0.1188, -0.0812), SSIM, sign=-1) == "0.100 [0.081, 0.119]"
    assert difference_text(compared(0.1), SSIM) == "+0.100"


def test_an_interval_that_excludes_zero_does_not_show_it():
    assert difference_text(compared(-1.3, -2.55, -0.01), column_of("test/kl")) == "-1.30 [-2.55, -0.01]"
    assert difference_text(compared(-1.3, -2.61, 0.01, p=0.06), column_of("test/kl")) == "-1.3 [-2.6, +0.0]"


@pytest.mark.parametrize(
    ("comparison", "text"),
    [
        (compared(-2e-7, -3.04e-7, -8.6e-8), "-2.0e-07 [-3.0e-07, -9e-08]"),
        (compared(2e-7, -1e-7, 5e-7, p=0.2), "+2.0e-07 [-1.0e-07, +5.0e-07]"),
        (compared(0.0015, 1e-6, 0.003), "+0.00150 [+1e-06, +0.00300]"),
        (compared(2e-7), "+2.0e-07"),
        (compared(0.0), "+0.00000"),
    ],
)
def test_differences_that_would_be_printed_as_zero_are_in_scientific_notation(comparison, text):
    assert difference_text(comparison, column_of("test/mse")) == text


def test_effects_and_times():
    assert [effect_text(value) for value in (None, -1.234, 123.4)] == ["", "d = -1.2", "d = 123"]
    assert [spent(value) for value in (9.72, 59.6, 200, 6000, 18_360)] == [
        "9.7 s",
        "60 s",
        "3.3 min",
        "100 min",
        "5.1 h",
    ]
