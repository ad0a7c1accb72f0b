"""Which tests run beside which: `make test` has two processes, for as many cores."""

from pathlib import Path

import pytest

_ROOT = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give one process the tests of sweeps, the other all that need a SLURM of their own, and the rest."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item.path)))


def _group(path: Path) -> str:
    sweeps = path.parent == _ROOT / "experiments" and path.name != "test_shipped_sweeps.py"
    return "sweeps" if sweeps else "rest"
