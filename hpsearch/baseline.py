"""The accuracy of always giving the same answer: a model that is no better than that has learned nothing."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpsearch.datasets import Dataset, Examples, Split

# Classes are uneven where always answering the commonest is right this often, or twice as often as guessing.
UNEVEN = 0.75


@dataclass(frozen=True)
class Baseline:
    """Always answering the class `answer`, which is right for the share `accuracy` of the validation examples."""

    answer: str
    accuracy: float
    classes: int

    @property
    def is_uneven(self) -> bool:
        """Whether the classes are so uneven that an accuracy says little without it."""
        return self.accuracy >= min(UNEVEN, 2 / self.classes)

    def beats(self, accuracy: float) -> bool:
        """Whether a model of this accuracy is no better."""
        return accuracy <= self.accuracy

    def __str__(self) -> str:
        return f"always answering {self.answer!r}, which is right for {self.accuracy:.4f} of the validation examples"


def baseline_of(data: Dataset) -> Baseline | None:
    """Return the baseline of the class that is commonest in training, the first of equals.

    None where the targets are not in memory, or name no class: as those of torch data sets without `targets`.
    """
    train, validation = _classes(data.train), _classes(data.validation)
    # Numbers that name no class may be too large to be counted.
    if train is None or validation is None or int(train.max()) >= len(data.classes):
        return None
    commonest = int(torch.bincount(train).argmax())
    accuracy = float((validation == commonest).double().mean())
    return Baseline(answer=data.classes[commonest], accuracy=accuracy, classes=len(data.classes))


def _classes(examples: Examples) -> Tensor | None:
    """Return the class numbers of examples (one a place where targets have places), or None."""
    targets: Any = examples.targets if isinstance(examples, Split) else getattr(examples, "targets", None)
    try:
        tensor: Tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        return None
    if tensor.numel() == 0:
        return None
    if tensor.is_floating_point() and tensor.dim() == 2 and tensor.shape[1] > 1:
        # Probabilities (N, classes).
        return tensor.argmax(dim=1)
    if tensor.is_floating_point() or tensor.min() < 0:
        # Two classes, split at zero.
        return (tensor > 0).long().flatten()
    return tensor.long().flatten()
