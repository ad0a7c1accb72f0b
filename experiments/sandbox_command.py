"""`vae-sweep sandbox`: start, stop and look at a real Slurm on this machine."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from experiments.display import counted
from experiments.failures import OperationError
from slurm import sandbox
from slurm.errors import SlurmError, SlurmMistake
from vae_core.errors import UserError

_USE = 'eval "$(vae-sweep sandbox env)"'


def start(console: Console, nodes: int = 2, gpus: int = 2) -> None:
    """Start the sandbox, or what is dead of a running one, and say how to use it.

    Args:
        console: where to say it.
        nodes: number of nodes.
        gpus: fake GPUs per node.

    Raises:
        UserError: this machine or an argument does not allow it.
        OperationError: a daemon does not come up.
    """
    with _translated():
        running = sandbox.start(sandbox.default_folder(), nodes, gpus)
    settings = running.settings
    size = f"{counted(nodes, 'node')} ({', '.join(settings.node_names)}), {counted(gpus, 'fake GPU')} each"
    complete = len(running.started) == len(settings.ports) + 1  # one daemon per port, and munged
    _say(console, f"A SLURM with {size} {'runs' if running.started else 'ran already'} in {running.folder}.")
    if running.started and not complete:
        _say(console, f"Started again, for they had died: {', '.join(running.started)}.")
    _say(console, f"In each shell that shall use it:  {_USE}")
    _say(console, "Then, for example:                sinfo; srun --gpus-per-node=1 env | grep CUDA")
    _say(console, "A job in partition `high` preempts those in `main`.")
    _say(console, "At the end:                       vae-sweep sandbox stop")


def stop(console: Console) -> None:
    """Cancel the sandbox's jobs, end its daemons, and say what ran.

    Raises:
        UserError: the folder cannot be one of a sandbox.
        OperationError: something cannot be ended.
    """
    with _translated():
        before = sandbox.stop(sandbox.default_folder())
    if not before.daemons:
        _say(console, f"No sandbox ran in {before.folder}.")
        return
    ended = f"{counted(len(before.daemons), 'daemon')} ended, {counted(before.jobs, 'job')} cancelled"
    _say(console, f"The sandbox is stopped: {ended}. Its logs stay in {before.folder}/log.")
    _say(console, "Start it again:  vae-sweep sandbox start")


def status(console: Console) -> None:
    """Print the nodes with their states, the number of jobs, and which daemons are dead.

    Raises:
        UserError: the folder cannot be one of a sandbox.
        OperationError: SLURM does not answer.
    """
    with _translated():
        now = sandbox.status(sandbox.default_folder())
    if not now.daemons or now.settings is None:
        _say(console, f"No sandbox runs in {now.folder}; start one:  vae-sweep sandbox start")
        return
    _say(console, f"The sandbox in {now.folder}:")
    table = Table("node", "state")
    for name, state in now.nodes.items():
        table.add_row(name, state)
    console.print(table)
    _say(console, f"{counted(now.jobs, 'job')} in the queue, {counted(now.settings.gpus, 'fake GPU')} per node")
    if now.dead:
        again = f"vae-sweep sandbox start --nodes {now.settings.nodes} --gpus {now.settings.gpus}"
        _say(console, f"Dead: {', '.join(now.dead)}; start them again:  {again}")
    _say(console, f"In each shell that shall use it:  {_USE}")


def env() -> None:
    """Print what a shell has to evaluate so that its SLURM commands talk to the sandbox; nothing else.

    Raises:
        UserError: no sandbox runs.
    """
    with _translated():
        now = sandbox.status(sandbox.default_folder())
    if "slurmctld" not in now.daemons:
        raise UserError(f"sandbox env: no sandbox runs in {now.folder}; start one: vae-sweep sandbox start")
    for key, value in now.environment.items():
        sys.stdout.write(f"export {key}={shlex.quote(value)}\n")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SlurmMistake as error:
        raise UserError(str(error)) from error
    except SlurmError as error:
        raise OperationError(str(error)) from error
