"""A sweep small enough to run in seconds, and the data it needs."""

import textwrap

import pytest
import torch
from support.tiny import TINY


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Share prepared data sets between the tests of a session, away from the user's own."""
    folder = tmp_path_factory.getbasetemp() / "data-cache"
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(folder))
    return folder


@pytest.fixture
def write_sweep(tmp_path):
    """Return a function that writes a sweep file and returns its path."""

    def write(text=TINY, name="tiny.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text).lstrip())
        return path

    return write
