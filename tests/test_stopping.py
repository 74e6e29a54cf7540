from typing import Any

import pytest

from hpsearch import EarlyStopping, UsageError
from hpsearch.measure import ACCURACY
from hpsearch.stopping import Stopper


def verdicts(rules: EarlyStopping, accuracies: list[tuple[float, float]]) -> list[str | None]:
    """Return what a stopper says to each (training, validation) accuracy."""
    stopper = Stopper(rules)
    return [stopper.update(*pair) for pair in accuracies]


def validation(*accuracies: float) -> list[tuple[float, float]]:
    return [(0.0, accuracy) for accuracy in accuracies]


def test_without_rules_a_trial_never_stops() -> None:
    assert verdicts(EarlyStopping(), [(1.0, 1.0), *validation(*[0.1] * 50)]) == [None] * 51


def test_target_needs_training_and_validation() -> None:
    accuracies = [(0.95, 0.80), (0.80, 0.95), (0.89, 0.89), (0.90, 0.90)]
    assert verdicts(EarlyStopping(target=0.9), accuracies) == [None, None, None, "target"]


def test_target_of_one() -> None:
    assert verdicts(EarlyStopping(target=1.0), [(1.0, 0.999), (1.0, 1.0)]) == [None, "target"]


def test_patience_counts_intervals_in_a_row() -> None:
    #            better  1     2     better  1    2    3 in a row
    accuracies = [0.5, 0.4, 0.5, 0.6, 0.6, 0.1, 0.59]
    assert verdicts(EarlyStopping(patience=3), validation(*accuracies)) == [None] * 6 + ["patience"]


def test_patience_of_one_stops_at_the_first_interval_that_is_not_better() -> None:
    assert verdicts(EarlyStopping(patience=1), validation(0.1, 0.2, 0.2)) == [None, None, "patience"]


def test_the_first_interval_is_an_improvement_even_at_zero() -> None:
    assert verdicts(EarlyStopping(patience=1), validation(0.0, 0.0)) == [None, "patience"]


def test_min_improvement_is_relative_to_the_best() -> None:
    rules = EarlyStopping(patience=2, min_improvement=0.1)
    # From 0.2, 0.21 is five per cent and 0.23 fifteen; from 0.23, 0.25 is nine per cent, 0.24 four.
    assert verdicts(rules, validation(0.2, 0.21, 0.23, 0.25, 0.24)) == [None, None, None, None, "patience"]
    # The same absolute gains are less than ten per cent of 0.8.
    assert verdicts(rules, validation(0.8, 0.81, 0.83)) == [None, None, "patience"]


def test_an_improvement_of_exactly_min_improvement_is_not_more_than_it() -> None:
    assert verdicts(EarlyStopping(patience=1, min_improvement=0.5), validation(0.5, 0.75)) == [None, "patience"]


def test_small_gains_add_up() -> None:
    # 0.506 is more than one per cent above 0.5, the last accuracy that counted, though not above 0.504.
    rules = EarlyStopping(patience=2, min_improvement=0.01)
    assert verdicts(rules, validation(0.5, 0.504, 0.506, 0.506, 0.506)) == [None, None, None, None, "patience"]


def test_a_nan_is_no_improvement_and_no_target() -> None:
    nan = float("nan")
    assert verdicts(EarlyStopping(patience=1, target=0.5), [(0.1, 0.1), (nan, nan)]) == [None, "patience"]


def test_target_comes_before_patience() -> None:
    rules = EarlyStopping(target=0.5, patience=1)
    assert verdicts(rules, [(0.4, 0.6), (0.5, 0.6)]) == [None, "target"]


@pytest.mark.parametrize("interrupted_after", range(7))
def test_a_restored_stopper_goes_on_as_the_uninterrupted_one(interrupted_after: int) -> None:
    rules = EarlyStopping(target=0.99, patience=3, min_improvement=0.02)
    accuracies = validation(0.5, 0.505, 0.6, 0.6, 0.605, 0.61)
    expected = [None] * 5 + ["patience"]
    assert verdicts(rules, accuracies) == expected

    before = Stopper(rules)
    said = [before.update(*pair) for pair in accuracies[:interrupted_after]]
    after = Stopper(rules)
    after.load_state_dict(before.state_dict())
    said += [after.update(*pair) for pair in accuracies[interrupted_after:]]
    assert said == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 0.0}, r"target is a value of accuracy in \(0, 1\], got 0\.0"),
        ({"target": 99}, "target .* got 99"),
        ({"target": float("nan")}, "target .* got nan"),
        ({"patience": 0}, "patience .* at least 1, got 0"),
        ({"min_improvement": -0.1}, "min_improvement must not be negative, got -0.1"),
    ],
)
def test_a_wrong_rule_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EarlyStopping(**settings).check(ACCURACY)
