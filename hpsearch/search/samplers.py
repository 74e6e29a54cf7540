"""Samplers by name, each trial with a random stream of its own.

Optuna's seeded samplers repeat themselves when a study is resumed. `PerTrialSampler` builds a fresh one for each
trial, seeded by (study seed, trial number): what a trial draws depends on nothing but the seed, its number, and the
finished trials it can see.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import UsageError
from hpsearch.search.options import Named, Positive, Range, Share, Whole, parse
from hpsearch.search.study_view import StudyView, changed
from hpsearch.search.trial_record import has_diverged
from hpsearch.search.trial_space import distribution
from hpsearch.seeding import derive_seed
from hpsearch.space import Params, describe, grid_points
from hpsearch.study import Study as Definition


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


class _Sobol(optuna.samplers.QMCSampler):
    """Trial n gets point n of one Sobol sequence, scrambled by `base_seed`.

    Optuna counts the points in the study instead, which skips one whenever a trial is sampled again, and can jointly
    sample only the parameters that the first trial happened to have; here `space` names them all.
    """

    def __init__(self, seed: int, base_seed: int, scramble: bool, space: Mapping[str, BaseDistribution] | None) -> None:
        super().__init__(
            scramble=scramble,
            seed=base_seed,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )
        self._space = None if space is None else {name: found for name, found in space.items() if not found.single()}
        self._number = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(study, trial) if self._space is None else self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._number = trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


class _TPE(optuna.samplers.TPESampler):
    """TPE that ranks a trial that diverged below all others.

    It has the worst value and is complete; but TPE ranks every complete trial above every pruned one, and would take
    it for a good one where few are complete.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(StudyView(study, _diverged_last), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(StudyView(study, _diverged_last), trial, param_name, param_distribution)


def _diverged_last(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that diverged as one pruned before its first report: the lowest rank there is."""
    if not has_diverged(trial):
        return trial
    return changed(trial, state=TrialState.PRUNED, intermediate_values={})


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _sobol(
    seed: int,
    scramble: bool = True,
    _base_seed: int = 0,
    _space: Mapping[str, BaseDistribution] | None = None,
) -> BaseSampler:
    return _Sobol(seed, _base_seed, scramble, _space)


def _tpe(
    seed: int,
    n_startup_trials: Whole = 10,
    n_ei_candidates: Positive = 24,
    # Optuna's defaults leave conditional parameters out of the joint model; `group` keeps them in.
    multivariate: bool = True,
    group: bool = True,
    constant_liar: bool = True,
) -> BaseSampler:
    return _TPE(
        seed=seed,
        n_startup_trials=n_startup_trials,
        n_ei_candidates=n_ei_candidates,
        multivariate=multivariate,
        group=group and multivariate,
        constant_liar=constant_liar,
    )


def _gp(seed: int, n_startup_trials: Positive = 10, deterministic_objective: bool = False) -> BaseSampler:
    return optuna.samplers.GPSampler(
        seed=seed,
        n_startup_trials=n_startup_trials,
        deterministic_objective=deterministic_objective,
        warn_independent_sampling=False,
    )


def _cmaes(
    seed: int,
    n_startup_trials: Positive = 1,
    popsize: Annotated[int, Range(2)] | None = None,
    consider_pruned_trials: bool = False,
    with_margin: bool = False,
    use_separable_cma: bool = False,
    lr_adapt: bool = False,
) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=n_startup_trials,
        popsize=popsize,
        consider_pruned_trials=consider_pruned_trials,
        with_margin=with_margin,
        use_separable_cma=use_separable_cma,
        lr_adapt=lr_adapt,
        warn_independent_sampling=False,
    )


def _nsga2(
    seed: int,
    # With Optuna's 50, most studies here would end within the first generation, which is random.
    population_size: Annotated[int, Range(2)] = 10,
    mutation_prob: Share | None = None,
    crossover_prob: Share = 0.9,
    swapping_prob: Share = 0.5,
) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(
        seed=seed,
        population_size=population_size,
        mutation_prob=mutation_prob,
        crossover_prob=crossover_prob,
        swapping_prob=swapping_prob,
    )


def _grid(seed: int) -> BaseSampler:
    # The points are handed out with the trials (`Storage.claim`); what an enqueued trial leaves open is drawn.
    return _random(seed)


def _manual(seed: int) -> BaseSampler:
    # Only enqueued trials are run; what they leave open is drawn.
    return _random(seed)


# What a space's conditions do: tpe models each branch; sobol has a coordinate for every parameter; gp, cmaes (which
# takes numbers only) and nsga2 search what all trials have in common and draw the rest at random.
SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _grid,
    "sobol": _sobol,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "manual": _manual,
}


def parse_sampler(text: str) -> Named:
    """Return the sampler that `text` names, such as `tpe` or `tpe:n_startup_trials=5`, with its options.

    Raises UsageError for an unknown name or option, or an option's value that is not allowed.
    """
    named = parse("sampler", text, SAMPLERS)
    make_sampler(named, 0)
    return named


def make_sampler(named: Named, seed: int, study: Definition | None = None) -> BaseSampler:
    """Return a sampler. `study` tells Sobol all the parameters there are.

    Raises UsageError for an option's value that is not allowed.
    """
    options = dict(named.options)
    if named.name == "sobol":
        options["_base_seed"] = _seed32(seed)
        if study is not None:
            options["_space"] = {key: distribution(found.parameter) for key, found in describe(study.trace).items()}
    make = partial(_quietly, SAMPLERS[named.name], options)
    try:
        make(0)
    except (TypeError, ValueError) as error:
        raise UsageError(f"sampler {named.text!r}: {error}") from error
    return PerTrialSampler(make, seed)


def fixed_points(named: Named, study: Definition) -> list[Params] | None:
    """Return the points that a sampler hands out, one to each new trial, or None where it draws them.

    Those of `manual` are none: it runs what is enqueued. Raises UsageError for a grid over a float without `grid=`.
    """
    return {"grid": lambda: grid_points(study.trace), "manual": list}.get(named.name, lambda: None)()


def _quietly(factory: Callable[..., BaseSampler], options: dict[str, Any], seed: int) -> BaseSampler:
    """Return `factory(seed, **options)` without Optuna's warnings that it is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return factory(seed, **options)
