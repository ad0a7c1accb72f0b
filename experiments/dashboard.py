"""The Optuna dashboard on loopback, without its buttons' effect: `python -m experiments.dashboard JOURNAL PORT`.

The dashboard's own command would write into the journal (rename, delete, notes) under another lock than the
coordinator's, and what it writes would be gone after `vae-sweep rebuild`. Reading takes no lock, and a last line that
is still being written is left for the next look.
"""

import json
import sys
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
_READS = ("GET", "HEAD")
_REFUSAL = "this dashboard only reads; what it shows follows from the study's folder"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def reading_only(app: "WSGIApplication") -> "WSGIApplication":
    """Return `app` without the requests that change something; they are answered with 403 and the reason."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in _READS:
            return app(environ, start_response)
        status = HTTPStatus.FORBIDDEN
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps({"reason": _REFUSAL}).encode()]

    return answer


def application(journal: Path) -> "WSGIApplication":
    """Return the dashboard of the studies in a journal file."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna_dashboard import wsgi

    dashboard: WSGIApplication = wsgi(JournalStorage(JournalFileBackend(str(journal))))
    return reading_only(dashboard)


def main() -> None:
    """Serve the journal's studies until killed."""
    journal, port = sys.argv[1:]
    with make_server(HOST, int(port), application(Path(journal)), server_class=_Server) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
