"""The Optuna dashboard, without its buttons' effect: `python -m experiments.dashboard JOURNAL ADDRESS PORT NAME...`.

The dashboard's own command would write into the journal (rename, delete, notes) under another lock than the
coordinator's, and what it writes would be gone after `vae-sweep rebuild`. Reading takes no lock, and a last line that
is still being written is left for the next look. Browsers have to ask for one of the names: a page of another site
could otherwise read the dashboard under a name of its own that resolves to this machine (DNS rebinding).
"""

import json
import socket
import sys
from collections.abc import Collection, Iterable
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READS = ("GET", "HEAD")
_REFUSAL = "this dashboard only reads; what it shows follows from the study's folder"
_STRANGER = "this dashboard does not know itself under that name; see vae-sweep ui --allowed-hosts"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def reading_only(app: "WSGIApplication", names: Collection[str]) -> "WSGIApplication":
    """Return `app` for requests that only read and call the host by one of `names` (any port).

    Others are answered with 403 and the reason.
    """

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        reason = _REFUSAL if environ["REQUEST_METHOD"] not in _READS else None
        if _without_port(environ.get("HTTP_HOST", "")) not in names:
            reason = _STRANGER
        if reason is None:
            return app(environ, start_response)
        status = HTTPStatus.FORBIDDEN
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps({"reason": reason}).encode()]

    return answer


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def application(journal: Path, names: Collection[str]) -> "WSGIApplication":
    """Return the dashboard of the studies in a journal file, for browsers that call its host by one of `names`."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna_dashboard import wsgi

    dashboard: WSGIApplication = wsgi(JournalStorage(JournalFileBackend(str(journal))))
    return reading_only(dashboard, names)


def main() -> None:
    """Serve the journal's studies until killed."""
    journal, address, port, *names = sys.argv[1:]
    kind = _Server6 if ":" in address else _Server
    with make_server(address, int(port), application(Path(journal), names), server_class=kind) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
