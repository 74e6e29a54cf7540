"""A database that is locked, silent or gone while a study runs: training goes on, and a run ends as it should."""

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Started, hpsearch, states, wait_for
from support.databases import PostgresServer, study_rows

# Intervals of a third of a second.
RUN = ("run", "--study", "steady", "--sampler", "random", "--pruner", "none", "--seed", "5", "--workers", "1")
wait_for_long = partial(wait_for, timeout=120)

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set")


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold SQLite's write lock."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


@contextmanager
def silenced(server: PostgresServer) -> Iterator[None]:
    """Have nobody answered and nobody refused."""
    server.fall_silent()
    try:
        yield
    finally:
        server.speak()


def trained(folder: Path) -> int:
    """Return how many intervals have been trained, by the trials' files."""
    files = (folder / "runs").rglob("history.csv")
    return sum(len(path.read_text().splitlines()) - 1 for path in files)


def rate(folder: Path, seconds: float) -> float:
    """Return how many intervals a second are trained."""
    before, began = trained(folder), time.monotonic()
    time.sleep(seconds)
    return (trained(folder) - before) / (time.monotonic() - began)


def complete(rows: list[dict[str, Any]], trials: int) -> bool:
    return [row["state"] for row in rows] == ["COMPLETE"] * trials and all(
        len(row["reports"]) == row["intervals"] for row in rows
    )


def test_training_goes_on_while_the_database_is_locked(start: Callable[..., Started], tmp_path: Path) -> None:
    long = {"TEST_EPOCHS": "100"}
    run = start(*RUN, "--n-trials", "1", **long)
    wait_for_long(lambda: trained(tmp_path) >= 3)
    free = rate(tmp_path, 6)
    with locked(tmp_path / "hpsearch.db"):
        during = rate(tmp_path, 18)
        # An interval more than is reported is trained anyway.
        assert during > 0.7 * free
    wait_for_long(lambda: "the database is back" in run.err.read_text())
    run.interrupt(signal.SIGINT)
    assert run.wait() == 130
    (row,) = study_rows(f"sqlite:///{tmp_path}/hpsearch.db")
    assert len(row["reports"]) == trained(tmp_path)


def test_a_silent_server_is_an_outage(start: Callable[..., Started], tmp_path: Path) -> None:
    pytest.importorskip("pgserver", reason="pip install pgserver brings a PostgreSQL")
    server = PostgresServer()
    # Long enough that no trial ends during the silence: there is nobody to ask for the next one.
    long = {"TEST_EPOCHS": "60"}
    try:
        storage = ("--storage", server.url)
        run = start(*RUN, *storage, "--n-trials", "1", **long)
        wait_for_long(lambda: trained(tmp_path) >= 3)
        free = rate(tmp_path, 4)
        with silenced(server):
            wait_for_long(lambda: "the database does not answer" in run.err.read_text())
            assert rate(tmp_path, 5) > 0.7 * free
        assert run.wait() == 0
        assert "the database is back" in run.err.read_text()
        assert complete(study_rows(server.url), 1)

        # Longer than it is to be survived, and ended by the user.
        for name, options, code, line in (
            ("brief", ("--outage", "5"), 1, "the database did not answer for 5 s"),
            ("ended", (), 130, "the database is unavailable"),
        ):
            before = trained(tmp_path)
            run = start(*RUN, *storage, *options, "--n-trials", "8", name=name, **long)
            wait_for_long(lambda before=before: trained(tmp_path) >= before + 2)  # type: ignore[misc]
            with silenced(server):
                if code == 130:
                    time.sleep(1)
                    run.interrupt(signal.SIGINT)
                assert run.wait(60) == code
            assert line in run.err.read_text()
            assert "Traceback" not in run.err.read_text()
        assert hpsearch(*RUN, *storage, "--n-trials", "2", cwd=tmp_path, **long).returncode == 0
        assert complete(study_rows(server.url), 2)
    finally:
        server.close()


def test_an_interrupt_while_the_database_is_locked_ends_the_run_with_a_line(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    run = start(*RUN, "--n-trials", "3")
    wait_for_long(lambda: trained(tmp_path) >= 3)
    with locked(tmp_path / "hpsearch.db"):
        time.sleep(1)
        run.interrupt(signal.SIGINT)
        assert run.wait(30) == 130
    said = run.err.read_text()
    assert "interrupted" in said
    assert "the database is unavailable" in said
    assert "Traceback" not in said
    assert hpsearch(*RUN, "--n-trials", "3", cwd=tmp_path).returncode == 0
    assert complete(study_rows(f"sqlite:///{tmp_path}/hpsearch.db"), 3)


def test_a_database_removed_during_a_run_ends_it(start: Callable[..., Started], tmp_path: Path) -> None:
    run = start(*RUN, "--n-trials", "3")
    wait_for_long(lambda: trained(tmp_path) >= 3)
    for path in tmp_path.glob("hpsearch.db*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    assert run.wait(60) == 1
    said = run.err.read_text()
    assert "was removed or replaced during the run" in said
    assert "Traceback" not in said
    assert "3/3 finished" not in said
    for path in tmp_path.glob("aside-*"):
        path.rename(path.with_name(path.name.removeprefix("aside-")))
    assert hpsearch(*RUN, "--n-trials", "3", cwd=tmp_path).returncode == 0
    assert states(tmp_path / "hpsearch.db", "steady")["COMPLETE"] == 3
