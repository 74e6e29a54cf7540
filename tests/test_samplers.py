"""Samplers: Optuna's own test-suite, and what hpsearch promises beyond it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import Trial
from scipy.stats import qmc

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Study, UsageError
from hpsearch.measure import ACCURACY
from hpsearch.search.samplers import SAMPLERS, _seed32, fixed_points, make_sampler, parse_sampler
from hpsearch.search.trial_space import TrialSpace
from hpsearch.study import load_study
from support import STUDIES

DRAWING = [name for name in SAMPLERS if name not in ("grid", "manual")]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture(params=DRAWING)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return partial(make_sampler, parse_sampler(request.param), seed=0)


class TestRelative(RelativeSamplerTestCase):
    # As in Optuna's own tests, not for CMA-ES, which takes numbers only, nor for TPE's groups, which have to be
    # inferred. The Gaussian process passes as well, in minutes.
    @pytest.fixture(params=["tpe:n_startup_trials=0,group=false", "sobol"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return partial(make_sampler, parse_sampler(request.param), seed=0)


@pytest.fixture(scope="module")
def tiny() -> Study:
    return load_study(str(STUDIES / "tiny.py")).study


def search(study: Study, sampler: str, *parts: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return the params of a search in so many parts, each with a sampler of its own, on a made-up objective."""
    stored = optuna.create_study(direction="maximize")

    def objective(trial: Trial) -> float:
        space = TrialSpace(trial)
        study.trace(space)
        return float(-abs(np.log10(space.params["lr"]) + 2) - space.params["dropout"])

    for trials in parts:
        stored.sampler = make_sampler(parse_sampler(sampler), seed, study)
        stored.optimize(objective, n_trials=trials)
    return [trial.params for trial in stored.trials]


STRATEGIES = ["random", "sobol", "tpe:n_startup_trials=3", "gp:n_startup_trials=4", "cmaes", "nsga2:population_size=3"]


@pytest.mark.parametrize("sampler", STRATEGIES)
def test_a_search_in_two_parts_is_the_search_in_one(tiny: Study, sampler: str) -> None:
    whole = search(tiny, sampler, 9)
    assert search(tiny, sampler, 4, 5) == whole
    assert len({str(params) for params in whole}) == 9
    assert search(tiny, sampler, 9, seed=2) != whole


@pytest.mark.parametrize("sampler", STRATEGIES)
def test_every_sampler_keeps_to_the_conditions_of_the_space(tiny: Study, sampler: str) -> None:
    found = search(tiny, sampler, 12)
    assert {params["optimizer"] for params in found} == {"sgd", "adam"}
    assert all(("momentum" in params) == (params["optimizer"] == "sgd") for params in found)


def test_the_grid_of_the_same_space_has_as_many_points_as_counted_by_hand(tiny: Study) -> None:
    points = fixed_points(parse_sampler("grid"), tiny)
    assert points is not None
    # lr 3 x hidden 2 x dropout 1, with sgd for two momenta and with adam for none.
    assert len(points) == 3 * 2 * 1 * (2 + 1)
    assert len({str(point) for point in points}) == 18
    assert fixed_points(parse_sampler("manual"), tiny) == []
    assert fixed_points(parse_sampler("tpe"), tiny) is None


def test_sobol_gives_trial_n_point_n_of_one_sequence_whoever_asks() -> None:
    def recipe(space: Space) -> Recipe:
        drawn = SGD(lr=space.float("lr", 0.0, 1.0), momentum=space.float("momentum", 0.0, 0.5))
        return Recipe(model=MLP(inputs=2), optimizer=drawn)

    def no_data() -> Dataset:
        raise AssertionError

    study = Study(recipe=recipe, dataset=no_data)
    reference = qmc.Sobol(2, scramble=True, seed=_seed32(5)).random(8) * [1.0, 0.5]
    found = np.array([[params["lr"], params["momentum"]] for params in _asked(study, order=[3, 0, 1, 7, 2, 6, 5, 4])])
    np.testing.assert_allclose(found, reference, rtol=1e-12)


def _asked(study: Study, order: list[int]) -> list[dict[str, Any]]:
    """Return the params of eight trials that are begun in this order, each by a supervisor of its own, one twice."""
    stored = optuna.create_study()
    trials = [stored.ask() for _ in order]
    for number in [order[0], *order]:
        again = optuna.Trial(stored, trials[number]._trial_id)
        stored.sampler = make_sampler(parse_sampler("sobol"), 5, study)
        study.trace(TrialSpace(again))
    return [trial.params for trial in stored.trials]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tep", ["unknown sampler 'tep'", "did you mean tpe", "random, grid, sobol, gp, cmaes, nsga2, manual"]),
        ("tpe:startup=5", ["startup=5", "n_startup_trials", "constant_liar"]),
        ("tpe:n_startup_trials=soon", ["n_startup_trials must be a whole number of at least 0", "'soon'"]),
        ("tpe:n_startup_trials=-1", ["of at least 0", "-1"]),
        ("tpe:group=1", ["group must be true or false", "1"]),
        ("random:seed=3", ["seed=3", "it has no options"]),
        ("sobol:_base_seed=3", ["_base_seed=3", "valid options are scramble"]),
        ("nsga2:population_size=1", ["of at least 2", "1"]),
        ("nsga2:crossover_prob=2", ["from 0 to 1", "2"]),
        ("cmaes:popsize=big", ["popsize must be a whole number of at least 2 or null", "'big'"]),
        ("cmaes:lr_adapt=true,with_margin=true", ["lr_adapt"]),
    ],
)
def test_a_wrong_name_option_or_value_is_answered_with_what_is_right(text: str, expected: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        parse_sampler(text)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in expected)


def test_a_distribution_is_what_a_live_trial_stores(tiny: Study) -> None:
    trial = optuna.create_study().ask()
    tiny.trace(TrialSpace(trial))
    assert trial.distributions["lr"] == FloatDistribution(1e-3, 1.0, log=True)


def diverged_of_the_last_30(sampler: str, seed: int) -> int:
    """Search a space of which a third diverges, next to where it is best, and most of the rest is pruned."""
    made = optuna.create_study(direction="maximize", sampler=make_sampler(parse_sampler(sampler), seed))
    diverged = []
    for number in range(60):
        trial = made.ask()
        x, y = trial.suggest_float("x", 0, 3), trial.suggest_float("y", 0, 1)
        diverged.append(x > 2)
        value = x / 2 - 0.2 * abs(y - 0.5)
        trial.report(value / 2, 1)
        if x > 2:
            trial.set_user_attr("reason", "diverged")
            made.tell(trial, ACCURACY.worst)
        elif number % 4:
            made.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            made.tell(trial, value)
    return sum(diverged[-30:])


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_samplers_learn_where_training_diverges(sampler: str) -> None:
    # Random search: a third, 10. TPE that is told nothing of them: 30.
    assert sum(diverged_of_the_last_30(sampler, seed) for seed in range(2)) / 2 < 10
