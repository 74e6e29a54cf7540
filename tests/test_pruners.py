"""Pruners: their names and options, Hyperband's plan, and that each one does its work in a run."""

from pathlib import Path

import pytest

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Steps, Study, UsageError
from hpsearch.search.comparison import Comparison, Pair, train_pair
from hpsearch.search.pruners import PRUNERS, make_pruner, most_intervals, parse_pruner, rung_plan
from hpsearch.study import load_study
from support import STUDIES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("axe", ["unknown pruner 'axe'", "median, percentile, asha, hyperband, patient, threshold, none"]),
        ("hyperbnd", ["did you mean hyperband"]),
        ("asha:factor=3", ["factor=3", "reduction_factor"]),
        ("asha:reduction_factor=1", ["of at least 2", "1"]),
        ("percentile:percentile=120", ["from 0 to 100", "120"]),
        ("median:n_startup_trials=2.5", ["a whole number", "2.5"]),
        ("hyperband:min_resource=30", ["min_resource", "20", "30"]),
        ("threshold", ["threshold:lower=0.5"]),
        ("patient:wrapped=axe", ["unknown pruner 'axe'"]),
        ("patient:patience=1,wrapped=median:n_startup_trials=2,x=3", ["pruner median", "'x=3'"]),
        ("none:x=1", ["x=1", "it has no options"]),
    ],
)
def test_a_wrong_name_option_or_value_is_answered_with_what_is_right(text: str, expected: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        make_pruner(parse_pruner(text), 20)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in expected)


def test_the_plan_says_who_is_compared_when() -> None:
    # The first comparison is after a tenth of a trial.
    assert rung_plan(parse_pruner("hyperband"), 20) == (
        "hyperband over 20 intervals: the best 1 in 3 continue; comparisons: 53% of trials after 2, 6, 18; "
        "29% of trials after 6, 18; 18% of trials after 18"
    )
    assert rung_plan(parse_pruner("hyperband"), 9) == rung_plan(parse_pruner("hyperband:min_resource=1"), 9)
    assert rung_plan(parse_pruner("hyperband:min_resource=1"), 20) == (
        "hyperband over 20 intervals: the best 1 in 3 continue; comparisons: 53% of trials after 1, 3, 9; "
        "29% of trials after 3, 9; 18% of trials after 9"
    )
    # Optuna goes on comparing beyond max_resource; what a trial does not reach is not announced.
    assert rung_plan(parse_pruner("hyperband:max_resource=9"), 20) == (
        "hyperband over 20 intervals: the best 1 in 3 continue; comparisons: 53% of trials after 1, 3, 9; "
        "29% of trials after 3, 9; 18% of trials after 9"
    )
    assert str(rung_plan(parse_pruner("hyperband:min_resource=1,max_resource=81"), 20)).endswith(
        "after 1, 3, 9; 24% of trials after 3, 9; 10% of trials after 9; 6% of trials never; 3% of trials never"
    )
    assert rung_plan(parse_pruner("median"), 20) is None


def test_a_wrapped_pruner_has_all_its_options() -> None:
    pruner = make_pruner(parse_pruner("patient:patience=1,wrapped=median:n_startup_trials=2,n_warmup_steps=3"), 20)
    inner = pruner._wrapped_pruner.pruner  # type: ignore[attr-defined]
    assert (pruner._patience, inner._n_startup_trials, inner._n_warmup_steps) == (1, 2, 3)  # type: ignore[attr-defined]


def test_the_most_intervals_of_a_trial_are_over_the_whole_space() -> None:
    def no_data() -> Dataset:
        raise AssertionError

    def recipe(space: Space) -> Recipe:
        return Recipe(
            model=MLP(inputs=2),
            optimizer=SGD(lr=0.1),
            batch_size=space.choice("batch_size", [10, 50]),
            epochs=space.int("epochs", 2, 7),
        )

    # 7 epochs of 10 batches of 10 examples, by intervals of 2 epochs and of 15 batches.
    assert most_intervals(Study(recipe=recipe, dataset=no_data, interval=2), 100) == 4
    assert most_intervals(Study(recipe=recipe, dataset=no_data, interval=Steps(15)), 100) == 5


# Which intervals a pruned trial can end at, of 8.
ENDS = {
    "median:n_startup_trials=2": set(range(1, 9)),
    "percentile:percentile=75,n_startup_trials=2": set(range(1, 9)),
    "asha:reduction_factor=2": {1, 2, 4, 8},
    "hyperband:reduction_factor=2": {1, 2, 4, 8},
    "patient:patience=1": set(range(2, 9)),
    "patient:patience=0,wrapped=asha": set(range(2, 9)),
    "threshold:lower=0.9,n_warmup_steps=3": {3},
    "none": set(),
}


@pytest.mark.parametrize("pruner", ENDS)
def test_every_pruner_prunes_where_it_should(tmp_path: Path, pruner: str) -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    data = study_file.study.load_data()
    pair = Pair(name="pruned", strategy=f"random+{pruner}", repeat=1, seed=0)
    comparison = Comparison(
        study_file=study_file, storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs", budget=40
    )
    stored = train_pair(pair, comparison, data).stored
    pruned = [trial for trial in stored.optuna_study().trials if trial.user_attrs.get("reason") == "pruned"]
    assert {trial.last_step for trial in pruned} <= ENDS[pruner]
    assert bool(pruned) == (pruner != "none")
    assert {name.partition(":")[0] for name in ENDS} == set(PRUNERS)
