"""Conditions on trials as a user types them: what they mean against pandas, and what is refused in one line."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpsearch import UsageError
from hpsearch.results.conditions import parse_conditions, satisfying

TRIALS = pd.DataFrame(
    {
        "state": ["complete"] * 5,
        "value": [0.91, 0.95, 0.93, 0.97, 0.90],
        "parameters": [610, 1210, 1810, 2410, 610],
        "latency_ms": [None, 0.5, 0.25, 1.0, 2.0],
        "error": [None] * 5,
        "params.lr": [0.1, 0.01, 0.001, 0.3, 0.5],
        "params.optimizer": ["sgd", "adam", "adam", "sgd", "rms prop"],
        "params.momentum": [0.9, np.nan, np.nan, 0.0, np.nan],
        "params.clip norm": ["None", 1.0, 5.0, "None", 1.0],
        "params.bias": [True, False, True, False, True],
        "params.old": [None] * 5,
    }
)


def chosen(text: str) -> list[int]:
    return list(satisfying(TRIALS, parse_conditions(text, TRIALS)).index)


@pytest.mark.parametrize(
    "text",
    [
        "parameters < 1210",
        "parameters <= 1210 and value >= 0.92",
        "latency_ms > 0.25",
        "latency_ms <= 1 and parameters != 1210",
        "value == 0.95",
    ],
)
def test_numbers_are_compared_as_pandas_does(text: str) -> None:
    assert chosen(text) == list(TRIALS.query(text).index)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parameters<2_000", [0, 1, 2, 4]),
        ("params.lr >= 1e-2 AND lr < 0.4", [0, 1, 3]),
        ("lr = 0.01", [1]),
        ("optimizer == adam", [1, 2]),
        ("optimizer != adam", [0, 3, 4]),
        ("optimizer == 'rms prop'", [4]),
        ('optimizer == "rms prop" and value < 1', [4]),
        ("clip norm == None", [0, 3]),
        ("clip norm == 1", [1, 4]),
        ("bias == true", [0, 2, 4]),
        ("bias == False and optimizer == sgd", [3]),
        # Where a trial does not have it, nothing holds.
        ("momentum != 0.9", [3]),
        ("latency_ms != 1", [1, 2, 4]),
    ],
)
def test_a_condition_holds_where_its_reader_expects_it(text: str, expected: list[int]) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size < 3", "the trials have no column 'size': they have state, value, parameters, latency_ms, params.lr"),
        ("parameter < 3", "no column 'parameter': did you mean parameters?"),
        ("error == x", "no column 'error'"),
        ("parameters", "cannot read 'parameters': give comparisons (< <= > >= == !=) of a column with a value"),
        ("", "cannot read ''"),
        ("parameters < 3 and", "cannot read 'parameters < 3 and'"),
        ("parameters < 3 or value > 1", "cannot read 'parameters < 3 or value > 1'"),
        ("parameters < 3, value > 1", "cannot read 'parameters < 3, value > 1'"),
        ("__import__('os').system('true') == 0", "cannot read"),
        ("value > 0 and (lr < 1)", "no column '(lr'"),
        ("parameters < many", "parameters is a number, got 'many'"),
        ("parameters < nan", "parameters is a number, got 'nan'"),
        ("optimizer < adam", "params.optimizer < adam: only numbers have an order"),
        ("optimizer < 3", "only numbers have an order"),
        ("parameters < 610", "no complete trial has parameters < 610: the lowest is 610"),
        ("value > 0.97", "no complete trial has value > 0.97: the highest is 0.97"),
        ("lr == 0.02", "no complete trial has params.lr == 0.02: the nearest is 0.01"),
        ("optimizer == lion", "no complete trial has params.optimizer == lion: there is adam, rms prop, sgd"),
        ("parameters < 1000 and value > 0.92", "that has parameters < 1000 has value > 0.92: the highest is 0.91"),
        ("old < 3", "params.old < 3: it is not known of any (trials of earlier versions lack it)"),
    ],
)
def test_what_cannot_be_satisfied_or_read_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        chosen(text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["a" * 5000, "parameters <" + " " * 5000 + "x y", "x and " * 2000])
def test_a_long_text_is_refused_at_once(text: Any) -> None:
    with pytest.raises(UsageError) as raised:
        chosen(text)
    assert len(str(raised.value)) < 300


def test_texts_that_look_like_numbers_are_texts() -> None:
    trials = pd.DataFrame({"params.size": ["16", "032", "true"], "parameters": [1, 2, 3]})
    for text, expected in (
        ("size == 16", [0]),
        ("size != 16", [1, 2]),
        ("size == 032", [1]),
        ("size == '032'", [1]),
        ("size == true", [2]),
    ):
        assert list(satisfying(trials, parse_conditions(text, trials)).index) == expected, text


def test_a_value_does_not_end_in_the_middle_of_a_word() -> None:
    trials = pd.DataFrame({"params.optimizer": ["br", "adam"], "params.lr": [0.1, 0.2]})
    with pytest.raises(UsageError):
        parse_conditions("optimizer == brand lr < 1", trials)
