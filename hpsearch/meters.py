"""Measures computed from a model's outputs, batch by batch.

`measure_of` turns what a study file gives (a name, a torchmetrics metric, a `Measure`) into a `Measure`; a `Meter`
adds one up. Except for accuracy, which is counted on the device, measures by name are scikit-learn's, of all outputs
together: a mean of the batches' values would not be the measure of all examples.
"""

import copy
import functools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hpsearch.errors import UsageError
from hpsearch.measure import ACCURACY, LOSS, Measure
from hpsearch.optim import has_one_output
from hpsearch.text import brief


class Meter(Protocol):
    """Adds up a measure over the batches of an interval or of a split."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch: the model's outputs (N, ...), detached, and its targets (N, ...), on one device."""

    def compute(self) -> float:
        """Return the measure of all batches; NaN if it is not defined, as of examples of a single class."""


def make_meter(measure: Measure, device: torch.device) -> Meter:
    """Return a new meter of a measure other than the loss, on `device`. Raises UsageError if it has no function."""
    if measure.metric is not None:
        return _Streamed(measure, device)
    if measure.function is not None:
        return _Collected(measure.function)
    if measure != ACCURACY:
        raise UsageError(f"Measure {measure.name}: give a function of outputs and targets, or a metric")
    return _Accuracy(device)


class _Accuracy:
    """The share of correct answers. The count stays on the device: a copy to the CPU for each batch would wait."""

    def __init__(self, device: torch.device) -> None:
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._answers = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        predicted, true = class_numbers(outputs, targets)
        self._correct += (predicted == true).sum()
        self._answers += len(true)

    def compute(self) -> float:
        return self._correct.item() / self._answers


class _Collected:
    """A function of all outputs and targets, which are kept until then."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        self._function = function
        self._batches: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        # In training, a model may give its next outputs in the same memory.
        # An output without dimensions is that of a batch of one, squeezed.
        self._batches.append((torch.atleast_1d(outputs.detach().clone()), targets))

    def compute(self) -> float:
        outputs, targets = (torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True))
        if not outputs.isfinite().all():
            return math.nan
        return _number(self._function(outputs, targets))


class _Streamed:
    """A copy of a torchmetrics metric, or of another object with the same methods."""

    def __init__(self, measure: Measure, device: torch.device) -> None:
        self._metric = copy.deepcopy(measure.metric)
        if hasattr(self._metric, "to"):
            self._metric = self._metric.to(device)
        self._metric.reset()
        self._prepare = _preparation(type(self._metric))
        self._undefined = False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if not outputs.isfinite().all():
            self._undefined = True
        if not self._undefined:
            self._metric.update(*self._prepare(outputs, targets))

    def compute(self) -> float:
        if self._undefined:
            return math.nan
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            value = _number(self._metric.compute())
        # torchmetrics then returns 0, which is no value of the model's.
        return math.nan if any("samples" in str(warning.message) for warning in raised) else value


def _number(value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise UsageError(f"a measure must be one number, got {value.numel()} of them; average them (average='macro')")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a measure must be one number, got {brief(value)}") from error


def class_numbers(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted and true classes, (answers,) each; an example has one answer, or one per position (pixel, word).

    Outputs (N,) or (N, 1) are two classes split at zero, for targets (N,) or (N, 1). Outputs (N, classes) predict the
    class with the highest output, for targets that are class numbers, (N,) or (N, 1), or floating-point probabilities,
    (N, classes). With positions, outputs are (N, classes, ...) and targets (N, ...). Raises UsageError for anything
    else.
    """
    if not isinstance(outputs, Tensor):
        raise UsageError(f"the model must return one tensor of outputs, got a {type(outputs).__name__}")
    if has_one_output(outputs):
        predicted, true = (outputs > 0).long(), (targets > 0).long()
    else:
        of_classes = targets.shape == outputs.shape and targets.is_floating_point()
        predicted, true = outputs.argmax(dim=1), targets.argmax(dim=1) if of_classes else targets
    # An output without dimensions is that of a batch of one, squeezed.
    if predicted.numel() != true.numel() or predicted.shape[:1] not in (true.shape[:1], ()):
        raise UsageError(
            f"outputs of shape {tuple(outputs.shape)} do not fit targets of shape {tuple(targets.shape)}: give one "
            f"target per example, and outputs (N, classes), or (N, 1) for two classes"
        )
    return predicted.flatten(), true.flatten()


def class_probabilities(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities (answers, classes) and true classes (answers,) for outputs as `class_numbers` takes them.

    One output is the logit of the second of two classes, several are the logits of the classes.
    """
    _, true = class_numbers(outputs, targets)
    if has_one_output(outputs):
        second = outputs.double().flatten().sigmoid()
        return torch.stack([1 - second, second], dim=1), true
    # (N, classes, ...) to (answers, classes).
    return outputs.double().softmax(dim=1).movedim(1, -1).flatten(0, -2), true


def predicted_numbers(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted and true numbers in equal shapes, (N,) or (N, numbers).

    Raises UsageError if there is not one output for each target: broadcasting would compare every output with every
    target.
    """
    if not isinstance(outputs, Tensor):
        raise UsageError(f"the model must return one tensor of outputs, got a {type(outputs).__name__}")
    one = outputs.numel() == targets.numel() == len(targets)
    if outputs.shape != targets.shape and not one:
        raise UsageError(
            f"outputs of shape {tuple(outputs.shape)} do not fit targets of shape {tuple(targets.shape)}: give one "
            f"output for each number"
        )
    shape = (len(targets),) if one else targets.shape
    return outputs.double().reshape(shape), targets.double().reshape(shape)


def check_targets(measure: Measure, targets: Tensor, classes: Sequence[str], split: str) -> None:
    """Raise UsageError if the targets of a split do not fit a measure."""
    if targets.is_floating_point() and not targets.isfinite().all():
        raise UsageError(
            f"dataset: {split}.targets hold {brief(targets[~targets.isfinite()][0].item())}: leave them out"
        )
    if measure.targets == "numbers" and not targets.is_floating_point():
        raise UsageError(
            f"measure {measure.name!r} is of numbers, and {split}.targets are {_dtype(targets)}, which name classes: "
            f"give numbers as float32, or a measure of classes such as 'accuracy'"
        )
    if measure.targets != "classes":
        return
    if targets.is_floating_point() and (what := _no_classes(targets)) is not None:
        raise UsageError(f"measure {measure.name!r} is of classes, and {split}.targets {what}")
    if split == "validation" and measure.column in ("auroc", "average_precision") and not targets.is_floating_point():
        present = set(targets.unique().tolist())
        if missing := [name for number, name in enumerate(classes) if number not in present]:
            raise UsageError(
                f"measure {measure.name!r} needs every class among the validation examples, and {missing[0]!r} is not: "
                f"give more of them, or split them by class"
            )


def _no_classes(targets: Tensor) -> str | None:
    """Return why floating-point targets are no classes, or None: numbers 0 and 1, -1 and 1, or probabilities are."""
    if targets.dim() == 2 and targets.shape[1] > 1:
        if targets.min() >= 0 and torch.allclose(
            targets.sum(dim=1), torch.ones(len(targets), dtype=targets.dtype), atol=1e-3
        ):
            return None
        if bool(((targets == 0) | (targets == 1)).all()):
            return (
                f"name several of {targets.shape[1]} labels for an example: give measure=MultilabelF1Score(num_labels="
                f"{targets.shape[1]}) or another metric of torchmetrics"
            )
    elif bool(((targets == 0) | (targets.abs() == 1)).all()):
        return None
    number = targets[~((targets == 0) | (targets.abs() == 1))].flatten()[:1]
    such = f" such as {number.item():g}" if len(number) else ""
    return f"are numbers{such}: give Study(measure='MSE') or another measure of numbers; class numbers are integers"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# The measures of classes by name, as functions of scikit-learn: of probabilities and of predicted classes.


def _auroc(probabilities: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    if len(np.unique(true)) < classes:
        return math.nan
    if classes == 2:
        return float(roc_auc_score(true, probabilities[:, 1]))
    return float(roc_auc_score(true, probabilities, multi_class="ovr", average="macro", labels=range(classes)))


def _average_precision(probabilities: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    classes = probabilities.shape[1]
    if len(np.unique(true)) < classes:
        return math.nan
    if classes == 2:
        return float(average_precision_score(true, probabilities[:, 1]))
    one_hot = np.eye(classes)[true]
    return float(average_precision_score(one_hot, probabilities, average="macro"))


def _f1(probabilities: np.ndarray, true: np.ndarray, average: str) -> float:
    from sklearn.metrics import f1_score

    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    if average == "binary" and classes != 2:
        raise UsageError(f"measure 'F1' is of two classes, and there are {classes}: give measure='macro F1'")
    return float(f1_score(true, predicted, average=average, labels=range(classes), zero_division=0))


def _balanced_accuracy(probabilities: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import recall_score

    return float(recall_score(true, probabilities.argmax(axis=1), average="macro", labels=np.unique(true)))


def _top(count: int, probabilities: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import top_k_accuracy_score

    classes = probabilities.shape[1]
    if count >= classes:
        raise UsageError(f"measure 'top-{count} accuracy' is always 1 with {classes} classes: give a smaller number")
    return float(top_k_accuracy_score(true, probabilities, k=count, labels=range(classes)))


def _of_probabilities(function: Callable[[np.ndarray, np.ndarray], float], outputs: Tensor, targets: Tensor) -> float:
    probabilities, true = class_probabilities(outputs, targets)
    return function(probabilities.numpy(), true.numpy())


def _of_numbers(name: str, outputs: Tensor, targets: Tensor) -> float:
    from sklearn import metrics

    predicted, true = (part.numpy() for part in predicted_numbers(outputs, targets))
    if name == "r2_score" and len(true) < 2:
        return math.nan
    return float(getattr(metrics, name)(true, predicted))


def _classes(name: str, function: Callable[..., float], *arguments: Any) -> Measure:
    of = functools.partial(_of_probabilities, functools.partial(function, *arguments) if arguments else function)
    return Measure(name=name, maximize=True, low=0.0, high=1.0, targets="classes", function=of)


def _numbers(name: str, function: str, *, maximize: bool = False) -> Measure:
    bounds = {"high": 1.0} if maximize else {"low": 0.0}
    of = functools.partial(_of_numbers, function)
    return Measure(name=name, maximize=maximize, targets="numbers", function=of, **bounds)


MEASURES = {
    measure.column: measure
    for measure in (
        ACCURACY,
        LOSS,
        _classes("balanced accuracy", _balanced_accuracy),
        _classes("F1", functools.partial(_f1, average="binary")),
        _classes("macro F1", functools.partial(_f1, average="macro")),
        _classes("AUROC", _auroc),
        _classes("average precision", _average_precision),
        _numbers("MSE", "mean_squared_error"),
        _numbers("RMSE", "root_mean_squared_error"),
        _numbers("MAE", "mean_absolute_error"),
        _numbers("R2", "r2_score", maximize=True),
    )
}
_TOP = re.compile(r"top_([1-9]\d*)_accuracy")


def measure_of(value: Any) -> Measure:
    """Return the measure that a study file names or gives.

    A name is one of `MEASURES` or "top-5 accuracy" with any number, in upper or lower case. A torchmetrics metric has
    its direction and bounds from `higher_is_better`, `plot_lower_bound` and `plot_upper_bound`. Raises UsageError for
    anything else.
    """
    if isinstance(value, Measure):
        return value
    if isinstance(value, str):
        column = "_".join(re.split(r"[\s_-]+", value.strip().lower()))
        if found := MEASURES.get(column):
            return found
        if top := _TOP.fullmatch(column):
            return _classes(f"top-{top[1]} accuracy", _top, int(top[1]))
        known = ", ".join(measure.name for measure in MEASURES.values())
        raise UsageError(
            f"Study: there is no measure {value!r}: give one of {known}, top-5 accuracy, a metric of torchmetrics, or "
            f"Measure(name=..., maximize=..., function=...)"
        )
    if isinstance(value, type) or not all(
        callable(getattr(value, name, None)) for name in ("update", "compute", "reset")
    ):
        raise UsageError(
            f"Study: measure must be a name, a metric of torchmetrics such as BinaryAUROC(), or a Measure, got "
            f"{brief(value)}"
        )
    higher = getattr(value, "higher_is_better", None)
    if higher is None:
        raise UsageError(
            f"Study: {type(value).__name__} does not say whether higher is better: give "
            f"Measure(name={type(value).__name__!r}, maximize=True or False, metric=...)"
        )
    low, high = _bounds(value)
    return Measure(
        name=type(value).__name__,
        maximize=bool(higher),
        low=low,
        high=high,
        targets=_targets_of(type(value)),
        metric=value,
    )


# Torchmetrics' bounds are those of its plots; the values of these go beyond.
_WIDER = {
    "MatthewsCorrCoef": (-1.0, 1.0),
    "CohenKappa": (-1.0, 1.0),
    "CosineSimilarity": (-1.0, 1.0),
    "ExplainedVariance": (-math.inf, 1.0),
    "HingeLoss": (0.0, math.inf),
}


def _bounds(metric: Any) -> tuple[float, float]:
    """Return the bounds of a metric of torchmetrics."""
    for name, bounds in _WIDER.items():
        if type(metric).__name__.endswith(name):
            return bounds
    low, high = (getattr(metric, f"plot_{end}_bound", None) for end in ("lower", "upper"))
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def _task(kind: type) -> str:
    """Return what a class of torchmetrics measures: "Binary", "Multiclass", "Multilabel", "numbers", or ""."""
    module = kind.__module__
    if module.startswith("torchmetrics.regression."):
        return "numbers"
    if module.startswith("torchmetrics.classification."):
        return next((task for task in ("Binary", "Multiclass", "Multilabel") if kind.__name__.startswith(task)), "")
    return ""


def _targets_of(kind: type) -> Any:
    return {"numbers": "numbers", "Binary": "classes", "Multiclass": "classes"}.get(_task(kind), "any")


def _preparation(kind: type) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what turns outputs and targets into those that a torchmetrics class takes.

    Probabilities: from logits torchmetrics would make them itself, but only in batches with a value outside [0, 1].
    """
    if kind.__name__ == "MulticlassExactMatch":
        # Of whole examples, with all their positions.
        return lambda outputs, targets: (outputs.softmax(dim=1), targets)
    return {
        "Binary": _binary,
        "Multiclass": class_probabilities,
        "Multilabel": lambda outputs, targets: (outputs.sigmoid(), targets.long()),
        "numbers": predicted_numbers,
        "": lambda outputs, targets: (outputs, targets),
    }[_task(kind)]


def _binary(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    probabilities, true = class_probabilities(outputs, targets)
    if probabilities.shape[1] != 2:
        raise UsageError(
            f"a measure of two classes does not fit {probabilities.shape[1]} outputs: use a Multiclass one"
        )
    return probabilities[:, 1], true
