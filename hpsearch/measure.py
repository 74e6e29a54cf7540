"""A measure: what a study optimises, its direction, and its bounds.

This module does not import torch, so that a database can be read quickly; `hpsearch.meters` computes measures.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hpsearch.errors import UsageError

Targets = Literal["classes", "numbers", "any"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a model's outputs and the true targets, to be maximised or minimised, from `low` to `high`.

    A study computes it after every interval on the training and on the validation examples, from one of

    - `function`, which is called with all outputs and all targets of the interval or split, tensors (N, ...) on the
      CPU, and returns a number;
    - `metric`, an object with `update(outputs, targets)`, called with each batch, `compute()` and `reset()`, as those
      of torchmetrics.

    `accuracy` and `loss`, which the training loop adds up itself, have neither, nor what a `Training` of your own
    returns. `targets` says what the targets must be: class numbers, numbers, or anything. Raises UsageError for fields
    that are not valid.
    """

    name: str
    maximize: bool
    low: float = -math.inf
    high: float = math.inf
    targets: Targets = "any"
    function: Callable[[Any, Any], Any] | None = None
    metric: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable() or "/" in self.name:
            raise UsageError(f"Measure: name must be a text of one line without /, got {self.name!r}")
        if not isinstance(self.maximize, bool):
            raise UsageError(f"Measure {self.name}: maximize must be True or False, got {self.maximize!r}")
        if not self.low < self.high:
            raise UsageError(f"Measure {self.name}: low must be below high, got {self.low} and {self.high}")
        if self.function is not None and (self.metric is not None or not callable(self.function)):
            raise UsageError(f"Measure {self.name}: give a function of outputs and targets, or a metric, not both")

    @property
    def column(self) -> str:
        """The name as part of a column's name, such as `macro_f1`."""
        return column_of(self.name)

    @property
    def label(self) -> str:
        """The name as that of a study's value, such as "validation accuracy"."""
        return f"validation {self.name}"

    @property
    def worst(self) -> float:
        """The worst possible value: of a trial that diverged."""
        return self.low if self.maximize else self.high

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is: a value times it is the higher the better."""
        return 1 if self.maximize else -1

    @property
    def is_share(self) -> bool:
        """Whether values are from 0 to 1."""
        return self.low == 0 and self.high == 1

    @property
    def best_word(self) -> str:
        """What the best value is: "highest" or "lowest"."""
        return "highest" if self.maximize else "lowest"

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another one, or than none."""
        return than is None or (value > than if self.maximize else value < than)

    def gain(self, value: float, reference: float) -> float:
        """Return by how much a value is better than a reference; negative if it is worse."""
        return self.sign * (value - reference)

    def key(self, value: float) -> float:
        """Return a sort key: the best value first."""
        return -self.sign * value

    def best(self, values: Iterable[float]) -> float | None:
        """Return the best of some values, NaN left out, or None if there is none."""
        return min((value for value in values if value == value), key=self.key, default=None)

    def format(self, value: float) -> str:
        """Return a value as a text: with four decimals, or five significant digits if it may be very small or large."""
        return f"{value:.4f}" if self.high <= 1 or 0.1 <= abs(value) < 1000 else f"{value:.5g}"

    def __str__(self) -> str:
        return f"{self.name}, {'maximised' if self.maximize else 'minimised'}"


def column_of(name: str) -> str:
    """Return the name of a measure as part of a column's name."""
    return "_".join(name.lower().replace("-", " ").split())


ACCURACY = Measure(name="accuracy", maximize=True, low=0.0, high=1.0, targets="classes")
LOSS = Measure(name="loss", maximize=False)
