"""An Optuna study as a sampler or pruner is to see it: the same study, some of its trials shown changed."""

import copy
from collections.abc import Callable, Container
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

# A system attribute: the intervals of a trial whose schedule is shorter than the longest of its study.
INTERVALS = "hpsearch:intervals"


class StudyView(optuna.Study):
    """`study` with every trial as `show` returns it. What is written through it goes to the study's own storage."""

    def __init__(self, study: optuna.Study, show: Callable[[FrozenTrial], FrozenTrial]) -> None:
        # No connection, cache or sampler of its own.
        self.__dict__.update(study.__dict__)
        self._show = show

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [self._show(trial) for trial in super()._get_trials(deepcopy, states, use_cache)]


def changed(trial: FrozenTrial, **attributes: Any) -> FrozenTrial:
    """Return a copy of a trial with other attributes."""
    shown = copy.copy(trial)
    for name, value in attributes.items():
        setattr(shown, name, value)
    return shown


def length_of(trial: FrozenTrial, longest: int) -> int:
    """Return how many intervals a trial's whole schedule has, in a study where `longest` is the most."""
    length: int = trial.system_attrs.get(INTERVALS, longest)
    return length


def value_at_share(trial: FrozenTrial, length: int, step: int, of: int) -> float | None:
    """Return what a trial of `length` intervals had reported at the share `step` / `of` of its schedule, or None.

    That is its last report up to there; trials of equal length are compared at the same step.
    """
    return trial.intermediate_values.get(step * length // of)


def aligned(trial: FrozenTrial, length: int, of: int) -> FrozenTrial:
    """Return a trial of `length` intervals as one of `of` intervals, its reports at equal shares of the schedule."""
    if length == of:
        return trial
    values = {step: value_at_share(trial, length, step, of) for step in range(1, of + 1)}
    return changed(trial, intermediate_values={step: value for step, value in values.items() if value is not None})
