"""Ownership, budget and queue in the database, on SQLite and on a real PostgreSQL."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpsearch.errors import UsageError
from hpsearch.search.owner import Owner
from hpsearch.search.storage import GRACE_SECONDS, Storage, check_url, is_outage, shown


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


def finish(storage: Storage, study_id: int, trial_id: int, state: TrialState = TrialState.COMPLETE) -> bool:
    return storage.finish(
        study_id, trial_id, state, 0.5 if state == TrialState.COMPLETE else None, {"reason": "budget"}
    )


def test_claims_stop_at_the_limit_and_failures_do_not_count(storage: Storage, study_id: int) -> None:
    held: list[int] = []
    for _ in range(3):
        trial_id = storage.claim(study_id, 3, held)
        assert trial_id is not None
        held.append(trial_id)
    assert storage.claim(study_id, 3, held) is None
    assert finish(storage, study_id, held.pop(), TrialState.FAIL)
    replacement = storage.claim(study_id, 3, held)
    assert replacement is not None
    held.append(replacement)
    for trial_id in held:
        assert finish(storage, study_id, trial_id, TrialState.PRUNED)
    assert storage.claim(study_id, 3, []) is None
    assert storage.counts(study_id) == {TrialState.FAIL: 1, TrialState.PRUNED: 3}
    numbers = [trial.number for trial in storage.get_all_trials(study_id)]
    assert numbers == [0, 1, 2, 3]


def test_a_claim_cut_off_is_claimed_again_not_doubled(storage: Storage, study_id: int) -> None:
    first = storage.claim(study_id, 9, [])
    # The answer was lost: the supervisor does not know that it holds the trial.
    assert storage.claim(study_id, 9, []) == first
    assert storage.counts(study_id) == {TrialState.RUNNING: 1}


def test_a_trial_given_back_keeps_its_number_and_comes_first(storage: Storage, study_id: int) -> None:
    one = storage.claim(study_id, 9, [])
    assert one is not None
    two = storage.claim(study_id, 9, [one])
    assert two is not None
    storage.set_trial_intermediate_value(two, 1, 0.25)
    storage.give_back(study_id, [two])
    assert storage.get_trial(two).state == TrialState.WAITING
    assert storage.claim(study_id, 9, [one]) == two
    trial = storage.get_trial(two)
    assert (trial.number, trial.intermediate_values) == (1, {1: 0.25})


def test_finishing_twice_changes_nothing_and_a_lost_trial_is_not_finished(
    url: str, storage: Storage, study_id: int
) -> None:
    trial_id = storage.claim(study_id, 9, [])
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
    assert dead.claim(study_id, 9, []) is not None
    assert storage.take_over(study_id) == [0]
    assert storage.counts(study_id) == {TrialState.WAITING: 1}
    dead.engine.dispose()


def test_an_owner_elsewhere_is_trusted_while_its_heart_beats(url: str, storage: Storage, study_id: int) -> None:
    away = beside(url, host="elsewhere")
    trial_id = away.claim(study_id, 9, [])
    assert trial_id is not None
    assert storage.take_over(study_id) == []
    assert storage.others_running(study_id) == 1
    long_ago = f"{GRACE_SECONDS + 5} seconds"
    shift = f"datetime(heartbeat, '-{long_ago}')" if url.startswith("sqlite") else f"heartbeat - interval '{long_ago}'"
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {shift}")
    assert away.keep_alive(study_id, [trial_id]) == set()
    assert storage.take_over(study_id) == []
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {shift}")
    assert storage.take_over(study_id) == [0]
    assert storage.claim(study_id, 9, []) == trial_id
    # It wakes up and learns that the trial is not its own any more.
    assert away.keep_alive(study_id, [trial_id]) == {trial_id}
    assert not finish(away, study_id, trial_id)
    away.engine.dispose()


def test_trials_of_other_tools_are_left_alone(storage: Storage, study_id: int) -> None:
    study = optuna.load_study(study_name="s", storage=storage)
    foreign = study.ask()
    assert storage.take_over(study_id) == []
    assert storage.others_running(study_id) == 0
    assert storage.claim(study_id, 1, []) is not None
    assert storage.get_trial(foreign._trial_id).state == TrialState.RUNNING


def test_racing_supervisors_share_the_budget_and_the_grid(url: str, storage: Storage, study_id: int) -> None:
    grid = [{"x": point} for point in range(25)]
    others = [beside(url, token=str(i)) for i in range(4)]

    def race(mine: Storage) -> list[int]:
        taken: list[int] = []
        while (trial_id := mine.claim(study_id, 20, taken, grid)) is not None:
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
        while (trial_id := storage.claim(study_id, 99, held, grid)) is not None:
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
        while (trial_id := mine.claim(study_id, 20, taken)) is not None:
            taken.append(trial_id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [trial_id for ids in pool.map(race, others) for trial_id in ids]
    assert sorted(taken) == sorted(trial._trial_id for trial in study.get_trials())
    for other in others:
        other.engine.dispose()


def test_the_first_description_holds(url: str, storage: Storage, study_id: int) -> None:
    other = beside(url)
    assert storage.describe_once(study_id, {"uid": "a"}) == {"uid": "a"}
    assert other.describe_once(study_id, {"uid": "b"}) == {"uid": "a"}
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
    assert password not in shown(text)
    with pytest.raises(UsageError) as raised:
        Storage(text, Owner.this_process())
    assert password not in str(raised.value)
    assert "***" in str(raised.value)


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
