"""Pruners by name.

Steps and resources are a study's intervals.
"""

import warnings
from collections.abc import Callable
from typing import Annotated

import optuna
from optuna.pruners import BasePruner

from hpsearch.errors import UsageError
from hpsearch.search.options import Positive, Range, Whole, parse
from hpsearch.space import Space, describe
from hpsearch.study import Recipe, Steps, Study

# Stands for the intervals of a study while a name is only checked.
UNKNOWN = 1_000_000
Percent = Annotated[float, Range(0, 100)]
Factor = Annotated[int, Range(2)]


class _Hyperband(optuna.pruners.HyperbandPruner):
    """Hyperband whose brackets exist from the start: Optuna's sorts trials into them from the first report on."""

    def __init__(self, min_resource: int, max_resource: int, reduction_factor: int, bootstrap_count: int) -> None:
        super().__init__(min_resource, max_resource, reduction_factor, bootstrap_count)
        self._n_brackets = len(brackets(min_resource, max_resource, reduction_factor))
        self._try_initialization(None)  # type: ignore[arg-type]  # The study serves max_resource="auto" only.


# The first parameter of each is the most intervals a trial of the study can have.


def _median(
    intervals: int,
    n_startup_trials: Whole = 5,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
    n_min_trials: Positive = 1,
) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials)


def _percentile(
    intervals: int,
    percentile: Percent = 25.0,
    n_startup_trials: Whole = 5,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
    n_min_trials: Positive = 1,
) -> BasePruner:
    return optuna.pruners.PercentilePruner(
        percentile, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials
    )


def _asha(
    intervals: int,
    min_resource: Positive = 1,
    reduction_factor: Factor = 4,
    min_early_stopping_rate: Whole = 0,
    bootstrap_count: Whole = 0,
) -> BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource, reduction_factor, min_early_stopping_rate, bootstrap_count
    )


def _hyperband(
    intervals: int,
    min_resource: Positive = 1,
    max_resource: Positive | None = None,
    reduction_factor: Factor = 3,
    bootstrap_count: Whole = 0,
) -> BasePruner:
    most = max_resource or intervals
    if min_resource > most:
        raise ValueError(f"min_resource must not exceed the most intervals of a trial, {most}; got {min_resource}")
    return _Hyperband(min_resource, most, reduction_factor, bootstrap_count)


def _patient(
    intervals: int,
    patience: Whole = 3,
    min_delta: Annotated[float, Range(0)] = 0.0,
    wrapped: str | None = None,
) -> BasePruner:
    inner = None if wrapped is None else make_pruner(wrapped, intervals)
    return optuna.pruners.PatientPruner(inner, patience, min_delta)


def _threshold(
    intervals: int,
    lower: float | None = None,
    upper: float | None = None,
    n_warmup_steps: Whole = 0,
    interval_steps: Positive = 1,
) -> BasePruner:
    if lower is None and upper is None:
        raise ValueError("it needs an accuracy to prune below: threshold:lower=0.5,n_warmup_steps=3")
    return optuna.pruners.ThresholdPruner(lower, upper, n_warmup_steps, interval_steps)


def _none(intervals: int) -> BasePruner:
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


def make_pruner(text: str, intervals: int = UNKNOWN) -> BasePruner:
    """Return the pruner that `text` names, such as `median` or `median:n_warmup_steps=3`.

    `intervals` is the most a trial of the study can have (`most_intervals`). Raises UsageError for an unknown name or
    option, or an option's value that is not allowed.
    """
    name, options = parse("pruner", text, PRUNERS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return PRUNERS[name](intervals, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"pruner {text!r}: {error}") from error


def most_intervals(study: Study, examples: int) -> int:
    """Return the most intervals that a trial can have, over the space, with `examples` to train on."""
    found = [1]

    def recipe(space: Space) -> Recipe:
        drawn = study.trace(space)
        epochs = drawn.epochs or study.epochs
        if isinstance(study.interval, Steps):
            found.append(-(-epochs * -(-examples // drawn.batch_size) // study.interval.count))
        else:
            found.append(-(-epochs // study.interval))
        return drawn

    describe(recipe)
    return max(found)


def brackets(min_resource: int, max_resource: int, reduction_factor: int) -> list[list[int]]:
    """Return for each bracket of Hyperband the intervals at which it compares, and stops, trials.

    Bracket s starts s rungs later than bracket 0 (Li et al., JMLR 18, 2018; asynchronous as in Optuna).
    """
    rungs = [min_resource]
    while rungs[-1] * reduction_factor <= max_resource:
        rungs.append(rungs[-1] * reduction_factor)
    return [rungs[bracket:] for bracket in range(len(rungs))]


def rung_plan(text: str, intervals: int) -> str | None:
    """Return what the Hyperband pruner that `text` names is going to do, in a line; None for another pruner."""
    name, options = parse("pruner", text, PRUNERS)
    if name != "hyperband":
        return None
    most = options.get("max_resource") or intervals
    factor = options.get("reduction_factor", 3)
    plan = brackets(options.get("min_resource", 1), most, factor)
    weights = [-(-len(plan) * factor ** (len(rungs) - 1) // len(rungs)) for rungs in plan]
    shares = [
        f"{weight / sum(weights):.0%} of trials after {', '.join(str(rung) for rung in rungs if rung < most) or '-'}"
        for weight, rungs in zip(weights, plan, strict=True)
    ]
    return f"hyperband, of {most} intervals: the best 1 in {factor} go on; compared are {'; '.join(shares)}"
