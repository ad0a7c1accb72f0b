"""One real Slurm for all tests of this room."""

from collections.abc import Iterator

import pytest
from support.slurm import running_sandbox

from slurm.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Two nodes with two GPUs each; SLURM_CONF is set in this process."""
    with running_sandbox() as cluster:
        yield cluster
