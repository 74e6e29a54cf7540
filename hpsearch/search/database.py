"""Storage URLs and database errors: check a URL, mask its passwords, classify and describe errors."""

import contextlib
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote_plus

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages._rdb import models

from hpsearch.errors import HpsearchError, UsageError

_SECRET = re.compile(r"pass(word|wd|phrase)?$|secret|token", re.IGNORECASE)
_DRIVERS = {
    "postgresql": ("psycopg", "pip install 'hpsearch[postgresql]'"),
    "mysql": ("pymysql", "pip install 'hpsearch[mysql]'"),
    "mariadb": ("pymysql", "pip install 'hpsearch[mysql]'"),
}


def check_url(url: str, *, create: bool) -> sqlalchemy.URL:
    """Parse and check a storage URL. Raises UsageError if it is not valid; nothing is created or changed.

    A SQLite file must be a database of Optuna; unless `create`, it must exist.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        dialect = parsed.get_dialect()
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError) as error:
        scheme = url.partition(":")[0] if "://" in url else ""
        raise UsageError(
            f"bad storage URL{f' (scheme {scheme!r})' if scheme else ''}: give one such as sqlite:///hpsearch.db, "
            f"postgresql://user@host/database or mysql+pymysql://user@host/database"
        ) from error
    if parsed.drivername in ("mysql", "mariadb"):
        parsed = parsed.set(drivername="mysql+pymysql")
        dialect = parsed.get_dialect()
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql", "mysql", "mariadb"):
        raise UsageError(
            f"storage {mask_passwords(parsed)}: {backend} is not supported; use SQLite, PostgreSQL or MySQL/MariaDB"
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise missing_driver(parsed) from error
    if backend == "sqlite":
        _check_sqlite_file(parsed, create=create)
    return parsed


def _check_sqlite_file(parsed: sqlalchemy.URL, *, create: bool) -> None:
    if parsed.host or parsed.username or parsed.password:
        raise UsageError(
            f"storage {mask_passwords(parsed)}: SQLite is a file without user or host; give sqlite:///FILE"
        )
    if parsed.database in (None, "", ":memory:"):
        raise UsageError("storage sqlite:// keeps the study in memory, where it is lost: give sqlite:///FILE")
    if "uri" in parsed.query:
        raise UsageError(
            f"storage {mask_passwords(parsed)} is a SQLite URI, which is not supported: give sqlite:///FILE"
        )
    path = Path(str(parsed.database))
    if not path.exists():
        if not create:
            raise UsageError(f"there is no database {path} yet: create it with hpsearch run, or change --storage")
        if not path.parent.is_dir():
            raise UsageError(f"the folder of the database {path} does not exist: create it or change --storage")
        return
    if path.is_dir():
        raise UsageError(f"storage {path} is a folder: give sqlite:///FILE")
    try:
        if path.stat().st_size == 0:
            return
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except sqlite3.DatabaseError as error:
        problem = "is not a SQLite database" if "not a database" in str(error) else f"cannot be read ({error})"
        raise UsageError(f"the file {path} {problem}: change --storage; the file was left as it is") from error
    except OSError as error:
        raise UsageError(f"the database {path} cannot be read ({error.strerror}): change --storage") from error
    # Another supervisor may be creating the tables at this moment.
    known = {*models.BaseModel.metadata.tables, "alembic_version"}
    if not (tables <= known or {"studies", "trials"} <= tables):
        raise UsageError(
            f"{path} is the SQLite database of another program (it has the table {min(tables - known)}): "
            f"change --storage; the file was left as it is"
        )


def mask_passwords(url: str | sqlalchemy.URL) -> str:
    """Return a storage URL as text, with passwords replaced by `***`."""
    parsed = sqlalchemy.make_url(url)
    hidden = {name: "***" for name in parsed.query if _SECRET.search(name)}
    text = parsed.update_query_dict(hidden).render_as_string(hide_password=bool(parsed.password))
    return text.replace(quote_plus("***"), "***")


def _secrets(url: sqlalchemy.URL) -> list[str]:
    """Return the passwords in a storage URL, the longest first."""
    secrets = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if _SECRET.search(name):
            secrets += [value] if isinstance(value, str) else value
    return sorted(filter(None, secrets), key=len, reverse=True)


def is_outage(error: BaseException) -> bool:
    """Whether an error means that the database is unavailable, so that the same call may succeed later."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
            return True
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def reason(error: BaseException, url: str | sqlalchemy.URL) -> str:
    """Return the message of a database error, in one line and without passwords."""
    while isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    original = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error
    line = " ".join(str(original).split())
    for secret in _secrets(sqlalchemy.make_url(url)):
        line = line.replace(secret, "***")
    return line


def missing_driver(parsed: sqlalchemy.URL) -> HpsearchError:
    """Return the error for a database whose driver is not installed."""
    driver, remedy = _DRIVERS.get(parsed.get_backend_name(), (parsed.get_driver_name(), "install it with pip"))
    return UsageError(
        f"storage {mask_passwords(parsed)} needs the driver {parsed.get_driver_name() or driver}: {remedy}"
    )
