"""Ctrl-C, SIGTERM, kill -9 and two terminals at once, on the real command line."""

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.command_line import Started, hpsearch, states, wait_for

RUN = ("run", "--study", "tiny", "--n-trials", "8", "--sampler", "random", "--pruner", "none", "--seed", "5")


def trials(database: Path) -> list[tuple[Any, ...]]:
    """Return number, state, value, params and reports of every trial, by plain SQL."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT trial_id, number, state, (SELECT value FROM trial_values v WHERE v.trial_id = t.trial_id) "
            "FROM trials t ORDER BY number"
        ).fetchall()
        return [
            (
                number,
                state,
                value,
                connection.execute(
                    "SELECT param_name, param_value FROM trial_params WHERE trial_id = ? ORDER BY 1", (trial_id,)
                ).fetchall(),
                connection.execute(
                    "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ? ORDER BY 1",
                    (trial_id,),
                ).fetchall(),
            )
            for trial_id, number, state, value in rows
        ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = hpsearch(*RUN, "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return trials(folder / "hpsearch.db")


def some_progress(folder: Path, finished: int = 1) -> bool:
    found = states(folder / "hpsearch.db", "tiny")
    return found["COMPLETE"] >= finished and found["RUNNING"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_its_work_and_goes_on(
    tmp_path: Path, undisturbed: list[tuple[Any, ...]], number: signal.Signals
) -> None:
    run = Started(*RUN, "--workers", "1", cwd=tmp_path)
    wait_for(lambda: some_progress(tmp_path, 2))
    began = time.monotonic()
    run.interrupt(number)
    assert run.wait(10) == 130
    assert time.monotonic() - began < 5
    said = run.err.read_text()
    assert "interrupted; everything is saved" in said
    assert "Traceback" not in said
    found = states(tmp_path / "hpsearch.db", "tiny")
    assert found["RUNNING"] == 0
    assert found["WAITING"] <= 1
    assert hpsearch(*RUN, "--workers", "1", cwd=tmp_path).returncode == 0
    assert trials(tmp_path / "hpsearch.db") == undisturbed


def test_a_second_interrupt_leaves_at_once_and_loses_nothing(
    tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    run = Started(*RUN, "--workers", "1", cwd=tmp_path)
    wait_for(lambda: some_progress(tmp_path))
    run.interrupt(signal.SIGINT)
    run.interrupt(signal.SIGINT)
    assert run.wait(5) == 130
    assert hpsearch(*RUN, "--workers", "1", cwd=tmp_path).returncode == 0
    assert trials(tmp_path / "hpsearch.db") == undisturbed


def test_a_killed_supervisors_workers_end_and_its_trials_go_on(
    tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    run = Started(*RUN, "--workers", "1", cwd=tmp_path)
    wait_for(lambda: some_progress(tmp_path))
    workers = run.workers()
    assert workers
    run.process.kill()
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    assert states(tmp_path / "hpsearch.db", "tiny")["RUNNING"] == 1
    again = hpsearch(*RUN, "--workers", "1", cwd=tmp_path)
    assert again.returncode == 0
    assert "taken over from a supervisor that died" in again.stderr
    assert trials(tmp_path / "hpsearch.db") == undisturbed


def test_a_killed_worker_costs_nothing(tmp_path: Path, undisturbed: list[tuple[Any, ...]]) -> None:
    run = Started(*RUN, "--workers", "1", "--max-retries", "9", cwd=tmp_path)
    for finished in (1, 2, 4):
        wait_for(lambda finished=finished: some_progress(tmp_path, finished))  # type: ignore[misc]
        # The youngest process is the worker; the one before it starts the workers.
        max(run.workers(), key=lambda process: process.create_time()).kill()
    assert run.wait() == 0
    assert trials(tmp_path / "hpsearch.db") == undisturbed
    assert "its worker was killed by SIGKILL" in run.err.read_text()


def test_two_supervisors_stop_together_at_exactly_n(tmp_path: Path) -> None:
    runs = [Started(*RUN, "--workers", "1", cwd=tmp_path, name=f"run{i}") for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    found = trials(tmp_path / "hpsearch.db")
    assert [row[0] for row in found] == list(range(8))
    assert {row[1] for row in found} == {"COMPLETE"}
    lines = [line for run in runs for line in run.err.read_text().splitlines() if line.startswith("trial ")]
    assert len(lines) == 8


def test_two_supervisors_visit_every_grid_point_once(tmp_path: Path) -> None:
    grid = ("run", "--study", "tiny", "--sampler", "grid", "--workers", "1")
    runs = [Started(*grid, cwd=tmp_path, name=f"run{i}") for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    points = [tuple(row[3]) for row in trials(tmp_path / "hpsearch.db")]
    # lr 3 x (sgd: momentum 2, adam: 1) x hidden 2 x dropout 1
    assert len(points) == len(set(points)) == 18
