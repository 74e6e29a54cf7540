"""Successive halving and Hyperband as functions of the stored reports of a trial and its competitors.

Optuna's pruners record in a trial that it has passed a rung before they decide, so that a decision lost in a crash is
never repeated. These pruners write nothing: they can be asked again, and decide the same from the same reports.
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
    """Return the rungs at which a trial of `longest` intervals is compared: `min_resource` times powers of the factor.

    The last interval is not a rung: a trial that has reached it ends anyway.
    """
    powers = itertools.takewhile(
        lambda rung: rung < longest, (min_resource * reduction_factor**power for power in itertools.count())
    )
    return list(powers)


def is_promoted(value: float, competing: Sequence[float], reduction_factor: int, *, maximize: bool) -> bool:
    """Whether `value` is among the best 1 in `reduction_factor` of `competing`, which contains it.

    If `competing` has fewer values than `reduction_factor`, the best is promoted (Li et al., *A system for massively
    parallel hyperparameter tuning*, MLSys 2020, as implemented in Optuna).
    """
    best = sorted(competing, reverse=maximize)[: max(1, len(competing) // reduction_factor)]
    return value >= best[-1] if maximize else value <= best[-1]


class SuccessiveHalving(BasePruner):
    """At each rung, continue only the best 1 in `reduction_factor` of the trials that have reached it so far.

    `longest` is the largest number of intervals of a trial. Trials with shorter schedules are compared at equal shares
    of their schedules. With fewer than `bootstrap_count` other trials at a rung, no trial passes it.
    """

    def __init__(self, min_resource: int, reduction_factor: int, longest: int, bootstrap_count: int = 0) -> None:
        self.reduction_factor = reduction_factor
        self.longest = longest
        self.bootstrap_count = bootstrap_count
        self.rungs = rungs_of(min_resource, reduction_factor, longest)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after its last report."""
        step, length = trial.last_step, length_of(trial, self.longest)
        # Rounded up, so that a shorter trial has trained at least the share of the rung.
        if step is None or step not in {-(-rung * length // self.longest) for rung in self.rungs} - {length}:
            return False
        value = trial.intermediate_values[step]
        if math.isnan(value):
            return True
        others = (other for other in self.competitors(study, trial) if other.number != trial.number)
        values = (value_at_share(other, length_of(other, self.longest), step, length) for other in others)
        competing = [value, *(other for other in values if other is not None and not math.isnan(other))]
        if len(competing) <= self.bootstrap_count:
            return True
        maximize = study.direction == StudyDirection.MAXIMIZE
        return not is_promoted(value, competing, self.reduction_factor, maximize=maximize)

    def competitors(self, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
        """Return the trials with which `trial` is compared: all trials of the study."""
        return study.get_trials(deepcopy=False)


class Hyperband(BasePruner):
    """Brackets of successive halving that start at increasing rungs; each trial is assigned to one at random.

    The bracket of a trial depends only on the seed of the study and the trial's number, not on the study's name. The
    shares of the brackets are those of Li et al., JMLR 18 (2018); the brackets are asynchronous, as in Optuna.
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
    """Return, for each bracket of Hyperband, the resources up to `max_resource` at which it compares trials.

    Bracket s starts s rungs later than bracket 0.
    """
    rungs = [min_resource]
    while rungs[-1] * reduction_factor <= max_resource:
        rungs.append(rungs[-1] * reduction_factor)
    return [rungs[bracket:] for bracket in range(len(rungs))]


def bracket_weights(count: int, reduction_factor: int) -> list[int]:
    """Return the relative number of trials in each of `count` brackets, in their order."""
    return [-(-count * reduction_factor**later // (later + 1)) for later in reversed(range(count))]
