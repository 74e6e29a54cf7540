"""The live face of `Space`: an Optuna trial suggests."""

from typing import Any

import optuna

from hpsearch.space import Choice, Float, Parameter, Space


class TrialSpace(Space):
    """Asks an Optuna trial. A parameter the trial already has keeps its value."""

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        super().__init__()
        self._trial = trial

    def _pick(self, parameter: Parameter) -> Any:
        if isinstance(parameter, Choice):
            return self._trial.suggest_categorical(parameter.name, list(parameter.options))
        suggest: Any = self._trial.suggest_float if isinstance(parameter, Float) else self._trial.suggest_int
        return suggest(parameter.name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
