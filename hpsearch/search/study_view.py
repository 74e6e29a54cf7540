"""Views of an Optuna study, in which a sampler or pruner gets modified copies of the trials."""

import copy
from collections.abc import Callable, Container
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

# A system attribute: the intervals of a trial whose schedule is shorter than the longest of its study.
INTERVALS = "hpsearch:intervals"


class StudyView(optuna.Study):
    """A view of `study` in which `transform` is applied to every trial, and may change its state.

    Writes go to the storage of the study.
    """

    def __init__(self, study: optuna.Study, transform: Callable[[FrozenTrial], FrozenTrial]) -> None:
        # It shares the connection, cache and sampler of the study.
        self.__dict__.update(study.__dict__)
        self._transform = transform

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # The state is one of the things that may be changed.
        trials = map(self._transform, super()._get_trials(deepcopy, None, use_cache))
        return [trial for trial in trials if states is None or trial.state in states]


def changed(trial: FrozenTrial, **attributes: Any) -> FrozenTrial:
    """Return a copy of a trial with some attributes replaced."""
    copied = copy.copy(trial)
    for name, value in attributes.items():
        setattr(copied, name, value)
    return copied


def length_of(trial: FrozenTrial, longest: int) -> int:
    """Return the number of intervals of a trial's whole schedule; `longest` is the largest one of the study."""
    length: int = trial.system_attrs.get(INTERVALS, longest)
    return length


def value_at_share(trial: FrozenTrial, length: int, step: int, of: int) -> float | None:
    """Return the value that a trial of `length` intervals reported at the share `step` / `of` of its schedule, or None.

    The step is rounded down; trials of equal length are compared at the same step.
    """
    return trial.intermediate_values.get(step * length // of)


def aligned(trial: FrozenTrial, length: int, of: int) -> FrozenTrial:
    """Return a trial of `length` intervals as one of `of` intervals, its reports at equal shares of the schedule."""
    if length == of:
        return trial
    values = {step: value_at_share(trial, length, step, of) for step in range(1, of + 1)}
    return changed(trial, intermediate_values={step: value for step, value in values.items() if value is not None})
