"""Early stopping: whether a trial has reached its target, or no longer improves.

A small state machine over the values of a measure, independent of the model and the training loop. The course's third
reason to stop, an interruption, is handled by the resume point (`hpsearch.checkpoint`).
"""

from dataclasses import dataclass
from typing import Any, Literal

from hpsearch.errors import UsageError
from hpsearch.measure import ACCURACY, Measure

StopReason = Literal["target", "patience"]


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When to end a trial before its last epoch; by default, never.

    `target`: stop once the study's measure of the training *and* of the validation examples reach it: an accuracy of
    at least 0.99, or a loss of at most 0.1.
    `patience`: stop after this many intervals in a row without a relative improvement of the best validation measure by
    more than `min_improvement` (0.01 is one per cent). The best is the last value that counted as an improvement, so
    small gains add up.
    """

    target: float | None = None
    patience: int | None = None
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.target is not None and (isinstance(self.target, bool) or not isinstance(self.target, int | float)):
            raise UsageError(f"early stopping: target must be a number, got {self.target!r}")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"early stopping: patience is a number of intervals, at least 1, got {self.patience}")
        if self.min_improvement < 0:
            raise UsageError(f"early stopping: min_improvement must not be negative, got {self.min_improvement}")

    def check(self, measure: Measure) -> None:
        """Raise UsageError for a target that every value of the measure reaches, or none."""
        if self.target is None:
            return
        low, high = measure.low, measure.high
        if not (low < self.target <= high if measure.maximize else low <= self.target < high):
            bounds = f"({low:g}, {high:g}]" if measure.maximize else f"[{low:g}, {high:g})"
            raise UsageError(f"early stopping: target is a value of {measure.name} in {bounds}, got {self.target}")


class Stopper:
    """The state of one trial's `EarlyStopping` rules, updated with the values of its measure."""

    def __init__(self, rules: EarlyStopping, measure: Measure = ACCURACY) -> None:
        self.rules = rules
        self.measure = measure
        self.reference: float | None = None
        self.without_improvement = 0
        self.reason: StopReason | None = None

    def update(self, train: float, validation: float) -> StopReason | None:
        """Take the measure's values after an interval; return the reason to stop, or None to continue."""
        if self._has_improved(validation):
            self.reference = validation
            self.without_improvement = 0
        else:
            self.without_improvement += 1
        target = self.rules.target
        if target is not None and all(self.measure.gain(value, target) >= 0 for value in (train, validation)):
            self.reason = "target"
        elif self.rules.patience is not None and self.without_improvement >= self.rules.patience:
            self.reason = "patience"
        return self.reason

    def _has_improved(self, value: float) -> bool:
        if self.reference is None:
            return True
        # Towards better, whatever the sign of the reference.
        share = (
            self.rules.min_improvement if (self.reference > 0) == self.measure.maximize else -self.rules.min_improvement
        )
        return self.measure.is_better(value, self.reference * (1 + share))

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue as if never interrupted."""
        return {
            "reference": self.reference,
            "without_improvement": self.without_improvement,
            "reason": self.reason,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.reference = state["reference"]
        self.without_improvement = state["without_improvement"]
        self.reason = state.get("reason")
