"""Successive halving and Hyperband, as functions of what is stored: a trial's reports and those of its competitors.

Optuna's own write to a trial that it passed a rung before they decide, so that a decision lost in a crash is never
made again. These write nothing: asked again, they decide again, and equally so if nothing else has happened.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpsearch.search.study_view import length_of, value_at_share
from hpsearch.seeding import derive_seed


def rungs_of(min_resource: int, reduction_factor: int, longest: int) -> list[int]:
    """Return the intervals at which a trial of `longest` intervals is compared: min_resource, times the factor, ...

    The last interval is no rung: a trial that has reached it ends anyway.
    """
    powers = itertools.takewhile(
        lambda rung: rung < longest, (min_resource * reduction_factor**power for power in itertools.count())
    )
    return list(powers)


def is_promoted(value: float, competing: Sequence[float], reduction_factor: int, *, maximize: bool) -> bool:
    """Whether `value` is among the best 1 in `reduction_factor` of `competing`, which contains it.

    While there are fewer than that many, the best of them is promoted (Li et al., *A system for massively parallel
    hyperparameter tuning*, MLSys 2020, as Optuna does it).
    """
    best = sorted(competing, reverse=maximize)[: max(1, len(competing) // reduction_factor)]
    return value >= best[-1] if maximize else value <= best[-1]


class SuccessiveHalving(BasePruner):
    """At each rung only the best 1 in `reduction_factor` of the trials that came so far go on.

    `longest` is the most intervals that a trial can have. Trials with shorter schedules are compared at equal shares of
    theirs. With fewer than `bootstrap_count` others at a rung no trial passes it.
    """

    def __init__(self, min_resource: int, reduction_factor: int, longest: int, bootstrap_count: int = 0) -> None:
        self.reduction_factor = reduction_factor
        self.longest = longest
        self.bootstrap_count = bootstrap_count
        self.rungs = rungs_of(min_resource, reduction_factor, longest)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after its last report."""
        step, length = trial.last_step, length_of(trial, self.longest)
        # Rounded up, so that a shorter trial has trained at least the rung's share.
        if step is None or step not in {-(-rung * length // self.longest) for rung in self.rungs} - {length}:
            return False
        value = trial.intermediate_values[step]
        if math.isnan(value):
            return True
        others = (other for other in self.competitors(study, trial) if other.number != trial.number)
        found = (value_at_share(other, length_of(other, self.longest), step, length) for other in others)
        competing = [value, *(other for other in found if other is not None and not math.isnan(other))]
        if len(competing) <= self.bootstrap_count:
            return True
        maximize = study.direction == StudyDirection.MAXIMIZE
        return not is_promoted(value, competing, self.reduction_factor, maximize=maximize)

    def competitors(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """Return the trials that `trial` is compared with: all."""
        return study.get_trials(deepcopy=False)


class Hyperband(BasePruner):
    """Brackets of successive halving that start at later and later rungs; each trial is drawn into one of them.

    A trial's bracket follows from the study's seed and its number: the same seed is the same study under any name.
    Shares of the brackets as in Li et al., JMLR 18 (2018), asynchronous as in Optuna.
    """

    def __init__(
        self,
        min_resource: int,
        max_resource: int,
        reduction_factor: int,
        longest: int,
        bootstrap_count: int = 0,
        seed: int = 0,
    ) -> None:
        starts = [rungs[0] for rungs in brackets(min_resource, max_resource, reduction_factor)]
        self.brackets = [_Bracket(self, start, reduction_factor, longest, bootstrap_count) for start in starts]
        self._ends = list(itertools.accumulate(bracket_weights(len(starts), reduction_factor)))
        self._seed = seed
        self.bracket_of = functools.cache(self._bracket_of)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after its last report."""
        return self.brackets[self.bracket_of(trial.number)].prune(study, trial)

    def _bracket_of(self, number: int) -> int:
        drawn = derive_seed(self._seed, "bracket", number) % self._ends[-1]
        return next(bracket for bracket, end in enumerate(self._ends) if drawn < end)


class _Bracket(SuccessiveHalving):
    def __init__(
        self, hyperband: Hyperband, min_resource: int, reduction_factor: int, longest: int, bootstrap_count: int
    ) -> None:
        super().__init__(min_resource, reduction_factor, longest, bootstrap_count)
        self._hyperband = hyperband

    def competitors(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        bracket_of = self._hyperband.bracket_of
        ours = bracket_of(trial.number)
        return [other for other in super().competitors(study, trial) if bracket_of(other.number) == ours]


def brackets(min_resource: int, max_resource: int, reduction_factor: int) -> list[list[int]]:
    """Return for each bracket of Hyperband the resources up to `max_resource` at which it compares trials.

    Bracket s starts s rungs later than bracket 0.
    """
    rungs = [min_resource]
    while rungs[-1] * reduction_factor <= max_resource:
        rungs.append(rungs[-1] * reduction_factor)
    return [rungs[bracket:] for bracket in range(len(rungs))]


def bracket_weights(count: int, reduction_factor: int) -> list[int]:
    """Return how many trials go into each of `count` brackets, in proportion to each other, the first one first."""
    return [-(-count * reduction_factor**later // (later + 1)) for later in reversed(range(count))]
