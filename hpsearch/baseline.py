"""How good it is to always give the same answer: a model that is no better than that has learned nothing."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hpsearch.datasets import Dataset, Examples, Split
from hpsearch.measure import ACCURACY, LOSS, Measure
from hpsearch.meters import make_meter

# Classes are uneven where always answering the commonest is right this often, or twice as often as guessing.
UNEVEN = 0.75


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Always giving the same `answer`, and the `value` of its measure on the validation examples.

    `classes` is the number of classes, 0 where targets are numbers.
    """

    answer: str
    value: float
    classes: int
    measure: str
    maximize: bool

    @classmethod
    def from_dict(cls, attrs: Mapping[str, Any]) -> "Baseline":
        """Return what `as_dict` returned; that of earlier versions was of an accuracy."""
        if "accuracy" in attrs:
            answer, value, classes = attrs["answer"], attrs["accuracy"], attrs["classes"]
            return cls(answer=repr(answer), value=value, classes=classes, measure=ACCURACY.name, maximize=True)
        return cls(**attrs)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @property
    def is_uneven(self) -> bool:
        """Whether the classes are so uneven that an accuracy says little without it."""
        return self.classes > 0 and self.value >= min(UNEVEN, 2 / self.classes)

    def beats(self, value: float) -> bool:
        """Whether a model with this value of the measure is no better."""
        return value <= self.value if self.maximize else value >= self.value

    def __str__(self) -> str:
        if self.measure == ACCURACY.name:
            return f"always answering {self.answer}, which is right for {self.value:.4f} of the validation examples"
        return f"always answering {self.answer}, whose {self.measure} is {self.value:.5g} on the validation examples"


def baseline_of(data: Dataset, measure: Measure = ACCURACY) -> Baseline | None:
    """Return the baseline of a measure: of the class that is commonest in training, or of the training targets' mean.

    For a measure of probabilities these are the shares of the classes in training. None where the targets are not in
    memory or do not fit the measure, for a measure that may take anything, and for the loss, which differs by recipe.
    """
    parts = [_targets(examples) for examples in (data.train, data.validation)]
    if parts[0] is None or parts[1] is None or measure == LOSS:
        return None
    train, validation = parts[0], parts[1]
    try:
        if measure.targets == "numbers":
            return _of_numbers(train, validation, measure)
        if measure.targets == "classes":
            return _of_classes(_classes(train), _classes(validation), data.classes, measure)
    # A measure of the user's may not take the outputs that are made here.
    except Exception:
        pass
    return None


def _of_numbers(train: Tensor, validation: Tensor, measure: Measure) -> Baseline | None:
    mean = train.double().mean(dim=0)
    value = _value(measure, mean.expand(validation.shape), validation)
    answer = f"the mean, {mean.item():.5g}" if mean.numel() == 1 else "the mean"
    return _baseline(answer, value, 0, measure)


def _of_classes(train: Tensor, validation: Tensor, classes: tuple[str, ...], measure: Measure) -> Baseline | None:
    # Numbers that name no class may be too large to be counted.
    if int(train.max()) >= len(classes):
        return None
    counts = torch.bincount(train, minlength=len(classes))
    # The first of equals: outputs alike would leave that to the measure.
    outputs = (counts.double().clamp(min=1e-9) / counts.sum()).log()
    value = _value(measure, outputs.expand(len(validation), -1), validation)
    return _baseline(repr(classes[int(counts.argmax())]), value, len(classes), measure)


def _value(measure: Measure, outputs: Tensor, targets: Tensor) -> float:
    meter = make_meter(measure, torch.device("cpu"))
    meter.update(outputs, targets)
    return meter.compute()


def _baseline(answer: str, value: float, classes: int, measure: Measure) -> Baseline | None:
    if not math.isfinite(value):
        return None
    return Baseline(answer=answer, value=value, classes=classes, measure=measure.name, maximize=measure.maximize)


def _targets(examples: Examples) -> Tensor | None:
    """Return the targets of examples that have them in memory, or None."""
    targets: Any = examples.targets if isinstance(examples, Split) else getattr(examples, "targets", None)
    try:
        tensor: Tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        return None
    return tensor if tensor.numel() else None


def _classes(targets: Tensor) -> Tensor:
    """Return the class numbers of targets, one a place where targets have places."""
    if targets.is_floating_point() and targets.dim() == 2 and targets.shape[1] > 1:
        # Probabilities (N, classes).
        return targets.argmax(dim=1)
    if targets.min() < 0 and bool((targets.abs() > 1).any()):
        raise ValueError("a negative number among several classes is one that the loss ignores")
    if targets.is_floating_point() or targets.min() < 0:
        # Two classes, split at zero.
        return (targets > 0).long().flatten()
    return targets.long().flatten()
