"""The database: Optuna's tables and storage, extended so that several supervisors can run one study.

Optuna's storage does not record who runs a trial. `Storage` adds ownership: supervisors claim trials, record
heartbeats for them, give them back, take them over from dead supervisors and finish them, in transactions that also
check the owner and the number of trials. An interrupted trial goes from RUNNING back to WAITING under the same number;
trials are never copied.

Only the owner of a trial can write to it, also through Optuna's own methods: writes of other supervisors raise
TrialLost. A trial that no supervisor has claimed can be written by anyone, as in Optuna.

On SQLite, a transaction that writes takes the write lock at its start (`BEGIN IMMEDIATE`), which makes Optuna's
read-then-write transactions atomic there too; on other databases, transactions lock the row of the study. All times
that are compared are those of the database, in UTC.
"""

import contextlib
import functools
import json
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from hpsearch.errors import HpsearchError, TrialLost, UsageError
from hpsearch.search import postgres, sqlite
from hpsearch.search.database import check_url, is_outage, mask_passwords, missing_driver, reason
from hpsearch.search.owner import Owner, Watch
from hpsearch.search.trial_record import INFEASIBLE

OWNER = "hpsearch:owner"
CLAIM = "hpsearch:claim"
GRID_POINT = "hpsearch:grid_point"
FIXED_PARAMS = "fixed_params"
# How long a call waits for a lock or an answer; less in a supervisor, which retries by itself.
PATIENCE_SECONDS = 30.0
SUPERVISOR_PATIENCE_SECONDS = 3.0

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_UTC_NOW = {
    "sqlite": "CURRENT_TIMESTAMP",
    # now() is the time when the transaction began, which may have waited for a lock since.
    "postgresql": "timezone('utc', clock_timestamp())",
    "mysql": "utc_timestamp()",
    "mariadb": "utc_timestamp()",
}


class Claim(NamedTuple):
    """A claimed trial. `number` is larger than that of all earlier claims of the trial."""

    trial_id: int
    number: int


class Storage(RDBStorage):
    """Optuna's `RDBStorage` with ownership of trials, used by the supervisor `owner`.

    A call that waits for longer than `patience` seconds for a lock or an answer fails as in an outage (`is_outage`).
    """

    def __init__(self, url: str, owner: Owner, *, create: bool = True, exclusive: bool = True) -> None:
        """Connect to `url`, and with `create` also create missing tables. Raises UsageError if that fails.

        `exclusive` is needed to write; without it, a reader never waits for a lock.
        """
        self.owner = owner
        self._url, self._exclusive = url, exclusive
        self.patience = PATIENCE_SECONDS
        self._watch = Watch(gap=2 * owner.heartbeat)
        self._thread = threading.local()
        parsed = check_url(url, create=create)
        # Optuna calls `str.format` on the URL, so braces must be escaped.
        formattable = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        options = {
            "engine_kwargs": _engine_options(parsed, weakref.proxy(self)),
            "skip_compatibility_check": True,
            "skip_table_creation": not create,
        }
        try:
            self._open(parsed, formattable, options)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise
        if parsed.get_backend_name() == "sqlite" and exclusive:
            sqlite.begin_immediate(self, Path(str(parsed.database)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections and callbacks of the engine cannot be pickled; they are created again.
        return _restore, (self._url, self.owner, self._exclusive, self.patience)

    def _open(self, parsed: sqlalchemy.URL, url: str, options: dict[str, Any]) -> None:
        try:
            self._connect(url, options)
            # Storages are never closed explicitly; open SQLite connections raise a ResourceWarning from Python 3.13 on.
            weakref.finalize(self, self.engine.dispose)
            self._version_manager.check_table_schema_compatibility()
        except ImportError as error:
            raise missing_driver(parsed) from error
        except RuntimeError as error:
            if "upgrade" not in str(error):
                raise
            raise UsageError(
                f"{mask_passwords(parsed)} was made by another version of Optuna: upgrade it with "
                f"optuna storage upgrade --storage {mask_passwords(parsed)}, then run again"
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if (parsed.get_backend_name() == "sqlite" or not is_outage(error)) and self._is_empty():
                raise UsageError(
                    f"{mask_passwords(parsed)} holds no studies yet: start one with hpsearch run"
                ) from error
            raise UsageError(f"cannot use the database {mask_passwords(parsed)}: {reason(error, parsed)}") from error

    def _is_empty(self) -> bool:
        """Whether the database is available and contains none of Optuna's tables."""
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            return not sqlalchemy.inspect(self.engine).has_table(models.StudyModel.__tablename__)
        return False

    def serve(self, outage: float) -> None:
        """Configure the storage for a supervisor that continues for `outage` seconds without the database."""
        self.owner = replace(self.owner, outage=outage)
        self._watch = Watch(gap=2 * self.owner.heartbeat)
        self.patience = SUPERVISOR_PATIENCE_SECONDS
        # The time limits are set when a connection is opened.
        self.engine.dispose()

    def _connect(self, url: str, options: dict[str, Any], attempts: int = 5) -> None:
        """Connect and create the tables; retry if that fails because another process creates them at the same time."""
        for attempt in range(1, attempts + 1):
            try:
                return RDBStorage.__init__(self, url, **options)
            except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                self.engine.dispose()
                message = f"{error} {error.__cause__}"
                if attempt == attempts or not any(word in message for word in ("already exists", "UNIQUE", "uplicate")):
                    raise
                time.sleep(0.2 * attempt)
        return None

    @contextlib.contextmanager
    def _locked(self, study_id: int) -> Iterator[Session]:
        """Begin a transaction that excludes all other transactions of this kind on the study."""
        with Session(self.engine) as session, session.begin():
            query = select(models.StudyModel.study_id).where(models.StudyModel.study_id == study_id)
            if session.scalar(query.with_for_update()) is None:
                raise HpsearchError("the study was deleted from the database during the run; its files are kept")
            self._thread.session = session
            try:
                yield session
            finally:
                self._thread.session = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Begin the transactions of this thread without SQLite's write lock."""
        before, self._thread.reads = self.reads, True
        try:
            yield
        finally:
            self._thread.reads = before

    @property
    def reads(self) -> bool:
        """Whether the transaction that this thread begins now only reads."""
        return getattr(self._thread, "reads", False)

    @contextlib.contextmanager
    def _read(self) -> Iterator[Session]:
        with self._reading(), Session(self.engine) as session, session.begin():
            yield session

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """Check that a trial may be written to; Optuna calls this in every transaction that writes to a trial.

        Raises TrialLost for a claimed trial that is not ours, and `UpdateFinishedTrialError` for one that has ended.
        """
        # The session of the calling transaction: ours (`_locked`) or Optuna's.
        session = getattr(self._thread, "session", None) or self.scoped_session()
        if _attr(session, trial_id, CLAIM) is not None:
            lock = select(models.StudyModel.study_id).join(
                models.TrialModel, models.TrialModel.study_id == models.StudyModel.study_id
            )
            session.execute(lock.where(models.TrialModel.trial_id == trial_id).with_for_update(of=models.StudyModel))
            if not self._is_ours(session, trial_id):
                raise _lost(trial_id)
        super().check_trial_is_updatable(trial_id, trial_state)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state, as Optuna does; if several callers start a waiting trial, only one gets True."""
        if state != TrialState.RUNNING:
            return super().set_trial_state_values(trial_id, state, values)
        trials = models.TrialModel
        with Session(self.engine) as session, session.begin():
            waiting = sqlalchemy.update(trials).where(trials.trial_id == trial_id, trials.state == TrialState.WAITING)
            # The result of an UPDATE has a row count, although its declared type does not.
            result: Any = session.execute(
                waiting.values(state=TrialState.RUNNING, datetime_start=datetime.now()),
                execution_options={"synchronize_session": False},
            )
            if result.rowcount:
                return True
            current: Any = trials.find_or_raise_by_id(trial_id, session).state
        super().check_trial_is_updatable(trial_id, current)
        return False

    def set_attrs_once(self, study_id: int, attrs: dict[str, Any]) -> dict[str, Any]:
        """Set user attributes of the study, unless it already has any of them; return all its user attributes."""
        with self._locked(study_id) as session:
            rows = session.scalars(
                select(models.StudyUserAttributeModel).where(models.StudyUserAttributeModel.study_id == study_id)
            ).all()
            stored: dict[str, Any] = {str(row.key): json.loads(str(row.value_json)) for row in rows}
            if not any(key in stored for key in attrs):
                for key, value in attrs.items():
                    session.add(
                        models.StudyUserAttributeModel(study_id=study_id, key=key, value_json=json.dumps(value))
                    )
                stored |= attrs
            return stored

    def separate_copy(self, study_id: int, key: str, value: Any) -> bool:
        """Make a copy of a study independent of the original; return whether the study is a copy.

        Optuna's `copy_study` copies the claim of a trial, but not the heartbeat that is recorded with it. The claims of
        such trials are removed, running ones go into the queue, and the study's user attribute `key` is set to `value`.
        """
        trials, attrs, beats = models.TrialModel, models.TrialSystemAttributeModel, models.TrialHeartbeatModel
        claimed = select(attrs).where(attrs.trial_id == trials.trial_id, attrs.key.in_((OWNER, CLAIM))).exists()
        beaten = select(beats).where(beats.trial_id == trials.trial_id).exists()
        with self._locked(study_id) as session:
            copied = session.scalars(select(trials).where(trials.study_id == study_id, claimed, ~beaten)).all()
            for trial in copied:
                if trial.state == TrialState.RUNNING:
                    trial.state = TrialState.WAITING
                session.execute(
                    sqlalchemy.delete(attrs).where(attrs.trial_id == trial.trial_id, attrs.key.in_((OWNER, CLAIM)))
                )
            if copied:
                table = models.StudyUserAttributeModel
                for row in session.scalars(select(table).where(table.study_id == study_id, table.key == key)):
                    row.value_json = json.dumps(value)
            return bool(copied)

    def append_once(self, study_id: int, key: str, value: Any) -> None:
        """Append `value` to the list in a user attribute of the study, unless the list contains it."""
        table = models.StudyUserAttributeModel
        with self._locked(study_id) as session:
            row = session.scalars(select(table).where(table.study_id == study_id, table.key == key)).first()
            values = [] if row is None else json.loads(str(row.value_json))
            if value in values:
                return
            text = json.dumps([*values, value])
            if row is None:
                session.add(table(study_id=study_id, key=key, value_json=text))
            else:
                row.value_json = text

    def claim(
        self, study_id: int, limit: int, held: Collection[int], grid: Sequence[dict[str, Any]] | None = None
    ) -> Claim | None:
        """Claim a trial and set it to RUNNING, or return None if `limit` trials are finished or running.

        The order is: a trial of ours that is not in `held`, because its claim was interrupted; the first waiting trial;
        a new trial. With a `grid`, a new trial gets the first point that is not assigned yet; if there is none,
        None is returned.
        """
        with self._locked(study_id) as session:
            trials = models.TrialModel
            for trial_id in self._owned(session, study_id):
                if trial_id not in held:
                    return self._claim(session, trial_id)
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
            return self._claim(session, int(trial.trial_id))

    def _claim(self, session: Session, trial_id: int) -> Claim:
        now = _utc_now(session)
        # At least the time: in a database restored from a backup, a mere count would be less than the numbers in the
        # trials' folders.
        number = max((_attr(session, trial_id, CLAIM) or 0) + 1, int((now - datetime(1970, 1, 1)).total_seconds()))
        for key, value in ((OWNER, self.owner.as_dict()), (CLAIM, number)):
            _set(session, models.TrialSystemAttributeModel, trial_id, key, value)
        heartbeat = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
        if heartbeat is None:
            session.add(models.TrialHeartbeatModel(trial_id=trial_id, heartbeat=now))
        else:
            heartbeat.heartbeat = now
        return Claim(trial_id, number)

    def _untried(self, session: Session, study_id: int, grid: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the first point that has not been assigned to a trial as a grid point, or None."""
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
        """Return the number of trials in each state."""
        with self._read() as session:
            return self._counts(session, study_id)

    def infeasible(self, study_id: int) -> int:
        """Return the number of trials that did not meet the requirements; `counts` has them among the failed ones."""
        trials, attrs = models.TrialModel, models.TrialUserAttributeModel
        query = (
            select(func.count())
            .select_from(trials)
            .join(attrs, and_(attrs.trial_id == trials.trial_id, attrs.key == "reason"))
            .where(trials.study_id == study_id, trials.state == TrialState.FAIL)
            .where(attrs.value_json == json.dumps(INFEASIBLE))
        )
        with self._read() as session:
            return session.scalar(query) or 0

    def others_running(self, study_id: int) -> int:
        """Return the number of running trials that belong to other supervisors."""
        with self._read() as session:
            owners = self._owners(session, study_id).values()
            return sum(owner.token != self.owner.token for owner in owners)

    def set_attr(self, study_id: int, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a running trial; do nothing if it is not ours any more."""
        with self._locked(study_id) as session:
            if trial_id in self._owned(session, study_id):
                _set(session, models.TrialUserAttributeModel, trial_id, key, value)

    def report(self, study_id: int, trial_id: int, step: int, value: float) -> bool:
        """Store the report of a running trial; return False if it is not ours any more. Can be repeated."""
        with self._locked(study_id) as session:
            if trial_id not in self._owned(session, study_id):
                return False
            self._set_trial_intermediate_value_without_commit(session, trial_id, step, value)
            return True

    def owned(self, study_id: int) -> set[int]:
        """Return the ids of our running trials."""
        with self._read() as session:
            return self._owned(session, study_id)

    def beat(self, study_id: int) -> None:
        """Record a heartbeat for our running trials, and observe those of other supervisors."""
        beats, trials = models.TrialHeartbeatModel, models.TrialModel
        with self._locked(study_id) as session:
            ours = self._owned(session, study_id)
            update = sqlalchemy.update(beats).where(beats.trial_id.in_(ours)).values(heartbeat=_utc_now(session))
            session.execute(update, execution_options={"synchronize_session": False})
            running = (
                select(beats.trial_id, beats.heartbeat)
                .join(trials, trials.trial_id == beats.trial_id)
                .where(trials.study_id == study_id, trials.state == TrialState.RUNNING)
            )
            heartbeats: dict[int, object] = dict(session.execute(running).all())
        self._watch.observe({trial_id: at for trial_id, at in heartbeats.items() if trial_id not in ours})

    def give_back(self, study_id: int, trial_ids: Collection[int]) -> None:
        """Put trials of ours back into the queue, under the same numbers."""
        with self._locked(study_id) as session:
            for trial_id in self._owned(session, study_id) & set(trial_ids):
                self._release(session, trial_id)

    def take_over(self, study_id: int) -> list[int]:
        """Put the running trials of dead supervisors back into the queue; return their numbers.

        A supervisor is dead if its process has ended, or if its heartbeat is older than its `grace` and, as observed by
        `beat`, has not changed for the time of two heartbeats. After an outage, or a suspension of this process, the
        other supervisors thus have time to record a heartbeat first.
        """
        taken = []
        with self._locked(study_id) as session:
            now = _utc_now(session)
            for trial_id, owner in self._owners(session, study_id).items():
                if owner.token != self.owner.token and (
                    owner.is_known_dead() or self._is_silent(session, trial_id, owner, now)
                ):
                    taken.append(self._release(session, trial_id))
        return taken

    def _is_silent(self, session: Session, trial_id: int, owner: Owner, now: datetime) -> bool:
        heartbeat = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
        if heartbeat is None or self._watch.unchanged_seconds(trial_id) < 2 * owner.heartbeat:
            return False
        return (now - _naive(heartbeat.heartbeat)).total_seconds() > owner.grace

    def finish(
        self, study_id: int, trial_id: int, state: TrialState, value: float | None, attrs: dict[str, Any]
    ) -> bool:
        """Set the state, value and user attributes of a trial that ended; return False if it is not ours any more.

        A repeated call changes nothing, so the call can be retried if the answer of the database was lost.
        """
        with self._locked(study_id) as session:
            trial = session.get(models.TrialModel, trial_id)
            if trial is None or not self._is_ours(session, trial_id):
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
        """Return the owners of the running trials, by trial id; trials run by another tool are left out."""
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

    def _is_ours(self, session: Session, trial_id: int) -> bool:
        """Whether a trial, running or ended, is ours."""
        owner = _attr(session, trial_id, OWNER)
        return owner is not None and owner["token"] == self.owner.token

    def _release(self, session: Session, trial_id: int) -> int:
        trial = session.get(models.TrialModel, trial_id)
        assert trial is not None
        trial.state = TrialState.WAITING
        attrs = models.TrialSystemAttributeModel
        session.execute(sqlalchemy.delete(attrs).where(attrs.trial_id == trial_id, attrs.key == OWNER))
        return int(trial.number)


def _restore(url: str, owner: Owner, exclusive: bool, patience: float) -> Storage:
    """Restore a pickled storage."""
    storage = Storage(url, owner, create=False, exclusive=exclusive)
    storage.patience = patience
    return storage


def _only_reads(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def read(self: Storage, *arguments: Any, **options: Any) -> Any:
        with self._reading():
            return method(self, *arguments, **options)

    return read


for _name in (
    "get_all_studies",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_param",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_best_trial",
    "_get_trials",
):
    setattr(Storage, _name, _only_reads(getattr(RDBStorage, _name)))


def _engine_options(parsed: sqlalchemy.URL, storage: Storage) -> dict[str, Any]:
    if parsed.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 5}}
    if parsed.get_driver_name() == "psycopg":
        return {"pool_pre_ping": True, "creator": functools.partial(postgres.connect, parsed, storage)}
    limits = {"connect_timeout": 5}
    if parsed.get_driver_name() == "pymysql":
        limits |= {"read_timeout": 10, "write_timeout": 10}
    return {"pool_pre_ping": True, "connect_args": limits}


def _set(session: Session, table: Any, trial_id: int, key: str, value: Any) -> None:
    row = session.scalars(select(table).where(table.trial_id == trial_id, table.key == key)).first()
    if row is None:
        session.add(table(trial_id=trial_id, key=key, value_json=json.dumps(value)))
    else:
        row.value_json = json.dumps(value)


def _attr(session: Session, trial_id: int, key: str) -> Any:
    """Return a system attribute of a trial, or None."""
    table = models.TrialSystemAttributeModel
    text = session.scalar(select(table.value_json).where(table.trial_id == trial_id, table.key == key))
    return None if text is None else json.loads(str(text))


def _lost(trial_id: int) -> TrialLost:
    return TrialLost("the trial belongs to another supervisor", trial_id)


def _utc_now(session: Session) -> datetime:
    """Return the time of the database, in UTC."""
    return _naive(session.scalar(sqlalchemy.text(f"SELECT {_UTC_NOW[session.get_bind().dialect.name]}")))


def _canonical(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _naive(moment: Any) -> datetime:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    naive: datetime = moment.replace(tzinfo=None)
    return naive
