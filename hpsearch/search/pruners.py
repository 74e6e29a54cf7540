"""Pruners by name.

Their steps and resources are counted in intervals of the study.
"""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from hpsearch.errors import UsageError
from hpsearch.own_training import Training
from hpsearch.search.halving import Hyperband, SuccessiveHalving, bracket_weights, brackets, rungs_of
from hpsearch.search.options import Named, Positive, Range, Rest, Whole, parse
from hpsearch.search.study_view import StudyView, aligned, length_of
from hpsearch.study import Recipe, Steps, Study
from hpsearch.text import plural
from hpsearch.training import steps_per_epoch

# The number of intervals while only the options of a pruner are checked.
UNKNOWN = 1_000_000
Percent = Annotated[float, Range(0, 100)]
Factor = Annotated[int, Range(2)]


class EqualShares(BasePruner):
    """Wraps `pruner` so that it compares trials at equal shares of their schedules, which may differ in length.

    `longest` is the largest number of intervals of a trial.
    """

    def __init__(self, pruner: BasePruner, longest: int) -> None:
        self.pruner = pruner
        self.longest = longest

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to stop a trial after its last report."""
        length = length_of(trial, self.longest)
        view = StudyView(study, lambda other: aligned(other, length_of(other, self.longest), length))
        return bool(self.pruner.prune(view, trial))


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """The properties of a study that pruners need: the largest number of intervals of a trial, and the seed."""

    intervals: int
    seed: int


# The first parameter of each function is not an option.


def _median(
    info: StudyInfo,
    n_startup_trials: Whole = 5,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
    n_min_trials: Positive = 1,
) -> BasePruner:
    pruner = optuna.pruners.MedianPruner(n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials)
    return EqualShares(pruner, info.intervals)


def _percentile(
    info: StudyInfo,
    percentile: Percent = 25.0,
    n_startup_trials: Whole = 5,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
    n_min_trials: Positive = 1,
) -> BasePruner:
    pruner = optuna.pruners.PercentilePruner(
        percentile, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials
    )
    return EqualShares(pruner, info.intervals)


def _asha(
    info: StudyInfo,
    min_resource: Positive = 1,
    reduction_factor: Factor = 4,
    min_early_stopping_rate: Whole = 0,
    bootstrap_count: Whole = 0,
) -> BasePruner:
    first = min_resource * reduction_factor**min_early_stopping_rate
    return SuccessiveHalving(first, reduction_factor, info.intervals, bootstrap_count)


def _hyperband(
    info: StudyInfo,
    min_resource: Positive | None = None,
    max_resource: Positive | None = None,
    reduction_factor: Factor = 3,
    bootstrap_count: Whole = 0,
) -> BasePruner:
    least, most = _resources(info.intervals, min_resource, max_resource)
    if least > most:
        raise ValueError(f"min_resource must not exceed the most intervals of a trial, {most}; got {least}")
    return Hyperband(least, most, reduction_factor, info.intervals, bootstrap_count, info.seed)


def _resources(intervals: int, least: int | None, most: int | None) -> tuple[int, int]:
    """Return Hyperband's smallest and largest resource, by default a tenth of a trial's intervals, and all of them.

    Earlier values predict the final one poorly, especially if the schedule first increases the step size.
    """
    most = most or intervals
    return least or max(1, most // 10), most


def _patient(
    info: StudyInfo,
    patience: Whole = 3,
    min_delta: Annotated[float, Range(0)] = 0.0,
    wrapped: Rest | None = None,
) -> BasePruner:
    inner = None if wrapped is None else make_pruner(parse_pruner(wrapped), info.intervals, info.seed)
    return optuna.pruners.PatientPruner(inner, patience, min_delta)


def _threshold(
    info: StudyInfo,
    lower: float | None = None,
    upper: float | None = None,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
) -> BasePruner:
    if lower is None and upper is None:
        raise ValueError("give a value below or above which to prune: threshold:lower=0.5,n_warmup_steps=3")
    return optuna.pruners.ThresholdPruner(lower, upper, n_warmup_steps, interval_steps)


def _none(info: StudyInfo) -> BasePruner:
    return optuna.pruners.NopPruner()


PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": _median,
    "percentile": _percentile,
    "asha": _asha,
    "hyperband": _hyperband,
    "patient": _patient,
    "threshold": _threshold,
    "none": _none,
}


def parse_pruner(text: str) -> Named:
    """Parse a pruner and its options, such as `median` or `median:n_warmup_steps=3`.

    Raises UsageError for an unknown name or option, or an option's value that is not allowed.
    """
    named = parse("pruner", text, PRUNERS)
    make_pruner(named)
    return named


def make_pruner(named: Named, intervals: int = UNKNOWN, seed: int = 0) -> BasePruner:
    """Return a pruner for a study with the given seed, whose trials have at most `intervals` intervals.

    Raises UsageError for an option's value that is not allowed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return PRUNERS[named.name](StudyInfo(intervals=intervals, seed=seed), **named.options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"pruner {named.text!r}: {error}") from error


def all_options(named: Named) -> dict[str, Any]:
    """Return all options of a pruner, with defaults for those not given."""
    parameters = list(inspect.signature(PRUNERS[named.name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters} | dict(named.options)


def same_pruner(one: Named, other: Named) -> bool:
    """Whether two pruners have the same name and the same options, defaults included."""
    return one.name == other.name and all_options(one) == all_options(other)


def intervals_of(recipe: Recipe | Training, study: Study, examples: int) -> int:
    """Return the number of intervals of a trial, with `examples` training examples."""
    epochs = recipe.epochs or study.epochs
    if isinstance(study.interval, Steps):
        if isinstance(recipe, Training):
            raise UsageError(f"a Training counts epochs, but the study's interval is {study.interval}")
        return -(-epochs * steps_per_epoch(recipe, examples) // study.interval.count)
    return -(-epochs // study.interval)


def most_intervals(study: Study, examples: int) -> int:
    """Return the largest number of intervals of a trial over the space, with `examples` training examples."""
    counts = [1]
    study.explore(lambda space, recipe: counts.append(intervals_of(recipe, study, examples)))
    return max(counts)


def rung_plan(named: Named, intervals: int, unit: str = "interval") -> str | None:
    """Return the rungs of a Hyperband pruner in one line, or None for another pruner.

    `unit` is the name of an interval.
    """
    if named.name != "hyperband":
        return None
    options = named.options
    least, most = _resources(intervals, options.get("min_resource"), options.get("max_resource"))
    factor = options.get("reduction_factor", 3)
    plan = brackets(least, most, factor)
    weights = bracket_weights(len(plan), factor)
    shares = []
    for weight, rungs in zip(weights, plan, strict=True):
        # Trials are also compared beyond max_resource.
        when = ", ".join(map(str, rungs_of(rungs[0], factor, intervals)))
        shares.append(f"{weight / sum(weights):.0%} of trials " + (f"after {when}" if when else "never"))
    return (
        f"hyperband over {plural(intervals, unit)}: the best 1 in {factor} continue; comparisons: {'; '.join(shares)}"
    )
