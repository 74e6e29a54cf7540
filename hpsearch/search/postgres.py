"""Connections to PostgreSQL that do not wait for ever, whatever becomes of the server or the way to it."""

import time
from collections.abc import Generator
from typing import Any, Protocol

import sqlalchemy

from hpsearch.search.owner import Owner


class Impatient(Protocol):
    """Who makes connections: how many seconds they wait, and for whom they are."""

    patience: float
    owner: Owner


def connect(url: sqlalchemy.URL, settings: Impatient) -> Any:
    """Return a psycopg connection to `url` that waits for `settings.patience` seconds for a lock, a little more for
    any answer.

    psycopg itself waits for as long as the connection seems to be there: a server that was stopped, or a route that
    was dropped, is silence without end. A session that was frozen within a transaction is ended by the server, so that
    its locks stop nobody for longer than a third of an outage.
    """
    import psycopg

    silence = settings.patience + 1

    class Connection(psycopg.Connection[Any]):
        def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return super().wait(_spoken_to(gen, silence), *arguments, **options)
            except _Silence as error:
                # Whatever the server says later would be taken for the answer to the next question.
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


class _Silence(Exception):
    """The server said nothing for too long."""


def _spoken_to(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Pass on what a psycopg generator yields and is sent; raise _Silence when it waits for longer than `seconds`."""
    heard = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                heard = now
            elif now - heard > seconds:
                raise _Silence(f"no answer for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
