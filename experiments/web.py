"""`vae-sweep ui`: MLflow and the Optuna dashboard, on loopback unless told otherwise, started and closed together."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from experiments.failures import OperationError
from experiments.guard import GRACE_S
from experiments.own_modules import module_command, own_path
from experiments.page_links import fetch, study_links
from experiments.stores import Stores
from experiments.web_hosts import LOOPBACK, Place, place
from tracking.mlflow_address import shown_uri
from vae_core.errors import UserError

_MLFLOW, _DASHBOARD = "MLflow", "Optuna dashboard"
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
    """One running web server; `own_url` is where this machine itself reaches it."""

    name: str
    url: str
    own_url: str
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
def web_pages(
    root: Path, mlflow_port: int | None = None, optuna_port: int | None = None, at: Place | None = None
) -> Iterator[list[Server]]:
    """Start both servers, wait until they answer, and stop them at the end.

    Where coordinators write to a tracking server of the user's ($VAE_SWEEP_MLFLOW_URI), the dashboard alone is started.

    Args:
        root: folder of the studies.
        mlflow_port: default: 5000, or a free one where that is taken.
        optuna_port: likewise, 8080.
        at: where they listen; default: loopback.

    Raises:
        UserError: nothing has been run under `root`, or a port that was asked for cannot be used.
        ServerError: a server does not answer.
    """
    at = at or place(LOOPBACK)
    stores = Stores(root)
    _check_stores(stores)
    mlflow = _free_port("--mlflow-port", mlflow_port, 5000, optuna_port, at)
    optuna = _free_port("--optuna-port", optuna_port, 8080, mlflow, at)
    artifacts = stores.artifacts_of(stores.tracking_uri)
    store = {"MLFLOW_BACKEND_STORE_URI": stores.tracking_uri}  # which may hold a password: no word of a command
    servers: list[Server] = []
    try:
        if artifacts is not None:
            servers.append(_start(_MLFLOW, _mlflow_command(artifacts, mlflow, at), mlflow, at, store))
        servers.append(_start(_DASHBOARD, _dashboard_command(stores, optuna, at), optuna, at, {}))
        for server in servers:
            _wait(server)
        yield servers
    finally:
        _stop(servers)


def serve(
    root: Path,
    mlflow_port: int | None,
    optuna_port: int | None,
    console: Console,
    host: str = LOOPBACK,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Run both servers until Ctrl-C or SIGTERM, and say where they are.

    Args:
        root: folder of the studies.
        mlflow_port: see `web_pages`.
        optuna_port: see `web_pages`.
        console: where the addresses are shown.
        host: address or name of this machine to listen on; a warning says who can get there.
        allowed_hosts: further names by which browsers may call it, such as a reverse proxy's.

    Raises:
        UserError: nothing has been run under `root`, or the host or a port cannot be used.
        ServerError: a server does not answer, ended, or its store was replaced.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    at = place(host, allowed_hosts)
    with suppress(KeyboardInterrupt), web_pages(root, mlflow_port, optuna_port, at) as servers:
        addresses = _addresses(root, servers)
        width = max(len(name) for name, _ in addresses)
        for name, url in addresses:
            console.print(f"{name + ':':{width + 2}}{url}", markup=False, highlight=False, soft_wrap=True)
        if not at.is_loopback:
            console.print(_warning(servers), style="bold red", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C closes both.")
        _watch(servers, Stores(root))


def _addresses(root: Path, servers: list[Server]) -> list[tuple[str, str]]:
    """Return (what, address) of the servers and of the newest studies' pages, as people are told them."""
    found = [(server.name, server.url) for server in servers]
    if len(servers) == 1:
        return [(_MLFLOW, shown_uri(Stores(root).tracking_uri)), *found]
    with suppress(OSError):  # a server too busy to be asked: the two addresses will do
        for name, link in study_links(root, *(server.own_url for server in servers)):
            server = next(server for server in servers if link.startswith(server.own_url))
            found.append((name, server.url + link.removeprefix(server.own_url)))
    return found


def _warning(servers: list[Server]) -> str:
    ports = [server.url.rpartition(":")[2] for server in servers]
    tunnel = " ".join(f"-L {port}:{LOOPBACK}:{port}" for port in ports)
    return (
        "Neither page has a password: whoever reaches these ports reads all studies, and in MLflow can change and "
        f"delete runs.\nSafer: leave --host out, and on your own machine: ssh {tunnel} {socket.gethostname()}"
    )


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


def _files(stores: Stores) -> list[Path]:
    """Return the files that the pages show; MLflow's own only where coordinators write there."""
    return [stores.optuna_journal] if stores.tracking_uri != stores.mlflow_uri else list(stores.files)


def _identities(stores: Stores) -> list[int | None]:
    return [path.stat().st_ino if path.exists() else None for path in _files(stores)]


def _check_stores(stores: Stores) -> None:
    missing = [path.name for path in _files(stores) if not path.exists()]
    studies = sorted(path.parent.name for path in stores.root.glob("*/sweep.yaml"))
    if missing and not studies:
        raise UserError(f"--root {stores.root}: holds no study yet; run one first, for example: vae-sweep run beta")
    if missing:
        command = f"vae-sweep rebuild {studies[0]} --root {stores.root}"
        raise UserError(
            f"--root {stores.root}: {' and '.join(missing)} missing; make the pages anew from the studies' folders "
            f"({', '.join(studies)}), for example: {command}"
        )


def _mlflow_command(artifacts: Path, port: int, at: Place) -> list[str]:
    options = ["--host", at.address, "--port", str(port), "--workers", "1"]
    options += ["--no-serve-artifacts", "--default-artifact-root", artifacts.as_uri()]
    # every name with any port, for a tunnel or a proxy may have another; MLflow's own default lets in whole networks
    hosts = [pattern for name in at.names for pattern in (name, f"{name.replace('[', '[[]')}:*")]
    origins = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
    options += ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]
    return [*module_command("mlflow"), "ui", *options]


def _dashboard_command(stores: Stores, port: int, at: Place) -> list[str]:
    return [*module_command("experiments.dashboard"), str(stores.optuna_journal), at.address, str(port), *at.names]


def _free_port(option: str, wanted: int | None, usual: int, other: int | None, at: Place) -> int:
    """Return the wanted port, or the usual one, or any; never the `other` server's."""
    if wanted is not None and wanted == other:
        raise UserError(f"{option} {wanted}: both servers cannot listen on one port; choose another")
    for port in [wanted] if wanted is not None else [usual, 0]:
        with socket.socket(at.family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not hindered by closed connections
            try:
                probe.bind((at.address, port))
            except OSError as error:
                if wanted is not None:
                    raise UserError(f"{option} {wanted}: cannot be used ({error.strerror}); choose another") from error
                continue
            found = int(probe.getsockname()[1])
        if found != other:
            return found
    raise ServerError(f"no free port on {at.host}")


def _start(name: str, command: list[str], port: int, at: Place, settings: dict[str, str]) -> Server:
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
    foreign = [key for key in os.environ if key.startswith(_FOREIGN)]
    process = subprocess.Popen(
        [*module_command("experiments.guard"), *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={key: value for key, value in os.environ.items() if key not in foreign} | own_path() | _SETTINGS | settings,
    )
    return Server(name, at.url(port), at.own_url(port), process, log)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            fetch(server.own_url)
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
