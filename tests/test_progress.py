"""What `hpsearch run` shows while it works: lines in a pipe, a table on a terminal."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from hpsearch.executors import Outcome, Task
from hpsearch.progress import run as run_module
from hpsearch.progress import run_progress
from hpsearch.progress.run import RunLines, RunTable
from hpsearch.search.search import Loaded, Search
from hpsearch.training import IntervalReport
from support import STUDIES
from support.finished_study import make_study


def console_of(width: int = 80, **options: Any) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, width=width, **options), written


def task(number: int, **params: Any) -> Task:
    return Task(number=number, params=params, seed=0, folder=Path("runs"), identity=str(number))


def report(interval: int, accuracy: float) -> IntervalReport:
    return IntervalReport(
        interval=interval,
        epoch=float(interval),
        step=interval,
        train={"loss": 1.0, "accuracy": 0.5},
        validation={"loss": 1.0, "accuracy": accuracy},
        learning_rate=0.1,
        seconds=1.0,
    )


def complete_trial(number: int, value: float) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, value=value)
    trial.number = number
    return trial


def of_lenet(shown: RunLines) -> Any:
    shown.name, shown.intervals, shown.unit = "lenet", 20, "epoch"
    return shown


def lines(width: int = 80) -> tuple[RunLines, io.StringIO]:
    console, written = console_of(width)
    return of_lenet(RunLines(console)), written


def test_a_terminal_gets_the_table_and_a_pipe_lines() -> None:
    assert isinstance(run_progress(console_of(force_terminal=True)[0]), RunTable)
    assert type(run_progress(console_of()[0])) is RunLines


def test_it_begins_with_what_is_going_to_be_done_and_the_best_so_far(tmp_path: Path) -> None:
    stored = make_study(tmp_path, ["budget", "pruned", "budget"])
    search = Search.of(
        str(STUDIES / "tiny.py"),
        sampler="random",
        pruner="median",
        storage=f"sqlite:///{tmp_path}/hpsearch.db",
        workers=2,
    )
    data = replace(search.study_file.study.load_data(), note="a sample of 60 digits")
    console, written = console_of()
    shown = run_progress(console)
    shown.opened(stored, search, Loaded.from_data(search, data))
    assert written.getvalue().splitlines()[:2] == [
        "hpsearch: the data are a sample of 60 digits",
        "hpsearch: starting 2 workers",
    ]
    best = stored.optuna_study().best_trial
    assert shown.summary() == f"tiny: 0/0 finished, 0 pruned, 0 failed, best {best.value:.4f} (trial {best.number})"


def test_a_finished_trial_is_one_line_however_narrow_the_pipe() -> None:
    shown, written = lines(width=30)
    shown.started(task(7, lr=0.0123456, optimizer="sgd", hidden=[64, 32]), 0)
    shown.ended(7, TrialState.COMPLETE, Outcome(reason="patience", intervals=12, best_value=0.98765, seconds=3.21))
    assert written.getvalue() == (
        "trial   7 0.9877 patience    12 epochs    3.2 s  lr=0.0123 optimizer=sgd hidden=[64, 32]\n"
    )


def test_a_failed_trial_says_why_in_its_line() -> None:
    shown, written = lines()
    shown.started(task(3, lr=0.1), 0)
    shown.ended(3, TrialState.FAIL, Outcome(reason="failed", error="Traceback\n  ...\nValueError: [no] such thing\n"))
    assert written.getvalue() == "trial   3 failed: ValueError: [no] such thing\n"


def test_messages_and_values_are_no_markup() -> None:
    shown, written = lines()
    shown.message("[red]:smile: waits")
    assert written.getvalue() == "hpsearch: [red]:smile: waits\n"


@pytest.mark.parametrize(
    ("state", "outcome", "best"),
    [
        (TrialState.COMPLETE, Outcome(reason="budget", best_value=0.95), "best 0.9500 (trial 2)"),
        (TrialState.COMPLETE, Outcome(reason="budget", best_value=0.85), "best 0.9000 (trial 1)"),
        # Of equals the first.
        (TrialState.COMPLETE, Outcome(reason="budget", best_value=0.90), "best 0.9000 (trial 1)"),
        # Only what is complete can be exported.
        (TrialState.PRUNED, Outcome(reason="pruned", best_value=0.95), "best 0.9000 (trial 1)"),
        (TrialState.COMPLETE, Outcome(reason="diverged", best_value=0.95), "best 0.9000 (trial 1)"),
    ],
)
def test_the_best_is_the_first_complete_trial_with_the_highest_value(
    state: TrialState, outcome: Outcome, best: str
) -> None:
    shown, _ = lines()
    shown.best = (0.9, 1)
    shown.started(task(2), 0)
    shown.ended(2, state, outcome)
    assert best in shown.summary()


def test_the_time_left_is_that_of_the_trials_to_come_at_the_pace_of_those_finished_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now))
    shown, _ = lines()
    # 10 were finished before, by other runs.
    shown.counts({TrialState.COMPLETE: 8, TrialState.PRUNED: 2}, 50)
    assert shown.summary() == "lenet: 10/50 finished, 2 pruned, 0 failed"
    for number in (10, 11):
        shown.started(task(number), 0)
        shown.ended(number, TrialState.PRUNED, Outcome(reason="pruned", best_value=0.5))
    shown.started(task(12), 0)
    shown.ended(12, TrialState.FAIL, Outcome(reason="failed", error="no"))
    shown.counts({TrialState.COMPLETE: 8, TrialState.PRUNED: 4, TrialState.FAIL: 1}, 50)
    now += 60
    assert shown.summary() == "lenet: 12/50 finished, 4 pruned, 1 failed, 0:19:00 left"


def test_the_last_line_has_the_studys_best_and_all_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now))
    shown, _ = lines()
    shown.best = (0.5, 1)
    shown.counts({TrialState.COMPLETE: 50}, 50)
    now += 90
    assert shown.last_line(complete_trial(7, 0.75), 3600.0) == (
        "lenet: 50/50 finished, 0 pruned, 0 failed, best 0.7500 (trial 7), 0:01:30 here, 1:00:00 of training in all"
    )
    assert (
        shown.last_line(None, None) == "lenet: 50/50 finished, 0 pruned, 0 failed, best 0.7500 (trial 7), 0:01:30 here"
    )


def test_the_table_has_the_running_trials_in_order_and_no_others() -> None:
    console, written = console_of(force_terminal=True, color_system=None)
    shown = of_lenet(RunTable(console))
    for number in (12, 3, 4, 5):
        shown.started(task(number, lr=0.1 * number), intervals_before=number % 4)
    shown.reported(12, report(10, 0.875))
    shown.ended(4, TrialState.PRUNED, Outcome(reason="pruned", best_value=0.5))
    shown.released(5)
    written.truncate(written.seek(0))
    console.print(shown.table())
    rows = written.getvalue().splitlines()
    assert [row[:9] for row in rows[:-1]] == ["trial   3", "trial  12"]
    assert " 3/20 " in rows[0]
    assert "10/20 0.8750 " in rows[1]
    assert "lr=1.2" in rows[1]
    # Half of the bar's sixteen columns.
    assert rows[1].count("━") == 8
    assert rows[-1].startswith("lenet: 0/0 finished")


def test_nothing_in_the_table_is_wider_than_the_terminal() -> None:
    console, written = console_of(60, force_terminal=True, color_system=None)
    shown = of_lenet(RunTable(console))
    shown.started(task(1, **{f"parameter{index}": "value" * 5 for index in range(9)}), 0)
    console.print(shown.table())
    shown.ended(1, TrialState.COMPLETE, Outcome(reason="budget", intervals=20, best_value=0.5))
    assert all(len(row) <= 60 for row in written.getvalue().splitlines())
    assert len(written.getvalue().splitlines()) == 3
