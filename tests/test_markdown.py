import numpy as np
import pandas as pd
import pytest

from hpsearch.results.markdown import cell, mean_sd, table


def test_a_table_aligns_numbers_to_the_right_and_has_no_index() -> None:
    frame = pd.DataFrame({"optimizer": ["sgd", "adam"], "lr": [0.123456, 1e-5], 3: [1, 20]}, index=[7, 8])
    assert table(frame).splitlines() == [
        "| optimizer | lr | 3 |",
        "| --- | ---: | ---: |",
        "| sgd | 0.123 | 1 |",
        "| adam | 1e-05 | 20 |",
    ]


def test_a_table_without_rows_keeps_its_head() -> None:
    assert table(pd.DataFrame({"a": pd.Series(dtype=str)})) == "| a |\n| --- |"


def test_no_value_breaks_a_row() -> None:
    frame = pd.DataFrame({"text": ["a|b", "two\nlines", None]})
    assert table(frame).splitlines()[2:] == ["| a\\|b |", "| two lines |", "| - |"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (np.float64("nan"), "-"),
        (np.float64(0.98765), "0.988"),
        (1234567, "1234567"),
        (True, "True"),
    ],
)
def test_a_cell_is_short(value: object, expected: str) -> None:
    assert cell(value) == expected


def test_means_have_their_spread_where_there_is_one() -> None:
    assert mean_sd(0.98765, 0.0123) == "0.9877 ± 0.0123"
    assert mean_sd(0.98765, 0.0123, digits=2) == "0.99 ± 0.01"
    assert mean_sd(0.98765, float("nan")) == "0.9877"
