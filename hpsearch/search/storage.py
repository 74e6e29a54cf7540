"""The study's database: Optuna's own tables and storage, plus what several supervisors on one study need.

Optuna's storage hands out trials without asking who runs them. `Storage` adds ownership: a trial is claimed, kept
alive, given back, taken over from the dead and finished in transactions that also check the budget and the owner.
No trial is ever copied: an interrupted one goes from RUNNING back to WAITING under its own number.

On SQLite every transaction takes the write lock at its start (`BEGIN IMMEDIATE`), which makes Optuna's own
read-then-write transactions atomic there too; on other databases they lock the study's row.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import and_, event, func, select
from sqlalchemy.orm import Session, aliased

from hpsearch.errors import HpsearchError, UsageError
from hpsearch.search.owner import Owner

OWNER = "hpsearch:owner"
# What only a claim leaves with a trial.
CLAIM_MARKS = (OWNER, "hpsearch:claim")
GRID_POINT = "hpsearch:grid_point"
FIXED_PARAMS = "fixed_params"
# A supervisor that has not been heard of for this long is taken for dead.
GRACE_SECONDS = 60
HEARTBEAT_SECONDS = 10

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_DRIVERS = {
    "postgresql": ("psycopg", "pip install 'hpsearch[postgresql]'"),
    "mysql": ("pymysql", "pip install 'hpsearch[mysql]'"),
    "mariadb": ("pymysql", "pip install 'hpsearch[mysql]'"),
}


class Storage(RDBStorage):
    """Optuna's `RDBStorage`, with trials that belong to the supervisor `owner`."""

    def __init__(self, url: str, owner: Owner, *, create: bool = True, exclusive: bool = True) -> None:
        """Connect to `url`; `create` makes missing tables. Raises UsageError, one line, for whatever is wrong.

        `exclusive` is what a supervisor needs; a mere reader leaves it off and never waits for a lock.
        """
        self.owner = owner
        parsed = check_url(url, create=create)
        # Optuna formats the URL, braces and all.
        formattable = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        options = {
            "engine_kwargs": _engine_options(parsed),
            "skip_compatibility_check": True,
            "skip_table_creation": not create,
        }
        try:
            self._connect(formattable, options)
            self._version_manager.check_table_schema_compatibility()
        except ImportError as error:
            raise _missing_driver(parsed) from error
        except RuntimeError as error:
            if "upgrade" not in str(error):
                raise
            raise UsageError(
                f"{shown(parsed)} was made by another version of Optuna: upgrade it with "
                f"optuna storage upgrade --storage {shown(parsed)}, then run again"
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise UsageError(f"cannot use the database {shown(parsed)}: {reason(error, parsed)}") from error
        if parsed.get_backend_name() == "sqlite" and exclusive:
            _begin_immediate(self.engine)

    def _connect(self, url: str, options: dict[str, Any], attempts: int = 5) -> None:
        """Connect and create the tables; two that do so at once trip over each other, and the next try succeeds."""
        for attempt in range(1, attempts + 1):
            try:
                return RDBStorage.__init__(self, url, **options)
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                self.engine.dispose()
                said = f"{error} {error.__cause__}"
                if attempt == attempts or not any(word in said for word in ("already exists", "UNIQUE", "uplicate")):
                    raise
                time.sleep(0.2 * attempt)
        return None

    @contextlib.contextmanager
    def _locked(self, study_id: int) -> Iterator[Session]:
        """A transaction that no other claim, return, takeover or finish in this study overlaps."""
        with Session(self.engine) as session, session.begin():
            query = select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
            session.execute(query.with_for_update())
            yield session

    def describe_once(self, study_id: int, attrs: dict[str, Any]) -> dict[str, Any]:
        """Set the study's user attributes unless it has some of ours; return those that hold."""
        with self._locked(study_id) as session:
            rows = session.scalars(
                select(models.StudyUserAttributeModel).where(models.StudyUserAttributeModel.study_id == study_id)
            ).all()
            found: dict[str, Any] = {str(row.key): json.loads(str(row.value_json)) for row in rows}
            if not any(key in found for key in attrs):
                for key, value in attrs.items():
                    session.add(
                        models.StudyUserAttributeModel(study_id=study_id, key=key, value_json=json.dumps(value))
                    )
                found |= attrs
            return found

    def separate_copy(self, study_id: int, key: str, value: Any) -> bool:
        """Return whether another tool copied the study, and make it one of its own: set its user attribute `key`.

        Optuna's `copy_study` copies a trial's claim, but not the heartbeat that is recorded with it. Nobody runs the
        copy of a running trial: it goes to the queue.
        """
        trials, marks, beats = models.TrialModel, models.TrialSystemAttributeModel, models.TrialHeartbeatModel
        claimed = select(marks).where(marks.trial_id == trials.trial_id, marks.key.in_(CLAIM_MARKS)).exists()
        beaten = select(beats).where(beats.trial_id == trials.trial_id).exists()
        with self._locked(study_id) as session:
            copied = session.scalars(select(trials).where(trials.study_id == study_id, claimed, ~beaten)).all()
            for trial in copied:
                if trial.state == TrialState.RUNNING:
                    trial.state = TrialState.WAITING
                session.execute(
                    sqlalchemy.delete(marks).where(marks.trial_id == trial.trial_id, marks.key.in_(CLAIM_MARKS))
                )
            if copied:
                table = models.StudyUserAttributeModel
                for row in session.scalars(select(table).where(table.study_id == study_id, table.key == key)):
                    row.value_json = json.dumps(value)
            return bool(copied)

    def append_once(self, study_id: int, key: str, value: Any) -> None:
        """Append `value` to the list that a study's user attribute is, unless it is in it."""
        table = models.StudyUserAttributeModel
        with self._locked(study_id) as session:
            row = session.scalars(select(table).where(table.study_id == study_id, table.key == key)).first()
            found = [] if row is None else json.loads(str(row.value_json))
            if value in found:
                return
            text = json.dumps([*found, value])
            if row is None:
                session.add(table(study_id=study_id, key=key, value_json=text))
            else:
                row.value_json = text

    def claim(
        self, study_id: int, limit: int, held: Collection[int], grid: Sequence[dict[str, Any]] | None = None
    ) -> int | None:
        """Make a trial ours and RUNNING and return its id, or None when `limit` trials are finished or running.

        In this order: one of ours that we do not hold (its claim was cut off), the first waiting one, a new one. With
        a `grid`, a new trial gets the first point that no trial has had, and None is returned when there is none.
        """
        with self._locked(study_id) as session:
            trials = models.TrialModel
            for trial_id in self._owned(session, study_id):
                if trial_id not in held:
                    return trial_id
            states = self._counts(session, study_id)
            running = len(self._owners(session, study_id))
            if sum(states.get(state, 0) for state in FINISHED) + running >= limit:
                return None
            trial = session.scalars(
                select(trials)
                .where(trials.study_id == study_id, trials.state == TrialState.WAITING)
                .order_by(trials.number)
                .limit(1)
            ).first()
            if trial is None:
                trial = trials(study_id=study_id, number=sum(states.values()), datetime_start=datetime.now())
                trial.state = TrialState.RUNNING
                session.add(trial)
                if grid is not None:
                    point = self._untried(session, study_id, grid)
                    if point is None:
                        session.rollback()
                        return None
                    session.flush()
                    for key, value in ((GRID_POINT, grid.index(point)), (FIXED_PARAMS, point)):
                        _set(session, models.TrialSystemAttributeModel, int(trial.trial_id), key, value)
            trial.state = TrialState.RUNNING
            trial.datetime_start = trial.datetime_start or datetime.now()
            session.flush()
            claimed = int(trial.trial_id)
            _set(session, models.TrialSystemAttributeModel, claimed, OWNER, self.owner.as_dict())
            _beat(session, claimed)
            return claimed

    def _untried(self, session: Session, study_id: int, grid: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the first point that no trial was given as a point of a grid, or None."""
        trials, attrs = models.TrialModel, models.TrialSystemAttributeModel
        marks = aliased(attrs)
        given = session.scalars(
            select(attrs.value_json)
            .join(trials, trials.trial_id == attrs.trial_id)
            .join(marks, and_(marks.trial_id == attrs.trial_id, marks.key == GRID_POINT))
            .where(trials.study_id == study_id, attrs.key == FIXED_PARAMS)
        )
        tried = {_canonical(json.loads(str(text))) for text in given}
        return next((point for point in grid if _canonical(point) not in tried), None)

    def counts(self, study_id: int) -> dict[TrialState, int]:
        """Return how many trials are in each state."""
        with Session(self.engine) as session, session.begin():
            return self._counts(session, study_id)

    def others_running(self, study_id: int) -> int:
        """Return how many trials other supervisors are running, for all we know."""
        with self._locked(study_id) as session:
            owners = self._owners(session, study_id).values()
            return sum(owner.token != self.owner.token for owner in owners)

    def set_attr(self, study_id: int, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a running trial of ours; does nothing if it is not ours any more."""
        with self._locked(study_id) as session:
            if trial_id in self._owned(session, study_id):
                _set(session, models.TrialUserAttributeModel, trial_id, key, value)

    def keep_alive(self, study_id: int, held: Collection[int]) -> set[int]:
        """Record a heartbeat for the trials we hold; return those that are not ours any more."""
        with self._locked(study_id) as session:
            ours = self._owned(session, study_id)
            for trial_id in ours:
                _beat(session, trial_id)
            return set(held) - ours

    def give_back(self, study_id: int, trial_ids: Collection[int]) -> None:
        """Put trials of ours back into the queue, under their numbers."""
        with self._locked(study_id) as session:
            for trial_id in self._owned(session, study_id) & set(trial_ids):
                self._release(session, trial_id)

    def take_over(self, study_id: int) -> list[int]:
        """Put the running trials of dead supervisors back into the queue; return their numbers."""
        taken = []
        with self._locked(study_id) as session:
            now = session.scalar(select(func.current_timestamp()))
            for trial_id, owner in self._owners(session, study_id).items():
                if owner.token == self.owner.token:
                    continue
                heartbeat = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
                age = (_naive(now) - _naive(heartbeat.heartbeat)).total_seconds() if heartbeat else 0.0
                if owner.is_known_dead() or age > GRACE_SECONDS:
                    taken.append(self._release(session, trial_id))
        return taken

    def finish(
        self, study_id: int, trial_id: int, state: TrialState, value: float | None, attrs: dict[str, Any]
    ) -> bool:
        """Set a trial's end, value and user attributes at once; return False if it is not ours any more.

        Doing it again changes nothing, so it can be repeated when the answer was lost.
        """
        with self._locked(study_id) as session:
            trial = session.get(models.TrialModel, trial_id)
            if trial is None or _owner_token(session, trial_id) != self.owner.token:
                return False
            if trial.state == TrialState.RUNNING:
                for key, item in attrs.items():
                    _set(session, models.TrialUserAttributeModel, trial_id, key, item)
                if value is not None:
                    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                    session.add(models.TrialValueModel(trial_id=trial_id, objective=0, value=stored, value_type=kind))
                trial.state = state
                trial.datetime_complete = datetime.now()
            return True

    def _counts(self, session: Session, study_id: int) -> dict[TrialState, int]:
        trials = models.TrialModel
        query = select(trials.state, func.count()).where(trials.study_id == study_id).group_by(trials.state)
        return dict(session.execute(query).all())

    def _owners(self, session: Session, study_id: int) -> dict[int, Owner]:
        """Return the owners of the study's running trials; one run by another tool has none."""
        attrs, trials = models.TrialSystemAttributeModel, models.TrialModel
        rows = session.execute(
            select(trials.trial_id, attrs.value_json)
            .join(attrs, attrs.trial_id == trials.trial_id)
            .where(trials.study_id == study_id, trials.state == TrialState.RUNNING, attrs.key == OWNER)
            .order_by(trials.number)
        ).all()
        return {trial_id: Owner.from_dict(json.loads(text)) for trial_id, text in rows}

    def _owned(self, session: Session, study_id: int) -> set[int]:
        owners = self._owners(session, study_id)
        return {trial_id for trial_id, owner in owners.items() if owner.token == self.owner.token}

    def _release(self, session: Session, trial_id: int) -> int:
        trial = session.get(models.TrialModel, trial_id)
        assert trial is not None
        trial.state = TrialState.WAITING
        attrs = models.TrialSystemAttributeModel
        session.execute(sqlalchemy.delete(attrs).where(attrs.trial_id == trial_id, attrs.key == OWNER))
        return int(trial.number)


def check_url(url: str, *, create: bool) -> sqlalchemy.URL:
    """Return a storage URL, parsed. Raises UsageError if it cannot be one, touching nothing.

    A SQLite file must be a database, and one of Optuna's; unless `create`, it must exist.
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
            f"storage {shown(parsed)}: {backend} is not supported; use SQLite, PostgreSQL or MySQL/MariaDB"
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise _missing_driver(parsed) from error
    if backend == "sqlite":
        _check_sqlite_file(parsed, create=create)
    return parsed


def _check_sqlite_file(parsed: sqlalchemy.URL, *, create: bool) -> None:
    if parsed.database in (None, "", ":memory:"):
        raise UsageError("storage sqlite:// keeps the study in memory, where it is lost: give sqlite:///FILE")
    if "uri" in parsed.query:
        raise UsageError(f"storage {shown(parsed)} is a SQLite URI, which is not supported: give sqlite:///FILE")
    path = Path(str(parsed.database))
    if not path.exists():
        if not create:
            raise UsageError(f"there is no database {path} yet: hpsearch run makes one, --storage names another")
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
        what = "is not a SQLite database" if "not a database" in str(error) else f"cannot be read ({error})"
        raise UsageError(f"the file {path} {what}: change --storage; the file was left as it is") from error
    except OSError as error:
        raise UsageError(f"the database {path} cannot be read ({error.strerror}): change --storage") from error
    # Another supervisor may be creating the tables this very moment.
    known = {*models.BaseModel.metadata.tables, "alembic_version"}
    if not (tables <= known or {"studies", "trials"} <= tables):
        raise UsageError(
            f"{path} is the SQLite database of another program (it has the table {min(tables - known)}): "
            f"change --storage; the file was left as it is"
        )


def shown(url: str | sqlalchemy.URL) -> str:
    """Return a storage URL fit to be seen: without its password."""
    return sqlalchemy.make_url(url).render_as_string(hide_password=True)


def is_outage(error: BaseException) -> bool:
    """Whether an error means the database is out of reach for now, so that the same call may work later."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
            return True
        if isinstance(seen, sqlalchemy.exc.DBAPIError) and seen.connection_invalidated:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def reason(error: BaseException, url: str | sqlalchemy.URL) -> str:
    """Return what the database said, in one line, without the password."""
    while isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    said = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error
    line = " ".join(str(said).split())
    password = sqlalchemy.make_url(url).password
    return line.replace(str(password), "***") if password else line


def _engine_options(parsed: sqlalchemy.URL) -> dict[str, Any]:
    if parsed.get_backend_name() == "sqlite":
        # Short, because the supervisor retries by itself and serves its workers meanwhile.
        return {"connect_args": {"timeout": 5}}
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}


def _begin_immediate(engine: sqlalchemy.Engine) -> None:
    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # The default, FULL, makes a finished trial survive a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()
    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _missing_driver(parsed: sqlalchemy.URL) -> HpsearchError:
    driver, remedy = _DRIVERS.get(parsed.get_backend_name(), (parsed.get_driver_name(), "install it with pip"))
    return UsageError(f"storage {shown(parsed)} needs the driver {parsed.get_driver_name() or driver}: {remedy}")


def _set(session: Session, table: Any, trial_id: int, key: str, value: Any) -> None:
    row = session.scalars(select(table).where(table.trial_id == trial_id, table.key == key)).first()
    if row is None:
        session.add(table(trial_id=trial_id, key=key, value_json=json.dumps(value)))
    else:
        row.value_json = json.dumps(value)


def _beat(session: Session, trial_id: int) -> None:
    row = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
    if row is None:
        session.add(models.TrialHeartbeatModel(trial_id=trial_id))
    else:
        row.heartbeat = session.scalar(select(func.current_timestamp()))


def _owner_token(session: Session, trial_id: int) -> str | None:
    row = models.TrialSystemAttributeModel.find_by_trial_and_key(
        models.TrialModel.find_or_raise_by_id(trial_id, session), OWNER, session
    )
    return json.loads(str(row.value_json))["token"] if row is not None else None


def _canonical(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _naive(moment: Any) -> datetime:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    naive: datetime = moment.replace(tzinfo=None)
    return naive
