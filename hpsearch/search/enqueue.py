"""Enqueue trials with given params: check them against the space, and queue them for the next run."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpsearch.errors import RequirementNotMet, UsageError
from hpsearch.search.options import read_value
from hpsearch.search.stored_study import StoredStudy
from hpsearch.space import Choice, Described, Float, Parameter, Params, Space, describe, draw, middle
from hpsearch.study import Study
from hpsearch.text import brief, short


def parse_params(texts: Sequence[str], study: Study) -> Params:
    """Parse texts such as `lr=0.01` into params of the space. The sampler draws the parameters that are not given.

    Raises UsageError for a name that is not in the space, a value out of range, a parameter that no trial with these
    values has, and values with which no configuration is found to meet the requirements of the recipe.
    """
    space = describe(study.trace)
    params: Params = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"cannot use {brief(text)}: give name=value, such as lr=0.01")
        if name not in space:
            raise UsageError(f"the study has no parameter {brief(name)}: it has {', '.join(space)}")
        if name in params:
            raise UsageError(f"{name} is given twice: first {name}={params[name]}, then {brief(value)}")
        params[name] = _value(space[name].parameter, value)
    _check_used(study, params, space)
    _check_feasible(study, params)
    return params


def enqueue(stored: StoredStudy, params: Mapping[str, Any]) -> int:
    """Add a waiting trial with `params` to the study, and return its number."""
    study = stored.optuna_study()
    study.enqueue_trial(dict(params))
    return max(trial.number for trial in study.get_trials(deepcopy=False))


def _value(parameter: Parameter, text: str) -> Any:
    """Parse the value of a parameter. Raises UsageError if the parameter cannot have it."""
    if isinstance(parameter, Choice) and text in map(str, parameter.options):
        return next(label for label in parameter.options if str(label) == text)
    return parameter.check(read_value(text))


class _Pinned(Space):
    """A space with fixed `params`; it asks another space for all other parameters."""

    def __init__(self, space: Space, params: Mapping[str, Any]) -> None:
        super().__init__()
        self._space = space
        self._pinned = params

    def require(self, condition: bool, message: str) -> None:
        try:
            self._space.require(condition, message)
        finally:
            self.unmet = self._space.unmet

    def _pick(self, parameter: Parameter) -> Any:
        if parameter.name in self._pinned:
            return parameter.check(self._pinned[parameter.name])
        name = parameter.name
        if isinstance(parameter, Choice):
            return self._space.choice(name, {label: label for label in parameter.options})
        low, high, log, grid = parameter.low, parameter.high, parameter.log, parameter.grid
        if isinstance(parameter, Float):
            return self._space.float(name, low, high, log=log, step=parameter.step, grid=grid)
        return self._space.int(name, parameter.low, parameter.high, log=log, step=parameter.step, grid=parameter.grid)


def _check_feasible(study: Study, params: Mapping[str, Any]) -> None:
    """Raise RequirementNotMet if the params alone do not meet a requirement, UsageError if no others are found to."""

    def recipe(space: Space) -> None:
        study.trace(_Pinned(space, params))

    first = next(draw(recipe, 1, 0.0))
    if first.unmet is not None and not first.params:
        raise RequirementNotMet(first.unmet)
    try:
        middle(recipe)
    except UsageError as error:
        given = " ".join(f"{name}={short(value)}" for name, value in params.items())
        raise UsageError(f"with {given}, {error}") from error


def _check_used(study: Study, params: Mapping[str, Any], conditions: Mapping[str, Described]) -> None:
    """Raise UsageError if the recipe, at some values of the other parameters, does not ask for one of `params`."""
    unused: dict[str, int] = dict.fromkeys(params, 0)
    tried = 0

    def recipe(space: Space) -> object:
        nonlocal tried
        pinned = _Pinned(space, params)
        result = study.trace(pinned)
        tried += 1
        for name in params:
            unused[name] += name not in pinned.params
        return result

    describe(recipe)
    for name, count in unused.items():
        if count == 0:
            continue
        needed = [f"{other}={' or '.join(map(str, values))}" for other, values in conditions[name].conditions.items()]
        when = f"only with {', '.join(needed)}" if needed else "only at some values of the other parameters"
        remedy = "leave it out" if count == tried else "give that too"
        raise UsageError(f"the recipe asks for {name} {when}: {remedy}")
