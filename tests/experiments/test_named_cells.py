"""Named cells, which change several fields at once, through a whole sweep."""

import io

import pytest
from rich.console import Console
from support.engine import optuna_trials
from support.tiny import TINY

from experiments.runner import run_sweep
from experiments.sweep import load_sweep
from vae_core.errors import UserError

CELLS = """cells:
  plain: {}
  wide: {model.latent_dim: 8, model.encoder_widths: [6, 12]}
seeds: 1
baseline: plain
"""
TEXT = TINY[: TINY.index("space:")] + CELLS


@pytest.fixture
def table(write_sweep, tmp_path):
    """Return a function that runs a sweep in this process and returns its table."""

    def run(text):
        sweep = load_sweep(str(write_sweep(text)), [])
        assert run_sweep(sweep, tmp_path / "runs", Console(file=io.StringIO(), width=140), "inline", None) == 0
        return (tmp_path / "runs" / "tiny" / "report" / "table.md").read_text()

    return run


def test_they_are_rows_and_trials_and_marked_when_they_vanish(table, tmp_path):
    first = table(TEXT)
    assert "| plain (baseline) |" in first
    assert "| wide |" in first
    [plain, wide] = [params for _, _, params, _, _ in optuna_trials(tmp_path / "runs", "tiny")]
    assert wide == {"model.latent_dim": 8, "model.encoder_widths": "[6, 12]"}
    assert plain == {"model.latent_dim": 4, "model.encoder_widths": "[4, 8]"}
    with pytest.raises(UserError, match=r"cells\.wide: model\.latent_dim: 8 -> 9"):
        table(TEXT.replace("model.latent_dim: 8", "model.latent_dim: 9"))
    second = table(TEXT.replace("wide: {", "wider: {").replace("[6, 12]", "[7, 14]"))
    assert "| wide (no longer in the sweep) |" in second
    assert "| wider |" in second
