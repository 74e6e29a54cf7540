"""Samplers by name, each trial with a random stream of its own.

Optuna's seeded samplers repeat themselves when a study is resumed. `PerTrialSampler` builds a fresh one for each
trial, seeded by (study seed, trial number): what a trial draws depends on nothing but the seed, its number, and the
finished trials it can see.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.options import parse
from hpsearch.training import derive_seed


class PerTrialSampler(BaseSampler):
    """Delegates each trial to `make(seed)`, with a seed for the trial.

    Relative (joint) sampling draws from a stream per trial; independent sampling from one per trial and parameter, so
    that a trial cut off between two parameters gets the same rest later.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._current: dict[int, BaseSampler] = {}

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number not in self._current:
            self._current[trial.number] = self._make(_seed32(self._seed, trial.number))
        return self._current[trial.number]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Start the trial's stream."""
        self._current.pop(trial.number, None)
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the space the trial's sampler samples jointly."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample jointly, from the trial's stream."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter, from a stream of its own."""
        sampler = self._make(_seed32(self._seed, trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Let the trial's sampler do its part and forget it."""
        self._of(trial).after_trial(study, trial, state, values)
        self._current.pop(trial.number, None)


def _seed32(*parts: object) -> int:
    return derive_seed(*parts) & 0xFFFFFFFF


def _tpe(seed: int, **options: Any) -> BaseSampler:
    # Optuna's defaults leave conditional parameters out of the joint model; `group` keeps them in.
    options = {"multivariate": True, "group": True, "constant_liar": True} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, **options)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


# The grid's points are handed out with the trials (`Storage.claim`); nothing is left to sample.
SAMPLERS: dict[str, tuple[Callable[..., BaseSampler], Any]] = {
    "tpe": (_tpe, optuna.samplers.TPESampler),
    "random": (_random, _random),
    "grid": (_random, _random),
}


def make_sampler(text: str, seed: int) -> BaseSampler:
    """Return the sampler that `text` names, such as `tpe` or `tpe:n_startup_trials=5`.

    Raises UsageError for an unknown name or option, or an option's value that Optuna refuses.
    """
    name, options = parse("sampler", text, {name: signature for name, (_, signature) in SAMPLERS.items()})
    factory, _ = SAMPLERS[name]
    return PerTrialSampler(lambda trial_seed: factory(trial_seed, **options), seed)
