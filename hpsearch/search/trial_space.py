"""Spaces in Optuna: a trial suggests the params, and each parameter has a distribution."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpsearch.space import Choice, Float, Parameter, Space


class TrialSpace(Space):
    """A space in which an Optuna trial suggests the params. A parameter that the trial already has keeps its value.

    A requirement that is not met does not end the recipe: samplers that model parameters jointly learn only from trials
    that have all of them. It is in `unmet` afterwards, also if the recipe fails because of it.
    """

    goes_on = True

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        super().__init__()
        self._trial = trial

    def _pick(self, parameter: Parameter) -> Any:
        if isinstance(parameter, Choice):
            return self._trial.suggest_categorical(parameter.name, list(parameter.options))
        suggest: Any = self._trial.suggest_float if isinstance(parameter, Float) else self._trial.suggest_int
        return suggest(parameter.name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the distribution that Optuna stores for a parameter suggested by `TrialSpace`."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(list(parameter.options))
    if isinstance(parameter, Float):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
