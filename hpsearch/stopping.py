"""Early stopping: whether a trial has reached its target, or no longer improves.

A small state machine over accuracies, independent of the model and the training loop. The course's third reason to
stop, an interruption, is handled by the resume point (`hpsearch.checkpoint`).
"""

from dataclasses import dataclass
from typing import Any, Literal

from hpsearch.errors import UsageError

StopReason = Literal["target", "patience"]


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When to end a trial before its last epoch; by default, never.

    `target`: stop once training *and* validation accuracy (0 to 1) reach it.
    `patience`: stop after this many intervals in a row without a relative improvement of the best validation
    accuracy by more than `min_improvement` (0.01 is one per cent). The best is the last accuracy that counted as an
    improvement, so small gains add up.
    """

    target: float | None = None
    patience: int | None = None
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.target is not None and not 0 < self.target <= 1:
            raise UsageError(f"early stopping: target is an accuracy in (0, 1], got {self.target}")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"early stopping: patience is a number of intervals, at least 1, got {self.patience}")
        if self.min_improvement < 0:
            raise UsageError(f"early stopping: min_improvement must not be negative, got {self.min_improvement}")


class Stopper:
    """The state of one trial's `EarlyStopping` rules, updated with its accuracies."""

    def __init__(self, rules: EarlyStopping) -> None:
        self.rules = rules
        self.reference = float("-inf")
        self.without_improvement = 0
        self.reason: StopReason | None = None

    def update(self, train_accuracy: float, validation_accuracy: float) -> StopReason | None:
        """Take one interval's accuracies; return the reason to stop, or None to continue."""
        if validation_accuracy > self.reference * (1 + self.rules.min_improvement):
            self.reference = validation_accuracy
            self.without_improvement = 0
        else:
            self.without_improvement += 1
        if self.rules.target is not None and min(train_accuracy, validation_accuracy) >= self.rules.target:
            self.reason = "target"
        elif self.rules.patience is not None and self.without_improvement >= self.rules.patience:
            self.reason = "patience"
        return self.reason

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
