"""Trials chosen by hand: checked against the space, taken first, the rest of their params drawn."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Study, UsageError
from hpsearch.search.enqueue import parse_params
from hpsearch.study import load_study
from support import STUDIES
from support.in_process import hpsearch_here


@pytest.fixture(scope="module")
def tiny() -> Study:
    return load_study(str(STUDIES / "tiny.py")).study


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["lr=0.01", "optimizer=adam"], {"lr": 0.01, "optimizer": "adam"}),
        (["optimizer=sgd", "momentum=0"], {"optimizer": "sgd", "momentum": 0.0}),
        (["hidden=16.0"], {"hidden": 16}),
        (["lr=1e-2"], {"lr": 0.01}),
    ],
)
def test_params_are_read_as_the_space_has_them(tiny: Study, texts: list[str], expected: dict[str, object]) -> None:
    found = parse_params(texts, tiny)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["lr"], ["'lr'", "name=value"]),
        (["rate=0.1"], ["no parameter 'rate'", "lr, optimizer, momentum, hidden, dropout"]),
        (["lr=5"], ["lr must be from 0.001 to 1", "5"]),
        (["lr=fast"], ["lr must be a number", "'fast'"]),
        (["lr=nan"], ["lr must be", "nan"]),
        (["optimizer=adma"], ["one of sgd, adam", "'adma'"]),
        (["hidden=9"], ["in steps of 8", "9"]),
        (["hidden=8.5"], ["a whole number", "8.5"]),
        (["lr=0.1", "lr=0.2"], ["lr is given twice"]),
        (["optimizer=adam", "momentum=0.5"], ["momentum only with optimizer=sgd", "leave it out"]),
        (["momentum=0.5"], ["momentum only with optimizer=sgd", "give that too"]),
    ],
)
def test_what_does_not_fit_the_space_is_one_line(tiny: Study, texts: list[str], expected: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        parse_params(texts, tiny)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in expected)


def test_labels_of_any_kind_are_found_by_their_text() -> None:
    def recipe(space: Space) -> Recipe:
        space.choice("nesterov", [True, False])
        space.choice("size", [1, 2.5, "big", None])
        return Recipe(model=MLP(inputs=2), optimizer=SGD(lr=0.1))

    def no_data() -> Dataset:
        raise AssertionError

    study = Study(recipe=recipe, dataset=no_data)
    assert parse_params(["nesterov=True", "size=None"], study) == {"nesterov": True, "size": None}
    assert parse_params(["nesterov=false", "size=2.5"], study) == {"nesterov": False, "size": 2.5}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_enqueued_trials_run_first_and_manual_runs_no_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--study", "tiny"]
    assert hpsearch_here(folder, "enqueue", *tiny, "lr=0.01", "optimizer=adam") == 0
    assert hpsearch_here(folder, "enqueue", *tiny, "optimizer=sgd", "momentum=0.5", "hidden=16") == 0
    said = capsys.readouterr().out
    assert "Trial 1 waits in the queue: optimizer=sgd momentum=0.5 hidden=16" in said
    assert "--n-trials 2 --sampler manual" in said
    run = ["run", *tiny, "--workers", "0", "--pruner", "none"]
    assert hpsearch_here(folder, *run, "--sampler", "manual", "--n-trials", "9") == 0
    assert hpsearch_here(folder, *run, "--sampler", "random", "--n-trials", "3") == 0
    with closing(sqlite3.connect(folder / "hpsearch.db")) as connection:
        query = "SELECT number, param_name, param_value FROM trial_params NATURAL JOIN trials"
        params = {(number, name): value for number, name, value in connection.execute(query)}
        states = list(connection.execute("SELECT number, state FROM trials ORDER BY number"))
    assert states == [(0, "COMPLETE"), (1, "COMPLETE"), (2, "COMPLETE")]
    # Of a choice the database has the index: sgd 0, adam 1.
    assert (params[0, "lr"], params[0, "optimizer"]) == (0.01, 1)
    assert (params[1, "optimizer"], params[1, "momentum"], params[1, "hidden"]) == (0, 0.5, 16)
    assert {name for number, name in params if number == 0} == {"lr", "optimizer", "hidden", "dropout"}
    assert 0.001 <= params[1, "lr"] <= 1


def test_bad_params_create_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        hpsearch_here(tmp_path, "enqueue", "--study", "tiny", "lr=5")
    assert list(tmp_path.iterdir()) == []
