"""`vae-sweep ui`: MLflow and the Optuna dashboard on loopback, started and closed together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from experiments.stores import Stores
from vae_core.errors import UserError

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 60.0


class ServerError(Exception):
    """A web server did not come up; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """One running web server."""

    name: str
    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def web_pages(root: Path, mlflow_port: int | None = None, optuna_port: int | None = None) -> Iterator[list[Server]]:
    """Start both servers, wait until they answer, and stop them at the end.

    Args:
        root: folder of the studies.
        mlflow_port: port on loopback; default: 5000, or a free one where that is taken.
        optuna_port: likewise, 8080.

    Raises:
        UserError: nothing has been run under `root`, or a port that was asked for is taken.
        ServerError: a server does not answer.
    """
    stores = Stores(root)
    if not stores.optuna_journal.exists():
        raise UserError(f"--root {root}: holds no study yet; run one first, for example: vae-sweep run beta")
    mlflow = _free_port("--mlflow-port", mlflow_port, 5000)
    optuna = _free_port("--optuna-port", optuna_port, 8080)
    servers: list[Server] = []
    try:
        servers.append(_start("MLflow", _mlflow_command(stores, mlflow), mlflow, root))
        servers.append(_start("Optuna dashboard", _dashboard_command(stores, optuna), optuna, root))
        for server in servers:
            _wait(server, root)
        yield servers
    finally:
        for server in servers:
            _stop(server)


def serve(root: Path, mlflow_port: int | None, optuna_port: int | None, console: Console) -> None:
    """Run both servers until Ctrl-C, and say where they are.

    Raises:
        UserError: nothing has been run under `root`, or a port cannot be used.
        ServerError: a server does not answer, or ended.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with web_pages(root, mlflow_port, optuna_port) as servers:
        for server in servers:
            console.print(f"{server.name + ':':18}{server.url}", markup=False, highlight=False)
        console.print("Ctrl-C closes both.")
        while not stop.wait(1.0):
            for server in servers:
                if server.process.poll() is not None:
                    raise ServerError(f"{server.name} ended with code {server.process.returncode}")


def _mlflow_command(stores: Stores, port: int) -> list[str]:
    options = [
        "--backend-store-uri",
        stores.mlflow_uri,
        "--host",
        _HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    return [sys.executable, "-m", "mlflow", "ui", *options]


def _dashboard_command(stores: Stores, port: int) -> list[str]:
    start = "from optuna_dashboard._cli import main; main()"
    return [sys.executable, "-c", start, str(stores.optuna_journal), "--host", _HOST, "--port", str(port)]


def _free_port(option: str, wanted: int | None, usual: int) -> int:
    for port in [wanted] if wanted is not None else [usual, 0]:
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                if wanted is not None:
                    raise UserError(f"{option} {wanted}: cannot be used ({error.strerror}); choose another") from error
                continue
            return int(probe.getsockname()[1])
    raise ServerError("no free port on loopback")


def _log(name: str, root: Path) -> Path:
    return root / f"{name.split()[0].lower()}-server.log"


def _start(name: str, command: list[str], port: int, root: Path) -> Server:
    with _log(name, root).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            start_new_session=True,
        )
    return Server(name, f"http://{_HOST}:{port}", process)


def _wait(server: Server, root: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(server.url, timeout=5):  # noqa: S310 - our own server on loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    log = _log(server.name, root)
    raise ServerError(f"{server.name} does not answer at {server.url}; {log} ends with:\n{log.read_text()[-1500:]}")


def _stop(server: Server) -> None:
    """End the server and the processes that it started."""
    try:
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait(timeout=5)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
