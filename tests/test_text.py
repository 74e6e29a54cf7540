import pytest

from hpsearch import Steps
from hpsearch.text import brief, duration, plural, short, unit


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00123456, "0.00123"), (1e-9, "1e-09"), (2.0, "2"), (1234567, "1234567"), (True, "True"), ("sgd", "sgd")],
)
def test_short_rounds_floats_alone(value: object, expected: str) -> None:
    assert short(value) == expected


def test_brief_is_the_repr_where_that_is_short() -> None:
    assert brief("lenet") == "'lenet'"
    assert brief([1, 2.5, None]) == "[1, 2.5, None]"


@pytest.mark.parametrize("value", ["x" * 1000, 10**500, b"x" * 1000, object(), {"key" * 100: "value" * 100}])
def test_brief_fits_a_line(value: object) -> None:
    assert len(brief(value)) <= 140
    assert "\n" not in brief(value)


def test_brief_keeps_both_ends_of_a_long_text() -> None:
    cut = brief("first" + "-" * 1000 + "last")
    assert cut.startswith("'first-")
    assert cut.endswith("-last'")
    assert "..." in cut


def test_brief_of_what_python_refuses_to_write() -> None:
    with pytest.raises(ValueError, match="Exceeds the limit"):
        str(10**5000)
    assert "int" in brief(10**5000)
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert len(brief(nested)) < 60


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0:00:00"),
        (0.6, "0:00:01"),
        (3661, "1:01:01"),
        (90_061, "1 day, 1:01:01"),
        (-5, "0:00:00"),
        (float("inf"), "more than a million years"),
        (float("nan"), "more than a million years"),
        (1e30, "more than a million years"),
    ],
)
def test_a_duration_is_in_hours_minutes_and_seconds(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_noun_is_in_the_plural_where_it_is_not_one() -> None:
    assert [plural(number, "seed") for number in (0, 1, 2, 12_345)] == ["0 seeds", "1 seed", "2 seeds", "12,345 seeds"]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(1, "epoch"), ("1", "epoch"), (5, "interval"), (Steps(1), "interval"), ("11", "interval")],
)
def test_an_interval_is_an_epoch_where_it_has_one(interval: object, expected: str) -> None:
    assert unit(interval) == expected
