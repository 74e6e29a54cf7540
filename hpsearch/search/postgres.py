"""PostgreSQL connections with a time limit on every call, even if the server or the network fails silently."""

import time
from collections.abc import Generator
from typing import Any, Protocol

import sqlalchemy

from hpsearch.search.owner import Owner


class ConnectionSettings(Protocol):
    """For how many seconds a connection waits, and the owner that uses it."""

    patience: float
    owner: Owner


def connect(url: sqlalchemy.URL, settings: ConnectionSettings) -> Any:
    """Return a psycopg connection to `url` that waits up to `settings.patience` seconds for a lock.

    It waits one second longer for any answer. psycopg itself waits as long as the connection seems to exist, which is
    forever if the server is suspended or the route to it is lost. The server ends a session that is suspended within a
    transaction, so that its locks block others for at most a third of an outage.
    """
    import psycopg

    answer_seconds = settings.patience + 1

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_with_timeout(gen, answer_seconds), *arguments, **options)
            except _NoAnswer as error:
                # A late answer would be taken for the answer to the next query.
                self.pgconn.finish()
                raise psycopg.OperationalError(str(error)) from None

    dialect = url.get_dialect()()
    _, options = dialect.create_connect_args(url)
    connection = Connection.connect(**{"connect_timeout": min(5, round(settings.patience)), **options})
    idle = min(15.0, max(1.0, settings.owner.outage / 3))
    try:
        connection.autocommit = True
        limits = {"lock_timeout": settings.patience, "idle_in_transaction_session_timeout": idle}
        for name, seconds in limits.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds * 1000:.0f}"))
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


class _NoAnswer(Exception):
    """The server did not answer in time."""


def _with_timeout(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Delegate to a psycopg generator; raise _NoAnswer if it waits for longer than `seconds`."""
    last_ready = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                last_ready = now
            elif now - last_ready > seconds:
                raise _NoAnswer(f"no answer for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
