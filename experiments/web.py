"""`vae-sweep ui`: MLflow and the Optuna dashboard on loopback, started and closed together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from experiments.dashboard import HOST
from experiments.failures import OperationError
from experiments.guard import GRACE_S
from experiments.page_links import fetch, study_links
from experiments.stores import Stores
from vae_core.errors import UserError

_START_TIMEOUT_S = 180.0
_LOG_TAIL_BYTES, _LOG_TAIL_LINES = 8000, 8
_FRAMES = (" ", "Traceback", "The above exception", "During handling")
_FOREIGN = ("MLFLOW_", "_MLFLOW_", "OPTUNA_", "UVICORN_", "OTEL_")  # settings meant for other servers
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes of 120 MB for features of language models
}


class ServerError(OperationError):
    """A web server did not come up, or ended; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """One running web server."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: BinaryIO

    def last_words(self) -> str:
        """Return the end of what the server wrote, without the frames of tracebacks."""
        descriptor = self.log.fileno()
        start = max(0, os.fstat(descriptor).st_size - _LOG_TAIL_BYTES)
        text = os.pread(descriptor, _LOG_TAIL_BYTES, start).decode(errors="replace")
        lines = [line for line in text.splitlines() if line and not line.startswith(_FRAMES)]
        return "\n".join(lines[-_LOG_TAIL_LINES:])


@contextmanager
def web_pages(root: Path, mlflow_port: int | None = None, optuna_port: int | None = None) -> Iterator[list[Server]]:
    """Start both servers, wait until they answer, and stop them at the end.

    Args:
        root: folder of the studies.
        mlflow_port: port on loopback; default: 5000, or a free one where that is taken.
        optuna_port: likewise, 8080.

    Raises:
        UserError: nothing has been run under `root`, or a port that was asked for cannot be used.
        ServerError: a server does not answer.
    """
    stores = Stores(root)
    _check_stores(stores)
    mlflow = _free_port("--mlflow-port", mlflow_port, 5000, optuna_port)
    optuna = _free_port("--optuna-port", optuna_port, 8080, mlflow)
    servers: list[Server] = []
    try:
        servers.append(_start("MLflow", _mlflow_command(stores, mlflow), mlflow))
        servers.append(_start("Optuna dashboard", _dashboard_command(stores, optuna), optuna))
        for server in servers:
            _wait(server)
        yield servers
    finally:
        _stop(servers)


def serve(root: Path, mlflow_port: int | None, optuna_port: int | None, console: Console) -> None:
    """Run both servers until Ctrl-C or SIGTERM, and say where they are.

    Raises:
        UserError: nothing has been run under `root`, or a port cannot be used.
        ServerError: a server does not answer, ended, or its store was replaced.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), web_pages(root, mlflow_port, optuna_port) as servers:
        addresses = [(server.name, server.url) for server in servers]
        with suppress(OSError):  # a server too busy to be asked: the two addresses will do
            addresses += study_links(root, *(server.url for server in servers))
        width = max(len(name) for name, _ in addresses)
        for name, url in addresses:
            console.print(f"{name + ':':{width + 2}}{url}", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C closes both.")
        _watch(servers, Stores(root))


def _watch(servers: list[Server], stores: Stores) -> None:
    """Look after the servers for ever.

    Raises:
        ServerError: one ended, or still shows a store that was deleted.
    """
    shown = _identities(stores)
    while True:
        time.sleep(1.0)
        for server in servers:
            if server.process.poll() is not None:
                raise ServerError(f"{server.name} ended; its last words:\n{server.last_words()}")
        if _identities(stores) != shown:
            raise ServerError(f"the stores in {stores.root} were replaced; to see the new ones, start this again")


def _identities(stores: Stores) -> list[int | None]:
    return [path.stat().st_ino if path.exists() else None for path in stores.files]


def _check_stores(stores: Stores) -> None:
    missing = [path.name for path in stores.files if not path.exists()]
    studies = sorted(path.parent.name for path in stores.root.glob("*/sweep.yaml"))
    if missing and not studies:
        raise UserError(f"--root {stores.root}: holds no study yet; run one first, for example: vae-sweep run beta")
    if missing:
        command = f"vae-sweep rebuild {studies[0]} --root {stores.root}"
        raise UserError(
            f"--root {stores.root}: {' and '.join(missing)} missing; make the pages anew from the studies' folders "
            f"({', '.join(studies)}), for example: {command}"
        )


def _mlflow_command(stores: Stores, port: int) -> list[str]:
    options = ["--backend-store-uri", stores.mlflow_uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    options += ["--no-serve-artifacts", "--default-artifact-root", stores.mlflow_artifacts.as_uri()]
    return [sys.executable, "-m", "mlflow", "ui", *options]


def _dashboard_command(stores: Stores, port: int) -> list[str]:
    return [sys.executable, "-m", "experiments.dashboard", str(stores.optuna_journal), str(port)]


def _free_port(option: str, wanted: int | None, usual: int, other: int | None) -> int:
    """Return the wanted port, or the usual one, or any; never the `other` server's."""
    if wanted is not None and wanted == other:
        raise UserError(f"{option} {wanted}: both servers cannot listen on one port; choose another")
    for port in [wanted] if wanted is not None else [usual, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not hindered by closed connections
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if wanted is not None:
                    raise UserError(f"{option} {wanted}: cannot be used ({error.strerror}); choose another") from error
                continue
            found = int(probe.getsockname()[1])
        if found != other:
            return found
    raise ServerError("no free port on loopback")


def _start(name: str, command: list[str], port: int) -> Server:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
    foreign = [key for key in os.environ if key.startswith(_FOREIGN)]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.guard", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={key: value for key, value in os.environ.items() if key not in foreign} | _SETTINGS,
    )
    return Server(name, f"http://{HOST}:{port}", process, log)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            fetch(server.url)
        except OSError:
            time.sleep(0.1)
        else:
            return
    state = "does not answer" if server.process.poll() is None else "ended at its start"
    raise ServerError(f"{server.name} {state} ({server.url}); its last words:\n{server.last_words()}")


def _stop(servers: list[Server]) -> None:
    """Close the pipes that keep the guards waiting, and see to it that their processes are gone."""
    for server in servers:
        if server.process.stdin:
            server.process.stdin.close()
    for server in servers:
        try:
            server.process.wait(timeout=2 * GRACE_S)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
        with suppress(ProcessLookupError):  # the rule: the guard took them with it
            os.killpg(server.process.pid, signal.SIGKILL)
        server.log.close()
