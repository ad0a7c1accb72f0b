"""What `vae-sweep sandbox` says, over a real Slurm."""

import io
import os
import signal
import subprocess

import pytest
from rich.console import Console
from support.slurm import running_sandbox, wait_until

from experiments import sandbox_command
from experiments.failures import OperationError
from slurm.sandbox_processes import daemons
from vae_core.errors import UserError


@pytest.fixture(scope="module")
def cluster():
    with running_sandbox(nodes=1, gpus=2) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAE_SWEEP_SANDBOX", str(running.folder))
        patch.delenv("SLURM_CONF")
        yield running


def said(command, **arguments):
    text = io.StringIO()
    command(Console(file=text, width=40), **arguments)
    return text.getvalue()


def test_start_says_what_runs_and_how_to_use_it(cluster):
    text = said(sandbox_command.start, nodes=1, gpus=2)
    assert f"A SLURM with 1 node (n1), 2 fake GPUs each ran already in {cluster.folder}.\n" in text
    assert 'eval "$(vae-sweep sandbox env)"\n' in text
    assert "vae-sweep sandbox stop\n" in text


def test_what_env_prints_makes_a_shell_use_it(cluster, capsys):
    sandbox_command.env()
    printed = capsys.readouterr().out
    assert printed == f"export SLURM_CONF={cluster.folder}/slurm.conf\n"
    shell = ["sh", "-c", f"{printed}\nsinfo -h -o %N"]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split() == ["n1"]


def test_status_shows_nodes_and_the_dead_and_start_mends_them(cluster):
    assert "n1" in said(sandbox_command.status)
    os.kill(daemons(cluster.folder)["slurmd n1"][0], signal.SIGKILL)
    wait_until(lambda: "slurmd n1" not in daemons(cluster.folder), "the end of slurmd")
    dead = said(sandbox_command.status)
    assert "Dead: slurmd n1; start them again:  vae-sweep sandbox start --nodes 1 --gpus 2\n" in dead
    assert "Started again, for they had died: slurmd n1.\n" in said(sandbox_command.start, nodes=1, gpus=2)
    assert "Dead" not in said(sandbox_command.status)


def test_mistakes_and_failures_are_the_command_lines_own(cluster, monkeypatch):
    with pytest.raises(UserError, match=r"runs with --nodes 1 .*vae-sweep sandbox stop"):
        said(sandbox_command.start, nodes=2, gpus=2)
    monkeypatch.setattr("slurm.sandbox_daemons._COMMAND_TIMEOUT_S", 0.0)
    with pytest.raises(OperationError, match=r"^sinfo .*: no answer within 0 s$"):
        said(sandbox_command.status)


def test_stop_says_what_ran_and_afterwards_every_command_says_that_nothing_does(cluster):
    folder = cluster.folder
    assert "The sandbox is stopped: 3 daemons ended, 0 jobs cancelled." in said(sandbox_command.stop)
    assert said(sandbox_command.stop) == f"No sandbox ran in {folder}.\n"
    assert said(sandbox_command.status) == f"No sandbox runs in {folder}; start one:  vae-sweep sandbox start\n"
    with pytest.raises(UserError, match=r"^sandbox env: no sandbox runs in .*; start one: vae-sweep sandbox start$"):
        sandbox_command.env()
    assert "A SLURM with 1 node (n1), 0 fake GPUs each runs in" in said(sandbox_command.start, nodes=1, gpus=0)
