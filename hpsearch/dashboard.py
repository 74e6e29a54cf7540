"""The Optuna dashboard on a storage, to look at and not to touch.

The dashboard has no login, and can delete and rename. So it listens on the loopback interface only, answers only
requests that name this machine (a foreign page cannot reach it by DNS rebinding), and only those that read.
"""

import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from typing import Any

import optuna
import optuna_dashboard

from hpsearch.errors import UsageError
from hpsearch.search.owner import Owner
from hpsearch.search.storage import Storage

HOSTS = ("localhost", "127.0.0.1", "[::1]")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def read_only(application: Application) -> Application:
    """Return a WSGI application that passes on GET and HEAD requests for this machine, and answers 421 or 405 else."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rsplit(":", 1)[0] if environ.get("HTTP_HOST") else ""
        refused = None
        if host not in HOSTS:
            refused = "421 Misdirected Request"
        elif environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            refused = "405 Method Not Allowed"
        if refused is None:
            return application(environ, start_response)
        start_response(refused, [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
        return [f"{refused}: hpsearch shows studies here, it does not change them\n".encode()]

    return guarded


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_server(url: str, port: int) -> wsgiref.simple_server.WSGIServer:
    """Return a server of the dashboard on 127.0.0.1:`port` (0: any free one).

    Raises UsageError if the storage cannot be read or the port is taken.
    """
    storage = Storage(url, Owner.this_process(), create=False, exclusive=False)
    application = read_only(optuna_dashboard.wsgi(optuna.storages.get_storage(storage)))
    try:
        return wsgiref.simple_server.make_server("127.0.0.1", port, application, _Server, _Quiet)
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}): give another --port, or --port 0") from error


def serve_in_background(server: wsgiref.simple_server.WSGIServer) -> threading.Thread:
    """Serve until `server.shutdown()`; return the thread that does."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread
