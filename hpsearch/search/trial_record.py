"""The user attributes of a trial that has ended, and the state and value with which a trial ends.

This module does not import torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from hpsearch.measure import Measure

if TYPE_CHECKING:
    from hpsearch.executors import Outcome

# A trial that diverges is complete, with the worst value, because some samplers learn only from complete trials.
DIVERGED = "diverged"
# A trial whose configuration does not meet a requirement of the recipe is not trained. It is stored as failed, so that
# it counts as none of a run's trials; `samplers` shows it to each sampler as one from which it learns.
INFEASIBLE = "infeasible"
# Its error: this and the requirement.
REQUIRES = "requires "
STATES = {
    "target": TrialState.COMPLETE,
    "patience": TrialState.COMPLETE,
    "budget": TrialState.COMPLETE,
    DIVERGED: TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    INFEASIBLE: TrialState.FAIL,
}
# The reasons of trials that another tool finished.
_OTHERS_REASONS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
RETRIES = "retries"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """The user attributes of a trial; those that are unknown are None.

    `best_value` is the best value of the study's measure, reached at interval `best_interval`; `seconds` is the time
    of training. `multiply_adds` and latencies are those of `hpsearch.cost.Cost`.
    """

    best_value: float | None = None
    best_interval: int | None = None
    intervals: int | None = None
    reason: str | None = None
    seconds: float | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    latency_ms: float | None = None
    batch_latency_ms: float | None = None
    retries: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, trial: FrozenTrial, *, maximize: bool) -> "TrialRecord":
        """Return the record of a trial of a study with this direction.

        If another tool finished the trial, the record is derived from its value, its reports and its times.
        """
        attrs: dict[str, Any] = {
            name: value for name, value in trial.user_attrs.items() if isinstance(value, _TYPES.get(name, ()))
        }
        if trial.state.is_finished() and "intervals" not in attrs:
            attrs = _of_another_tool(trial, maximize) | attrs
        return cls(**attrs)


_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "best_value": _NUMBER,
    "best_interval": (int,),
    "intervals": (int,),
    "reason": (str,),
    "seconds": _NUMBER,
    "parameters": (int,),
    "multiply_adds": (int,),
    "latency_ms": _NUMBER,
    "batch_latency_ms": _NUMBER,
    RETRIES: (int,),
    "error": (str,),
}
RECORDED = tuple(field.name for field in fields(TrialRecord))


def _of_another_tool(trial: FrozenTrial, maximize: bool) -> dict[str, Any]:
    reports = {step: value for step, value in trial.intermediate_values.items() if value == value}
    best = min(reports, key=lambda step: (-reports[step] if maximize else reports[step], step), default=None)
    value = trial.values[0] if trial.state == TrialState.COMPLETE and len(trial.values) == 1 else None
    return {
        "best_value": reports.get(best) if value is None and best is not None else value,
        "best_interval": best,
        "intervals": len(reports),
        "reason": _OTHERS_REASONS[trial.state],
        "seconds": trial.duration.total_seconds() if trial.duration is not None else None,
    }


def attrs_of(outcome: "Outcome") -> dict[str, Any]:
    """Return the user attributes of a trial with this outcome, for `TrialRecord.of`."""
    attrs = asdict(outcome)
    if outcome.error is None:
        del attrs["error"]
    return attrs


def final_state(outcome: "Outcome") -> TrialState:
    """Return the state of a trial with this outcome."""
    return STATES[outcome.reason]


def final_value(outcome: "Outcome", reports: Mapping[int, float], worst: float) -> float | None:
    """Return the value of a trial with this outcome, or None if it has none; `worst` is the measure's worst value."""
    if outcome.reason == DIVERGED:
        return worst
    if outcome.reason == "pruned":
        # As in Optuna, the value of a pruned trial is its last report.
        return reports[max(reports)] if reports else None
    return None if final_state(outcome) == TrialState.FAIL else outcome.best_value


def has_diverged(trial: FrozenTrial) -> bool:
    """Whether a complete trial diverged: it then has the worst value and is never the best."""
    return bool(trial.user_attrs.get("reason") == DIVERGED)


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial was turned away because its configuration does not meet a requirement of the recipe."""
    return bool(trial.user_attrs.get("reason") == INFEASIBLE)


def ranked(trials: Iterable[FrozenTrial], measure: Measure) -> list[FrozenTrial]:
    """Return the complete trials that did not diverge, the best value first, equal ones by number."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and not has_diverged(trial))
    return sorted(complete, key=lambda trial: (measure.key(trial.value or 0.0), trial.number))


def trained_intervals(trial: FrozenTrial) -> int:
    """Return the number of intervals that a trial has trained, including the one in which it diverged."""
    return len(trial.intermediate_values) + has_diverged(trial)
