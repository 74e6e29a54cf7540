"""Supervisors that are frozen, cut off or slow, beside others who take over: nothing is done twice or lost."""

import csv
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Started, hpsearch, wait_for
from support.databases import PostgresServer, study_rows

# With an outage of 4 s a supervisor is taken for dead after 7 s.
RUN = ("run", "--study", "steady", "--sampler", "random", "--pruner", "none", "--seed", "5", "--workers", "1")
BRIEF = ("--outage", "4")
TRIALS = 3
wait_for_long = partial(wait_for, timeout=120)

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/hpsearch.db"
        return
    pytest.importorskip("pgserver", reason="pip install pgserver brings a PostgreSQL")
    server = PostgresServer()
    yield server.url
    server.close()


def rows(url: str) -> list[dict[str, Any]]:
    """Return what the database says of every trial, and nothing while there is no study."""
    try:
        return study_rows(url)
    except Exception:
        return []


def reports(url: str) -> int:
    return sum(len(row["reports"]) for row in rows(url))


def freeze(run: Started, url: str, *, tree: bool) -> None:
    """Stop a supervisor, with its workers or alone, but not while it holds SQLite's lock: that locks everyone out."""
    while True:
        if tree:
            run.signal_tree(signal.SIGSTOP)
        else:
            run.process.send_signal(signal.SIGSTOP)
        if not url.startswith("sqlite"):
            return
        try:
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)) as found:
                found.execute("BEGIN IMMEDIATE")
                found.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            run.signal_tree(signal.SIGCONT)
            time.sleep(0.05)


def assert_equal_to_undisturbed(folder: Path, url: str, command: tuple[str, ...]) -> None:
    """Database and files are those of a run that nothing happened to."""
    found = rows(url)
    assert [row["state"] for row in found] == ["COMPLETE"] * TRIALS
    for row in found:
        trial = folder / "runs" / "steady" / str(row["number"])
        with (trial / "history.csv").open() as file:
            history = {int(line["interval"]): float(line["validation_accuracy"]) for line in csv.DictReader(file)}
        assert history == pytest.approx(row["reports"], abs=0)
        assert {path.name for path in trial.glob("*.pt")} == {"best.pt"}
        assert len(list(trial.glob("events.out.tfevents.*"))) == 1
    quiet = folder / "quiet"
    quiet.mkdir()
    done = hpsearch(*command, "--storage", f"sqlite:///{quiet}/quiet.db", cwd=quiet)
    assert done.returncode == 0, done.stderr
    assert rows(f"sqlite:///{quiet}/quiet.db") == found


@pytest.mark.parametrize("tree", [True, False], ids=["with its workers", "alone"])
def test_a_supervisor_frozen_and_woken_up_changes_nothing_that_was_taken_over(
    start: Callable[..., Started], tmp_path: Path, url: str, tree: bool
) -> None:
    command = (*RUN, *BRIEF, "--n-trials", str(TRIALS))
    frozen = start(*command, "--storage", url, name="frozen")
    wait_for_long(lambda: reports(url) >= 2)
    freeze(frozen, url, tree=tree)
    other = start(*command, "--storage", url, name="other")
    wait_for_long(lambda: "trial 0: taken over from a supervisor that died" in other.err.read_text())
    before = len(rows(url)[0]["reports"])
    wait_for_long(lambda: len(rows(url)[0]["reports"]) >= before + 2)
    frozen.signal_tree(signal.SIGCONT)
    assert (frozen.wait(), other.wait()) == (0, 0)
    for run in (frozen, other):
        assert "Traceback" not in run.err.read_text()
    assert "taken over by another supervisor, stopped here" in frozen.err.read_text()
    assert_equal_to_undisturbed(tmp_path, url, command)


def test_a_supervisor_frozen_alone_goes_on_where_it_was(
    start: Callable[..., Started], tmp_path: Path, url: str
) -> None:
    command = (*RUN, *BRIEF, "--n-trials", str(TRIALS))
    frozen = start(*command, "--storage", url, name="frozen")
    wait_for_long(lambda: reports(url) >= 2)
    freeze(frozen, url, tree=True)
    time.sleep(9)
    frozen.signal_tree(signal.SIGCONT)
    assert frozen.wait() == 0
    assert "Traceback" not in frozen.err.read_text()
    assert_equal_to_undisturbed(tmp_path, url, command)


def test_a_lock_longer_than_a_heartbeat_makes_nobody_take_over(start: Callable[..., Started], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hpsearch.db"
    command = (*RUN, "--n-trials", str(TRIALS + 1), "--outage", "20", "--storage", url)
    runs = [start(*command, name=f"run{i}") for i in range(2)]
    wait_for_long(lambda: sum(row["state"] == "RUNNING" for row in rows(url)) == 2 and reports(url) >= 2)
    with closing(sqlite3.connect(tmp_path / "hpsearch.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(12)
        connection.execute("ROLLBACK")
    assert [run.wait() for run in runs] == [0, 0]
    for run in runs:
        assert "taken over" not in run.err.read_text()
    assert [row["state"] for row in rows(url)] == ["COMPLETE"] * (TRIALS + 1)


def test_an_interval_longer_than_the_grace_makes_nobody_take_over(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/hpsearch.db"
    # In the supervisor's own process: two intervals of six seconds, under a grace of four.
    command = (*RUN, "--n-trials", "2", "--outage", "1", "--storage", url, "--workers", "0")
    slow = {"TEST_BATCH_SECONDS": "0.35", "TEST_EPOCHS": "2"}
    runs = [start(*command, name=f"run{i}", **slow) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    for run in runs:
        assert "taken over" not in run.err.read_text()
    assert [row["state"] for row in rows(url)] == ["COMPLETE"] * 2
