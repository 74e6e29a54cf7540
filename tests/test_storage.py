"""Ownership, budget and queue in the database, on SQLite and on a real PostgreSQL."""

import gc
import multiprocessing
import pickle
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import sqlalchemy.orm
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from hpsearch.errors import HpsearchError, TrialLost, UsageError
from hpsearch.search.database import check_url, is_outage, mask_passwords, reason
from hpsearch.search.overview import last_failed, overviews, unmet_requirements
from hpsearch.search.owner import Owner
from hpsearch.search.storage import Storage


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server."""
    pgserver = pytest.importorskip("pgserver", reason="pip install pgserver brings a PostgreSQL")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server: str = request.getfixturevalue("postgres")
    name = f"test{time.monotonic_ns()}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return str(sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False))


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    made = Storage(url, Owner.this_process())
    yield made
    made.engine.dispose()


@pytest.fixture
def study_id(storage: Storage) -> int:
    return storage.create_new_study([StudyDirection.MAXIMIZE], "s")


def beside(url: str, **changes: object) -> Storage:
    """Another supervisor's storage object on the same database."""
    owner = Owner.from_dict({**Owner.this_process().as_dict(), **changes})
    return Storage(url, owner)


def claim(storage: Storage, *arguments: Any) -> int | None:
    """Claim a trial and return its id."""
    claimed = storage.claim(*arguments)
    return None if claimed is None else claimed.trial_id


def finish(storage: Storage, study_id: int, trial_id: int, state: TrialState = TrialState.COMPLETE) -> bool:
    return storage.finish(
        study_id, trial_id, state, 0.5 if state == TrialState.COMPLETE else None, {"reason": "budget"}
    )


def test_claims_stop_at_the_limit_and_failures_do_not_count(storage: Storage, study_id: int) -> None:
    held: list[int] = []
    for _ in range(3):
        trial_id = claim(storage, study_id, 3, held)
        assert trial_id is not None
        held.append(trial_id)
    assert claim(storage, study_id, 3, held) is None
    assert finish(storage, study_id, held.pop(), TrialState.FAIL)
    replacement = claim(storage, study_id, 3, held)
    assert replacement is not None
    held.append(replacement)
    for trial_id in held:
        assert finish(storage, study_id, trial_id, TrialState.PRUNED)
    assert claim(storage, study_id, 3, []) is None
    assert storage.counts(study_id) == {TrialState.FAIL: 1, TrialState.PRUNED: 3}
    numbers = [trial.number for trial in storage.get_all_trials(study_id)]
    assert numbers == [0, 1, 2, 3]


def test_infeasible_trials_are_counted_apart_and_do_not_count(storage: Storage, study_id: int) -> None:
    for number, why in enumerate(("infeasible", "failed", "infeasible", "budget")):
        trial_id = claim(storage, study_id, 1, [])
        assert trial_id is not None
        state = TrialState.COMPLETE if why == "budget" else TrialState.FAIL
        attrs = {"reason": why, "error": "requires it" if why == "infeasible" else None}
        assert storage.finish(study_id, trial_id, state, 0.5 if why == "budget" else None, attrs)
        assert storage.infeasible(study_id) == (number + 2) // 2 if number < 3 else 2
    assert claim(storage, study_id, 1, []) is None
    assert overviews(storage)[0].infeasible == 2
    assert unmet_requirements(storage, study_id) == {"it": 2}
    assert [trial.number for trial in last_failed(storage, study_id, 9)] == [1]


def test_a_claim_cut_off_is_claimed_again_not_doubled(storage: Storage, study_id: int) -> None:
    first = claim(storage, study_id, 9, [])
    # The answer was lost: the supervisor does not know that it holds the trial.
    assert claim(storage, study_id, 9, []) == first
    assert storage.counts(study_id) == {TrialState.RUNNING: 1}


def test_a_trial_given_back_keeps_its_number_and_comes_first(storage: Storage, study_id: int) -> None:
    one = claim(storage, study_id, 9, [])
    assert one is not None
    two = claim(storage, study_id, 9, [one])
    assert two is not None
    storage.set_trial_intermediate_value(two, 1, 0.25)
    storage.give_back(study_id, [two])
    assert storage.get_trial(two).state == TrialState.WAITING
    assert claim(storage, study_id, 9, [one]) == two
    trial = storage.get_trial(two)
    assert (trial.number, trial.intermediate_values) == (1, {1: 0.25})


def test_finishing_twice_changes_nothing_and_a_lost_trial_is_not_finished(
    url: str, storage: Storage, study_id: int
) -> None:
    trial_id = claim(storage, study_id, 9, [])
    assert trial_id is not None
    other = beside(url)
    assert not finish(other, study_id, trial_id)
    assert finish(storage, study_id, trial_id)
    before = storage.get_trial(trial_id)
    assert storage.finish(study_id, trial_id, TrialState.COMPLETE, 0.9, {"reason": "again"})
    assert storage.get_trial(trial_id) == before
    assert (before.value, before.user_attrs) == (0.5, {"reason": "budget"})
    other.engine.dispose()


def test_a_known_dead_owners_trials_are_taken_over_at_once(url: str, storage: Storage, study_id: int) -> None:
    dead = beside(url, started=1.0)
    assert claim(dead, study_id, 9, []) is not None
    assert storage.take_over(study_id) == [0]
    assert storage.counts(study_id) == {TrialState.WAITING: 1}
    dead.engine.dispose()


def make_old(storage: Storage, seconds: float) -> None:
    """Let every heartbeat be so many seconds older."""
    with storage.engine.begin() as connection:
        shift = {
            "sqlite": f"datetime(heartbeat, '-{seconds:.0f} seconds')",
            "postgresql": f"heartbeat - interval '{seconds:.0f} seconds'",
        }[connection.dialect.name]
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {shift}")


def watch(storage: Storage, study_id: int, seconds: float) -> None:
    """Beat for so long, as a supervisor does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        storage.beat(study_id)
        time.sleep(0.2)
    storage.beat(study_id)


def test_an_owner_elsewhere_is_trusted_while_its_heart_beats(url: str, storage: Storage, study_id: int) -> None:
    storage.serve(outage=0.0)
    away = beside(url, host="elsewhere", outage=0.0)
    trial_id = claim(away, study_id, 9, [])
    assert trial_id is not None
    assert storage.take_over(study_id) == []
    assert storage.others_running(study_id) == 1
    make_old(storage, away.owner.grace + 5)
    # Old, but not yet seen to stand still: the owner may have been as cut off as we were.
    assert storage.take_over(study_id) == []
    watch(storage, study_id, 1.0)
    away.beat(study_id)
    assert storage.take_over(study_id) == []
    make_old(storage, away.owner.grace + 5)
    watch(storage, study_id, 2.2)
    assert storage.take_over(study_id) == [0]
    before = away.claim(study_id, 9, [])
    away.give_back(study_id, [trial_id])
    ours = storage.claim(study_id, 9, [])
    assert before is not None
    assert ours is not None
    assert ours.trial_id == before.trial_id == trial_id
    assert ours.number > before.number
    # It wakes up and learns that the trial is not its own any more.
    assert away.owned(study_id) == set()
    assert not finish(away, study_id, trial_id)
    away.engine.dispose()


def test_a_silence_within_its_owners_grace_is_waited_out(url: str, storage: Storage, study_id: int) -> None:
    storage.serve(outage=0.0)
    patient = beside(url, host="elsewhere", outage=600.0)
    assert patient.claim(study_id, 9, []) is not None
    make_old(storage, 599)
    watch(storage, study_id, 2.2)
    assert storage.take_over(study_id) == []
    patient.engine.dispose()


def test_looks_with_a_gap_between_them_do_not_count(url: str, storage: Storage, study_id: int) -> None:
    storage.serve(outage=0.0)
    away = beside(url, host="elsewhere", outage=0.0)
    assert away.claim(study_id, 9, []) is not None
    make_old(storage, 60)
    storage.beat(study_id)
    # We ourselves were frozen, or the database away: the others have to be given the time to beat.
    time.sleep(2.5)
    storage.beat(study_id)
    assert storage.take_over(study_id) == []
    away.engine.dispose()


def test_nothing_is_written_to_a_trial_of_another_supervisor(url: str, storage: Storage, study_id: int) -> None:
    frozen = beside(url)
    trial_id = claim(frozen, study_id, 9, [])
    assert trial_id is not None
    lost = optuna.Trial(optuna.load_study(study_name="s", storage=frozen), trial_id)
    assert frozen.report(study_id, trial_id, 1, 0.1)
    frozen.give_back(study_id, [trial_id])

    def try_everything() -> None:
        assert not frozen.report(study_id, trial_id, 2, 0.2)
        assert not finish(frozen, study_id, trial_id)
        frozen.set_attr(study_id, trial_id, "retries", 1)
        frozen.give_back(study_id, [trial_id])
        frozen.beat(study_id)
        for write in (
            lambda: lost.suggest_float("x", 0, 1),
            lambda: frozen.set_trial_intermediate_value(trial_id, 2, 0.2),
            lambda: frozen.set_trial_system_attr(trial_id, "completed_rung_0", 0.2),
            lambda: frozen.set_trial_user_attr(trial_id, "note", "mine"),
            lambda: frozen.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.2]),
        ):
            with pytest.raises(TrialLost):
                write()

    def all_of_it() -> list[Any]:
        with storage.engine.begin() as connection:
            tables = ("trials", "trial_params", "trial_intermediate_values", "trial_values", "trial_heartbeats")
            attrs = ("trial_user_attributes", "trial_system_attributes")
            return [
                connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").all() for table in (*tables, *attrs)
            ]

    # Waiting, running elsewhere, and ended there.
    for step in (lambda: None, lambda: storage.claim(study_id, 9, []), lambda: finish(storage, study_id, trial_id)):
        step()
        before = all_of_it()
        try_everything()
        assert all_of_it() == before
    frozen.engine.dispose()


def test_every_claim_of_a_trial_has_a_larger_number(url: str, storage: Storage, study_id: int) -> None:
    other = beside(url)
    numbers = []
    for supervisor in (storage, other, other, storage):
        claimed = supervisor.claim(study_id, 9, [])
        assert claimed is not None
        numbers.append(claimed.number)
        # One whose answer was lost.
        again = supervisor.claim(study_id, 9, [])
        assert again is not None
        numbers.append(again.number)
        supervisor.give_back(study_id, [claimed.trial_id])
    assert len(storage.get_all_trials(study_id)) == 1
    assert numbers == sorted(set(numbers))
    other.engine.dispose()


def test_reports_can_be_repeated(storage: Storage, study_id: int) -> None:
    trial_id = claim(storage, study_id, 9, [])
    assert trial_id is not None
    for _ in range(2):
        assert storage.report(study_id, trial_id, 1, 0.25)
    assert storage.report(study_id, trial_id, 2, float("nan"))
    assert storage.get_trial(trial_id).intermediate_values[1] == 0.25


def test_a_session_in_another_time_zone_takes_nobody_for_dead(url: str, storage: Storage, study_id: int) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no time zones")
    elsewhere = beside(url, host="elsewhere", outage=9.0)

    @sqlalchemy.event.listens_for(elsewhere.engine, "connect")
    def set_zone(connection: Any, record: Any) -> None:
        connection.execute("SET TIME ZONE 'Asia/Tokyo'")
        connection.commit()

    elsewhere.engine.dispose()
    storage.serve(outage=9.0)
    first, second = claim(storage, study_id, 9, []), claim(elsewhere, study_id, 9, [])
    assert first != second
    for here, there in ((storage, elsewhere), (elsewhere, storage)):
        ages = []
        with sqlalchemy.orm.Session(here.engine) as session:
            for at in session.scalars(sqlalchemy.text("SELECT heartbeat FROM trial_heartbeats")).all():
                utc = session.scalar(sqlalchemy.text("SELECT timezone('utc', clock_timestamp())"))
                ages.append((utc - at).total_seconds())
        assert max(map(abs, ages)) < 60
        there.beat(study_id)
    elsewhere.engine.dispose()


def test_trials_of_other_tools_are_left_alone(storage: Storage, study_id: int) -> None:
    study = optuna.load_study(study_name="s", storage=storage)
    foreign = study.ask()
    assert storage.take_over(study_id) == []
    assert storage.others_running(study_id) == 0
    assert claim(storage, study_id, 1, []) is not None
    assert storage.get_trial(foreign._trial_id).state == TrialState.RUNNING


def test_racing_supervisors_share_the_budget_and_the_grid(url: str, storage: Storage, study_id: int) -> None:
    grid = [{"x": point} for point in range(25)]
    others = [beside(url, token=str(i)) for i in range(4)]

    def race(mine: Storage) -> list[int]:
        taken: list[int] = []
        while (trial_id := claim(mine, study_id, 20, taken, grid)) is not None:
            taken.append(trial_id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [trial_id for ids in pool.map(race, others) for trial_id in ids]
    assert len(taken) == len(set(taken)) == 20
    trials = storage.get_all_trials(study_id)
    assert [trial.number for trial in trials] == list(range(20))
    points = [trial.system_attrs["fixed_params"]["x"] for trial in trials]
    assert points == list(range(20))
    for other in others:
        other.engine.dispose()


def test_a_grid_that_has_changed_hands_out_what_is_new(storage: Storage, study_id: int) -> None:
    held: list[int] = []

    def points(grid: list[dict[str, float]]) -> list[float]:
        count = len(held)
        while (trial_id := claim(storage, study_id, 99, held, grid)) is not None:
            held.append(trial_id)
        return [storage.get_trial(trial_id).system_attrs["fixed_params"]["x"] for trial_id in held[count:]]

    assert points([{"x": 0.1, "y": 1}, {"x": 0.2, "y": 1}]) == [0.1, 0.2]
    # Shorter than what was tried; as a study for enqueued trials only has it; with a point in between.
    assert points([{"x": 0.2, "y": 1}]) == []
    assert points([]) == []
    assert points([{"x": 0.1, "y": 1}, {"y": 1, "x": 0.15}, {"x": 0.2, "y": 1}]) == [0.15]


def test_waiting_trials_are_popped_once(url: str, storage: Storage, study_id: int) -> None:
    study = optuna.load_study(study_name="s", storage=storage)
    for _ in range(20):
        study.enqueue_trial({})
    others = [beside(url, token=str(i)) for i in range(4)]

    def race(mine: Storage) -> list[int]:
        taken: list[int] = []
        while (trial_id := claim(mine, study_id, 20, taken)) is not None:
            taken.append(trial_id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [trial_id for ids in pool.map(race, others) for trial_id in ids]
    assert sorted(taken) == sorted(trial._trial_id for trial in study.get_trials())
    for other in others:
        other.engine.dispose()


def test_the_first_description_holds(url: str, storage: Storage, study_id: int) -> None:
    other = beside(url)
    assert storage.set_attrs_once(study_id, {"uid": "a"}) == {"uid": "a"}
    assert other.set_attrs_once(study_id, {"uid": "b"}) == {"uid": "a"}
    other.engine.dispose()


def test_many_processes_may_create_the_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda i: beside(url, token=str(i)), range(6)))
    assert len({storage.get_current_version() for storage in made}) == 1
    for storage in made:
        storage.engine.dispose()


@pytest.mark.parametrize("password", ["S3cret", "p{}w", "a:b/c", "per%cent"])
def test_a_password_is_never_shown(password: str) -> None:
    url = sqlalchemy.URL.create("postgresql", "me", password, "127.0.0.1", 9, "x")
    text = url.render_as_string(hide_password=False)
    assert password not in mask_passwords(text)
    with pytest.raises(UsageError) as raised:
        Storage(text, Owner.this_process())
    assert password not in str(raised.value)
    assert "***" in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@127.0.0.1:9/x?password=S3cret",
        "postgresql://me:S3cret@127.0.0.1:9/x?password=S3cret&sslpassword=0ther",
        "postgresql://me@127.0.0.1:9/x?sslpassword=0ther&connect_timeout=2",
    ],
)
def test_a_password_in_the_query_is_never_shown(url: str) -> None:
    assert "S3cret" not in mask_passwords(url)
    assert "0ther" not in mask_passwords(url)
    assert "password=***" in mask_passwords(url)
    assert mask_passwords("postgresql://me@h/x?passfile=/a/b") == "postgresql://me@h/x?passfile=%2Fa%2Fb"
    with pytest.raises(UsageError) as raised:
        Storage(url, Owner.this_process())
    assert "S3cret" not in str(raised.value)
    assert "0ther" not in str(raised.value)
    assert reason(ValueError("no S3cret for 0ther"), url).count("S3cret") == ("S3cret" not in url)


@pytest.mark.parametrize(
    ("url", "package"), [("postgresql+pg8000://u:S3cret@h/d", "pg8000"), ("mysql+mysqldb://u:S3cret@h/d", "mysqldb")]
)
def test_a_missing_driver_is_named_with_the_remedy(url: str, package: str) -> None:
    with pytest.raises(UsageError, match=rf"{package}: pip install 'hpsearch") as raised:
        check_url(url, create=True)
    assert "S3cret" not in str(raised.value)


def test_mysql_means_the_driver_that_the_extra_brings() -> None:
    assert check_url("mysql://u@h/d", create=True).drivername == "mysql+pymysql"


def test_outages_are_told_from_mistakes(storage: Storage, url: str) -> None:
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as mistake, storage.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO studies (study_id, study_id) VALUES (1, 1)")
    if not url.startswith("sqlite"):
        assert not is_outage(mistake.value)
    engine = sqlalchemy.create_engine("postgresql+psycopg://u@127.0.0.1:9/d")
    with pytest.raises(sqlalchemy.exc.OperationalError) as outage:
        engine.connect()
    assert is_outage(outage.value)
    with pytest.raises(optuna.exceptions.StorageInternalError) as wrapped:
        raise optuna.exceptions.StorageInternalError("wrapped") from outage.value
    assert is_outage(wrapped.value)
    assert not is_outage(ValueError())


def test_a_database_without_tables_holds_no_studies(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    with pytest.raises(UsageError, match=r"holds no studies yet: start one with hpsearch run"):
        Storage(url, Owner.this_process(), create=False, exclusive=False)


def test_readers_wait_for_no_writer(storage: Storage, study_id: int, url: str) -> None:
    trial_id = claim(storage, study_id, 9, [])
    assert trial_id is not None
    reader = beside(url)
    reader.serve(outage=0.0)
    with storage._locked(study_id):
        began = time.monotonic()
        assert reader.get_trial(trial_id).number == 0
        assert len(reader.get_all_trials(study_id)) == 1
        assert reader.counts(study_id) == {TrialState.RUNNING: 1}
        assert reader.others_running(study_id) == 1
        assert [study.study_name for study in reader.get_all_studies()] == ["s"]
        assert time.monotonic() - began < 2
        # A writer does, but not for ever.
        with pytest.raises((sqlalchemy.exc.OperationalError, optuna.exceptions.StorageInternalError)) as raised:
            reader.beat(study_id)
        assert is_outage(raised.value)
        assert 2 < time.monotonic() - began < 10
    reader.beat(study_id)
    reader.engine.dispose()


def test_a_removed_or_replaced_sqlite_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    storage = Storage(f"sqlite:///{path}", Owner.this_process())
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    path.rename(tmp_path / "aside.db")
    for content in (None, b""):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(HpsearchError, match=r"test.db was removed or replaced"):
            storage.claim(study_id, 9, [])
    (tmp_path / "aside.db").replace(path)
    assert storage.claim(study_id, 9, []) is not None
    storage.engine.dispose()


def test_a_deleted_study_is_noticed(storage: Storage, study_id: int) -> None:
    storage.delete_study(study_id)
    with pytest.raises(HpsearchError, match="deleted"):
        storage.claim(study_id, 9, [])


def test_of_several_who_pop_a_waiting_trial_one_gets_it(url: str, storage: Storage, study_id: int) -> None:
    study = optuna.load_study(study_name="s", storage=storage)
    study.enqueue_trial({})
    trial_id = study.get_trials()[0]._trial_id
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    assert not storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    with pytest.raises(KeyError):
        storage.set_trial_state_values(99, TrialState.RUNNING)


def _optimize(url: str, trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="s", storage=Storage(url, Owner.this_process()))

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for step in range(3):
            trial.report(x, step)
            trial.should_prune()
        return x

    study.optimize(objective, n_trials=trials)


def test_eight_processes_of_study_optimize_share_a_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    storage = Storage(url, Owner.this_process())
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    context = multiprocessing.get_context("spawn")
    started: list[Any] = [context.Process(target=_optimize, args=(url, 6)) for _ in range(8)]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
    assert [process.exitcode for process in started] == [0] * 8
    assert storage.counts(study_id) == {TrialState.COMPLETE: 48}
    storage.engine.dispose()


def test_a_storage_out_of_use_has_closed_its_connections(url: str) -> None:
    made = Storage(url, Owner.this_process())
    closed: list[object] = []
    sqlalchemy.event.listen(made.engine, "close", lambda connection, record: closed.append(connection))
    made.get_all_studies()
    assert not closed
    del made
    gc.collect()
    assert closed


def test_a_pickled_storage_is_the_same_in_all_it_does(tmp_path: Path) -> None:
    made = Storage(f"sqlite:///{tmp_path}/test.db", Owner.this_process())
    made.serve(outage=7.0)
    restored = pickle.loads(pickle.dumps(made))
    assert (restored.owner, restored.patience) == (made.owner, made.patience)
    connect = closing(sqlite3.connect(tmp_path / "test.db", timeout=0))
    with restored.engine.begin(), connect as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    for storage in (made, restored):
        storage.engine.dispose()


class TestAsOptunasStorage(StorageTestCase):
    """Optuna's own suite, all of it, on both databases."""
