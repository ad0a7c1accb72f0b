"""A sweep small enough to run in seconds, and the data it needs."""

import sys
import textwrap

import pytest
import torch
from support.tiny import TINY

from experiments import cli


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


@pytest.fixture
def printed_by(monkeypatch, capsys):
    """Return a function that gives a command line in this process, and returns what was printed to both streams."""

    def give(*arguments, check=0):
        monkeypatch.setattr(sys, "argv", ["vae-sweep", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit, match=f"^{check}$"):
            cli.main()
        printed = capsys.readouterr()
        return printed.out + printed.err

    return give
