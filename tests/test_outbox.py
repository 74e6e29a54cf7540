"""Writes to a database that may be away."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from optuna.study import StudyDirection

from hpsearch.errors import HpsearchError, StorageUnavailable, TrialLost
from hpsearch.search.heartbeat import Heartbeat
from hpsearch.search.outbox import Outbox
from hpsearch.search.owner import Owner
from hpsearch.search.storage import Storage


class Probe(Heartbeat):
    """A heartbeat whose answers the test gives."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, 1)
        self.back = False

    def answered_since(self, moment: float) -> bool:
        return self.back


class Database:
    """Something to write to, and what was tried and written."""

    def __init__(self) -> None:
        self.away = False
        self.tried = 0
        self.written: list[object] = []

    def write(self, item: object) -> Callable[[], None]:
        def operation() -> None:
            self.tried += 1
            if self.away:
                raise sqlalchemy.exc.OperationalError("INSERT", None, Exception("no S3cret answer"))
            self.written.append(item)

        return operation


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(f"sqlite:///{tmp_path}/test.db", Owner.this_process())
    made.engine.dispose()
    return made


Box = Outbox[Callable[[], None]]


def outbox(storage: Storage, seconds: float = 9.0) -> tuple[Box, Probe, list[str], list[int | None]]:
    said: list[str] = []
    lost: list[int | None] = []
    probe = Probe(storage)
    made: Box = Outbox(storage, probe, seconds, write=lambda write: write(), notify=said.append, on_lost=lost.append)
    return made, probe, said, lost


def test_what_could_not_be_written_is_written_later_in_order(storage: Storage) -> None:
    box, probe, said, _ = outbox(storage)
    database = Database()
    box.append(database.write(1))
    assert box.flush()
    database.away = True
    box.append(database.write(2))
    box.append(database.write(3))
    assert not box.flush()
    assert box.away
    # Nobody waits for a database that is known to be away: it is the heartbeat that asks.
    tried, began = database.tried, time.monotonic()
    while time.monotonic() - began < 0.6:
        assert not box.flush()
        assert not box.attempt(database.write("asked"))
    assert database.tried == tried
    database.away, probe.back = False, True
    assert box.flush()
    assert database.written == [1, 2, 3]
    assert not box.away
    assert "does not answer" in said[0]
    assert "is back" in said[1]


def test_it_gives_up_after_the_time_given(storage: Storage) -> None:
    box, _, _, _ = outbox(storage, seconds=0.3)
    database = Database()
    database.away = True
    box.append(database.write(1))
    assert not box.flush()
    time.sleep(0.4)
    with pytest.raises(StorageUnavailable, match=r"did not answer for 0\.3 s"):
        box.flush()


def test_what_belongs_to_a_lost_trial_is_dropped_and_told(storage: Storage) -> None:
    box, _, _, lost = outbox(storage)
    database = Database()

    def refused() -> None:
        raise TrialLost("it is another's", 7)

    box.append(refused)
    box.append(database.write(1))
    assert box.flush()
    assert lost == [7]
    assert database.written == [1]


def test_the_heartbeat_beats_while_nobody_else_runs_and_tells_what_ended_it(storage: Storage) -> None:
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    storage.serve(outage=0.0)
    claim = storage.claim(study_id, 1, [])
    assert claim is not None

    def beats() -> object:
        with storage.engine.begin() as connection:
            return connection.exec_driver_sql("SELECT heartbeat FROM trial_heartbeats").scalar()

    with Heartbeat(storage, study_id) as heart:
        before, began = beats(), time.monotonic()
        time.sleep(2.5)
        assert beats() != before
        assert heart.answered_since(began)
        storage.delete_study(study_id)
        with pytest.raises(HpsearchError, match="deleted"):  # noqa: PT012
            for _ in range(100):
                heart.answered_since(began)
                time.sleep(0.1)
    storage.engine.dispose()
