"""SQLite shared by several processes: one that writes takes the write lock at once, and waits for it patiently."""

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

# SQLite waits without seeing Ctrl-C.
BUSY_SECONDS = 0.5


class Patient(Protocol):
    """Whose engine it is: how many seconds it waits for a lock, and whether the transaction that begins only reads."""

    patience: float
    engine: sqlalchemy.Engine

    @property
    def reads(self) -> bool:
        """Whether the transaction that this thread begins now only reads."""


def begin_immediate(storage: Patient, path: Path) -> None:
    """Make SQLite's transactions that write take the write lock at once, and see to it that the file stays there."""
    path = path.absolute()
    identity = _identity(path)

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")
        _patiently(storage.patience, lambda: connection.execute("PRAGMA journal_mode=WAL"))
        # The default, FULL, makes a finished trial survive a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Any) -> None:
        # SQLite would write to the removed file until the end.
        if _identity(path) != identity:
            raise HpsearchError(
                f"the database {path} was removed or replaced during the run, which cannot go on: what was trained is "
                f"kept; put the file back and run the same command again"
            )
        how = "BEGIN" if storage.reads else "BEGIN IMMEDIATE"
        _patiently(storage.patience, lambda: connection.exec_driver_sql(how))

    engine = storage.engine
    # The engine must not keep its storage in use.
    storage = weakref.proxy(storage)
    engine.dispose()
    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at its path, or None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _patiently(seconds: float, call: Callable[[], object]) -> None:
    """Call until SQLite's lock was free, or raise its error after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except (sqlite3.OperationalError, sqlalchemy.exc.OperationalError) as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
