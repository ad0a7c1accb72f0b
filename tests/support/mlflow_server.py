"""Real tracking servers on this machine: MLflow over HTTP, PostgreSQL behind it, and a connection that breaks."""

import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

START_TIMEOUT_S = 120.0
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
MISSING_POSTGRES = None if _POSTGRES else "needs PostgreSQL's initdb (Debian: apt install postgresql)"
_HOP = ("connection", "keep-alive", "transfer-encoding", "host", "content-length")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class MlflowServer:
    """`mlflow server` with an artifact proxy, which can be killed and started again at the same address."""

    database: str
    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.database]
        command += ["--artifacts-destination", self.artifacts.as_uri(), "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | settings, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            words = (self.folder / "server.log").read_text()[-2000:]
            assert self.process.poll() is None, f"the server ended: {words}"
            assert time.monotonic() < deadline, f"the server does not answer: {words}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End the server and its workers at once, as a power failure would."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                return bool(answer.read()) and answer.status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False


@contextmanager
def mlflow_server(database: str, folder: Path) -> Iterator[MlflowServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = MlflowServer(database, folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Start PostgreSQL in a folder of its own, as a user who is not root, and yield the database's address."""
    user = _unprivileged_user()
    home = folder / "postgres"
    home.mkdir(parents=True)
    if user is not None:
        shutil.chown(home, user)
        for parent in [folder, *folder.parents]:  # pytest's folders are closed to others
            if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    data, port, binaries = home / "data", free_port(), _POSTGRES[-1]
    start = {"user": user, "cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    subprocess.run([binaries / "initdb", "-D", data, "-U", "sweeper", "-A", "trust"], check=True, timeout=120, **start)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", home / "log", "start"], check=True, timeout=120, **start)
    try:
        yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, timeout=60, **start)


def _unprivileged_user() -> str | None:
    """Return whom to be where this process is root, whom PostgreSQL refuses."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class BreakingProxy:
    """Passes HTTP requests on to a server, and cuts the connection of the chosen one.

    Attributes:
        cut_at: number (from 1) of the request that gets no answer; None: none.
        when: whether the server has processed that request.
        seen: requests so far, as (method, path).
    """

    def __init__(self, port: int) -> None:
        self.cut_at: int | None = None
        self.when: Literal["before", "after"] = "before"
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._upstream = port
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                proxy.pass_on(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815 - http.server's names

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def arm(self, cut_at: int | None, when: Literal["before", "after"] = "before") -> None:
        """Count anew, and cut the connection of that request."""
        self.cut_at, self.when = cut_at, when
        self.seen.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            self.seen.append((request.command, request.path.partition("?")[0]))
            is_cut = len(self.seen) == self.cut_at
        if is_cut and self.when == "before":
            request.close_connection = True
            return
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        with closing(http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=60)) as upstream:
            upstream.request(request.command, request.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        if is_cut:
            request.close_connection = True
            return
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@contextmanager
def breaking_proxy(server: MlflowServer) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()
