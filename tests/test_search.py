"""A search run from Python, and the same one from the command line."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import UsageError
from hpsearch.executors import Outcome, Task
from hpsearch.search import Search, run
from hpsearch.search.observer import Observer
from hpsearch.search.search import Loaded
from hpsearch.search.stored_study import StoredStudy, open_to_read
from hpsearch.search.supervisor import is_hopeless
from support import STUDIES
from support.command_line import environment
from support.in_process import hpsearch_here

TINY = str(STUDIES / "tiny.py")


def search_in(folder: Path, **options: object) -> Search:
    return Search.of(
        TINY,
        **{
            "sampler": "random",
            "pruner": "median:n_startup_trials=1",
            "n_trials": 3,
            "storage": f"sqlite:///{folder}/hpsearch.db",
            "runs": folder / "runs",
            **options,
        },  # type: ignore[arg-type]
    )


def contents(stored: StoredStudy) -> list[tuple[object, ...]]:
    def of(trial: FrozenTrial) -> tuple[object, ...]:
        return trial.number, trial.state, trial.params, trial.value, trial.intermediate_values

    return [of(trial) for trial in stored.optuna_study().get_trials()]


def test_it_is_the_study_that_the_command_makes(tmp_path: Path) -> None:
    finished = run(search_in(tmp_path / "..", storage=f"sqlite:///{tmp_path}/here.db", runs=tmp_path / "here"))
    assert finished.end == "done"
    options = ("--study", "tiny", "--sampler", "random", "--pruner", "median:n_startup_trials=1", "--n-trials", "3")
    assert hpsearch_here(tmp_path, "run", *options, "--workers", "0") == 0
    typed = open_to_read(f"sqlite:///{tmp_path}/hpsearch.db", "tiny", tmp_path / "runs")
    assert contents(finished.stored) == contents(typed)
    assert (tmp_path / "here" / "tiny" / "0" / "best.pt").exists()


def test_what_is_left_out_is_the_studys(tmp_path: Path) -> None:
    search = Search.of(TINY, storage=f"sqlite:///{tmp_path}/hpsearch.db")
    assert (str(search.strategy), search.limits.n_trials, search.name) == ("tpe+hyperband", 5, "tiny")
    assert search.points is None
    grid = Search.of(TINY, sampler="grid", storage=f"sqlite:///{tmp_path}/hpsearch.db")
    assert grid.points is not None
    assert grid.limits.n_trials == len(grid.points) == 3 * (2 + 1) * 2


@pytest.mark.parametrize(
    ("change", "differs"),
    [({"seed": 1}, True), ({"sampler": "tpe"}, False), ({"name": "other"}, False), ({"n_trials": 2}, True)],
)
def test_an_option_acts_on_what_it_names(tmp_path: Path, change: dict[str, object], differs: bool) -> None:
    one, other = (run(search_in(tmp_path, **options)).stored for options in ({}, {"fresh": True, **change}))
    # TPE draws at random, from the same stream, as long as few trials are finished.
    assert (contents(one) != contents(other)) == differs
    assert other.name == ("other" if change.get("name") else "tiny.2")


def test_points_are_handed_out_in_their_order(tmp_path: Path) -> None:
    search = search_in(tmp_path, sampler="grid")
    assert search.points is not None
    points = search.points[::-1][:3]
    stored = run(replace(search, points=points)).stored
    assert [trial.params for trial in stored.optuna_study().get_trials()] == points


def test_an_observer_is_told_what_happens(tmp_path: Path) -> None:
    told: list[object] = []

    class Listening(Observer):
        def opened(self, stored: StoredStudy, search: Search, loaded: Loaded) -> None:
            told.append((stored.name, search.workers, loaded.intervals))

        def started(self, task: Task, intervals_before: int) -> None:
            told.append((task.number, intervals_before))

        def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
            told.append((number, state))

    search = search_in(tmp_path, n_trials=2, pruner="none")
    run(search, observer=Listening())
    assert told == [("tiny", 0, 8), (0, 0), (0, TrialState.COMPLETE), (1, 0), (1, TrialState.COMPLETE)]
    assert search.finished_already() is not None
    assert search_in(tmp_path, n_trials=3, pruner="none").finished_already() is None
    assert replace(search, fresh=True).finished_already() is None


def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"sampler": "tpee"}, "unknown sampler"),
        ({"pruner": "median:x=1"}, "x=1"),
        ({"storage": "sqlite://"}, "in memory"),
        ({"n_trials": 0}, "n_trials must be a whole number of at least 1, got 0"),
        ({"n_trials": "2"}, "n_trials must be"),
        ({"workers": -1}, "workers must be a whole number of at least 0, got -1"),
        ({"workers": 1.5}, "workers must be"),
        ({"seed": "x"}, "seed must be"),
        ({"device": "gpu"}, "cpu, cuda"),
    ]
    for change, message in wrong:
        with pytest.raises(UsageError, match=message):
            search_in(tmp_path, **change)
    with pytest.raises(UsageError, match="a study is given by its name or path"):
        Search.of(None)  # type: ignore[arg-type]
    assert search_in(tmp_path, device="auto").device in ("cpu", "cuda")
    with pytest.raises(UsageError, match="min_resource"):
        Loaded.of(search_in(tmp_path, pruner="hyperband:min_resource=50"))
    assert list(tmp_path.iterdir()) == []


def test_the_first_five_failures_or_ten_in_a_row_are_hopeless() -> None:
    assert [is_hopeless(count, finished=0) for count in (4, 5)] == [False, True]
    assert [is_hopeless(count, finished=1) for count in (5, 9, 10)] == [False, False, True]


def test_a_script_needs_no_guard_for_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from hpsearch.search import Search, run\n"
        "print('runs')\n"
        f"search = Search.of({TINY!r}, n_trials=2, sampler='random', pruner='none', workers=1)\n"
        "print(run(search).end)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "runs\ndone\n", done.stderr
    assert "Traceback" not in done.stderr
