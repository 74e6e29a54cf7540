"""SQLite shared by several processes: transactions that write take the write lock at once, and wait for it."""

import sqlite3
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy
import sqlalchemy.exc
from sqlalchemy import event

from hpsearch.errors import HpsearchError

# Short, because SQLite does not react to Ctrl-C while it waits.
BUSY_SECONDS = 0.5


class ConnectionSettings(Protocol):
    """An engine, for how many seconds it waits for a lock, and whether the next transaction only reads."""

    patience: float
    engine: sqlalchemy.Engine

    @property
    def reads(self) -> bool:
        """Whether the transaction that this thread begins now only reads."""


def begin_immediate(storage: ConnectionSettings, path: Path) -> None:
    """Make transactions that write take the write lock at once, and check that the file is not replaced."""
    path = path.absolute()
    identity = _identity(path)

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")
        _retry_while_locked(storage.patience, lambda: connection.execute("PRAGMA journal_mode=WAL"))
        # With FULL, the default, a finished trial survives a power failure.
        connection.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Any) -> None:
        # SQLite would go on writing to the removed file.
        if _identity(path) != identity:
            raise HpsearchError(
                f"the database {path} was removed or replaced during the run, which cannot continue: everything "
                f"trained is kept; put the file back and run the same command again"
            )
        how = "BEGIN" if storage.reads else "BEGIN IMMEDIATE"
        _retry_while_locked(storage.patience, lambda: connection.exec_driver_sql(how))

    engine = storage.engine
    # A strong reference from the engine would keep the storage alive.
    storage = weakref.proxy(storage)
    engine.dispose()
    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, which change if it is replaced, or None if there is no file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _retry_while_locked(seconds: float, call: Callable[[], object]) -> None:
    """Repeat a call while SQLite's lock is taken; raise its error after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except (sqlite3.OperationalError, sqlalchemy.exc.OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
