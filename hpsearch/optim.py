"""Optimisers, losses and schedules as small frozen dataclasses: data, not live torch objects.

Each is also a callable that builds the live object, so a recipe may use any other callable of the same form: an
optimiser is `parameters -> torch.optim.Optimizer`, where the parameters may be in groups as torch's optimisers take
them, a loss `(outputs, targets) -> scalar tensor`, a schedule
`(optimizer, total_steps) -> torch.optim.lr_scheduler.LRScheduler`, stepped once per update.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from hpsearch.errors import UsageError

# Parameters, or groups of them with their own options, as torch's optimisers take them.
Parameters = Iterable[Any]
Optimizer = Callable[[Parameters], torch.optim.Optimizer]
Groups = Mapping[str, Mapping[str, Any]]
Loss = Callable[[Tensor, Tensor], Tensor]
Schedule = Callable[[torch.optim.Optimizer, int], LRScheduler]


def has_one_output(outputs: Tensor) -> bool:
    """Whether outputs are (N,) or (N, 1): two classes, split at zero."""
    return outputs.dim() < 2 or outputs.shape[1] == 1


def _shapes(outputs: Tensor, targets: Tensor) -> str:
    return f"got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"


def _as_one_output(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets (N,) or (N, 1) in the shape of the outputs. Raises UsageError if there is not one per output."""
    if not has_one_output(outputs) or outputs.numel() != targets.numel():
        raise UsageError(f"{name}: needs one output for each target, (N,) or (N, 1) both, {_shapes(outputs, targets)}")
    return targets.reshape(outputs.shape)


def _as_class_numbers(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return class numbers (N,) or (N, 1) as int64 (N,), or by position (N, ...) for outputs (N, classes, ...).

    Raises UsageError if they are not whole numbers, or not one per example or position.
    """
    if targets.is_floating_point():
        raise UsageError(
            f"{name}: targets must be class numbers of an integer type, or one number for each output, got "
            f"{str(targets.dtype).removeprefix('torch.')}; {_shapes(outputs, targets)}"
        )
    if targets.numel() * outputs.shape[1] != outputs.numel() or len(targets) != len(outputs):
        raise UsageError(f"{name}: needs one class number for each example, {_shapes(outputs, targets)}")
    return targets.reshape(outputs.shape[:1] + outputs.shape[2:]).long()


def _fused(parameters: Parameters) -> bool:
    """Whether torch's fused optimisers, the fastest, accept the parameters: they accept no complex ones."""
    groups = [group["params"] if isinstance(group, dict) else [group] for group in parameters]
    return all(parameter.is_floating_point() for group in groups for parameter in group)


def check_groups(groups: Any, model: nn.Module, optimizer: Optimizer) -> None:
    """Raise UsageError for a name in `groups` that no parameter has, or an option that the optimiser does not have.

    The options of an optimiser that is not of this module are unknown until it is built: see `build_optimizer`.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(options, Mapping) for options in groups.values()):
        raise UsageError(f'Recipe: groups must be a dict such as {{"head": {{"lr": 0.1}}}}, got {groups!r}')
    names = [name for name, _ in model.named_parameters()]
    while isinstance(optimizer, L1):
        optimizer = optimizer.optimizer
    for pattern, options in groups.items():
        if not any(_fits(name, pattern) for name in names):
            some = ", ".join(names[:3] + ["..."] * (len(names) > 6) + names[max(3, len(names) - 3) :])
            raise UsageError(f"Recipe: groups: no parameter of the model is named {pattern!r}; it has {some}")
        if is_dataclass(optimizer) and type(optimizer).__module__ == __name__:
            _check_options(pattern, options, [entry.name for entry in fields(optimizer)])
            # Checks the values.
            replace(optimizer, **options)


def build_optimizer(optimizer: Optimizer, names: Mapping[nn.Parameter, str], groups: Groups) -> torch.optim.Optimizer:
    """Build the torch optimiser of the trainable parameters, those without a group of their own first.

    Raises UsageError if a group has an option that the torch optimiser does not have.
    """
    members: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in (None, *groups)}
    for parameter, name in names.items():
        if parameter.requires_grad:
            members[next((pattern for pattern in groups if _fits(name, pattern)), None)].append(parameter)
    if not groups:
        return optimizer(members[None])
    live = optimizer(
        [
            {"params": parameters, **(groups[pattern] if pattern is not None else {})}
            for pattern, parameters in members.items()
            if parameters
        ]
    )
    for pattern, options in groups.items():
        _check_options(pattern, options, list(live.defaults))
    return live


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern is that of a parameter's name, or of a module that the parameter is in."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _check_options(pattern: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in options if name not in known]:
        raise UsageError(
            f"Recipe: groups[{pattern!r}]: the optimiser has no option {unknown[0]!r}; it has {', '.join(known)}"
        )


def is_between(low: float, value: Any, high: float) -> bool:
    """Whether `value` is a number, not a bool, between two others, both excluded."""
    return isinstance(value, Real) and not isinstance(value, bool) and low < float(value) < high


def _check(name: str, **numbers: float) -> None:
    """Raise UsageError for a number that is negative or not finite, or a learning rate of zero."""
    for key, number in numbers.items():
        if not 0 <= number < float("inf") or (key == "lr" and number == 0):
            raise UsageError(f"{name}: {key} must be {'above' if key == 'lr' else 'at least'} 0, got {number}")


def _check_shares(name: str, **shares: tuple[float, ...]) -> None:
    """Raise UsageError for a number outside [0, 1)."""
    for key, numbers in shares.items():
        for number in numbers:
            if not 0 <= number < 1:
                raise UsageError(f"{name}: {key} must be in [0, 1), got {number}")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent, plain or with (Nesterov) momentum.

    Sutskever et al., *On the importance of initialization and momentum in deep learning*, ICML 2013.
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("SGD", lr=self.lr, weight_decay=self.weight_decay)
        _check_shares("SGD", momentum=(self.momentum,))
        if self.nesterov and self.momentum == 0:
            raise UsageError("SGD: nesterov needs a momentum above 0")

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        parameters = list(parameters)
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=_fused(parameters),
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam. Kingma and Ba, arXiv 1412.6980."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("Adam", lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        _check_shares("Adam", betas=self.betas)

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        parameters = list(parameters)
        return torch.optim.Adam(
            parameters,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=_fused(parameters),
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay. Loshchilov and Hutter, arXiv 1711.05101."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        _check("AdamW", lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        _check_shares("AdamW", betas=self.betas)

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        parameters = list(parameters)
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=_fused(parameters),
        )


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop. Tieleman and Hinton, *Neural Networks for Machine Learning*, lecture 6e, 2012."""

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("RMSprop", lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        _check_shares("RMSprop", alpha=(self.alpha,), momentum=(self.momentum,))

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        return torch.optim.RMSprop(
            parameters,
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class Adagrad:
    """Adagrad. Duchi, Hazan and Singer, JMLR 12 (2011) 2121-2159."""

    lr: float = 1e-2
    eps: float = 1e-10
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("Adagrad", lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        return torch.optim.Adagrad(parameters, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class NormalizedGradient:
    """Component-normalised gradient descent: each component of the gradient is divided by its own magnitude.

    So every weight moves by `lr` in each step (less if its gradient is not far above `eps`), on plateaus as on
    slopes. Watt, Borhani and Katsaggelos, *Machine Learning Refined*, 2nd ed. 2020, appendix A.3; known as signSGD,
    Bernstein et al., arXiv 1802.04434.
    """

    lr: float = 1e-3
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check("NormalizedGradient", lr=self.lr, eps=self.eps)

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        return _NormalizedGradient(parameters, {"lr": self.lr, "eps": self.eps})


class _NormalizedGradient(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if (gradient := parameter.grad) is not None:
                    # A weight whose gradient is exactly zero does not move, even with eps = 0.
                    size = gradient.abs().add_(group["eps"]).clamp_(min=torch.finfo(gradient.dtype).tiny)
                    parameter.addcdiv_(gradient, size, value=-group["lr"])
        return loss


@dataclass(frozen=True)
class L1:
    """An optimiser with the L1 penalty, `strength` times the sum of all weights' magnitudes, added to the loss.

    It adds strength x sign(w) to the gradient before each step, which drives weights that the data do not need to zero
    (Tibshirani, *Regression shrinkage and selection via the lasso*, 1996). The L2 penalty is the optimiser's own
    `weight_decay`. Like it, L1 applies to biases too and is not part of the reported losses.
    """

    optimizer: Optimizer
    strength: float

    def __post_init__(self) -> None:
        _check("L1", strength=self.strength)

    def __call__(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Build the torch optimiser."""
        optimizer = self.optimizer(parameters)
        optimizer.register_step_pre_hook(self._add)
        return optimizer

    def _add(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sgn(), alpha=self.strength)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Softmax cross-entropy, averaged over the batch: outputs (N, classes), targets (N,) or (N, 1) of class numbers.

    Floating-point targets are class probabilities, (N, classes). `weight` has a number for each class; the mean is then
    weighted by those of the targets, as `torch.nn.CrossEntropyLoss` does it.
    """

    label_smoothing: float = 0.0
    weight: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_shares("CrossEntropy", label_smoothing=(self.label_smoothing,))
        if self.weight is not None and not (
            isinstance(self.weight, Sequence) and all(is_between(0, number, math.inf) for number in self.weight)
        ):
            raise UsageError(f"CrossEntropy: weight must be a tuple of numbers above 0, got {self.weight!r}")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar tensor. Raises UsageError if outputs and targets do not fit."""
        if has_one_output(outputs):
            raise UsageError(
                f"CrossEntropy: needs an output for each class, (N, classes), {_shapes(outputs, targets)}; "
                f"BinaryCrossEntropy takes one output"
            )
        if not (targets.is_floating_point() and targets.shape == outputs.shape):
            targets = _as_class_numbers("CrossEntropy", outputs, targets)
        weight = None if self.weight is None else outputs.new_tensor(self.weight)
        if weight is not None and len(weight) != outputs.shape[1]:
            raise UsageError(
                f"CrossEntropy: weight needs a number for each of the {outputs.shape[1]} classes, got {len(weight)}"
            )
        return functional.cross_entropy(outputs, targets, weight, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class MSE:
    """Mean squared error, averaged over batch and outputs.

    Class numbers, (N,) or (N, 1), become one-hot rows if the outputs are (N, classes), and +1 (above 0) or -1 if the
    outputs are (N,) or (N, 1). Floating-point targets are used as they are, one per output.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar tensor. Raises UsageError if outputs and targets do not fit."""
        if has_one_output(outputs):
            targets = _as_one_output("MSE", outputs, targets)
            targets = targets if targets.is_floating_point() else _signs(targets)
        elif not (targets.is_floating_point() and targets.shape == outputs.shape):
            targets = functional.one_hot(_as_class_numbers("MSE", outputs, targets), outputs.shape[1])
            # Classes are an image's second dimension, as with cross-entropy.
            targets = targets.movedim(-1, 1)
        return functional.mse_loss(outputs, targets.to(outputs.dtype))


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Cross-entropy of a sigmoid neuron, averaged over the batch, from outputs before the sigmoid.

    Outputs and targets are (N,) or (N, 1). A target above 0 is the positive class, whose losses are multiplied by
    `pos_weight`; a floating-point target between 0 and 1 is its probability.
    """

    pos_weight: float | None = None

    def __post_init__(self) -> None:
        if self.pos_weight is not None and not is_between(0, self.pos_weight, math.inf):
            raise UsageError(f"BinaryCrossEntropy: pos_weight must be a number above 0, got {self.pos_weight!r}")

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar tensor. Raises UsageError if outputs and targets do not fit."""
        targets = _as_one_output("BinaryCrossEntropy", outputs, targets)
        pos_weight = None if self.pos_weight is None else outputs.new_tensor(self.pos_weight)
        return functional.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype).clamp(0, 1), pos_weight=pos_weight
        )


def as_numbers(targets: Tensor, outputs: Tensor, loss: Loss) -> Tensor:
    """Return targets of which means can be formed, floating-point ones as they are.

    Class numbers become probabilities of as many classes as there are `outputs` for an example, (N, classes); if there
    is one, 0 and 1 or, for `MSE`, -1 and 1. Raises UsageError for a loss that has no value between two classes.
    """
    if isinstance(loss, PerceptronCriterion):
        raise UsageError("PerceptronCriterion has no loss between two classes: mix them with BinaryCrossEntropy")
    if targets.is_floating_point():
        return targets
    if has_one_output(outputs):
        return _signs(targets) if isinstance(loss, MSE) else (targets > 0).float()
    if targets.dim() == outputs.dim():
        targets = targets.flatten()
    # Classes are an image's second dimension, as with cross-entropy.
    return functional.one_hot(targets.long(), outputs.shape[1]).movedim(-1, 1).float()


@dataclass(frozen=True, kw_only=True)
class PerceptronCriterion:
    """The mean of max(0, -y f) over the batch of outputs f; y is +1 for targets above 0 and -1 otherwise.

    Its gradient is the perceptron rule: with learning rate 1 and batch size 1, gradient descent does W <- W + d x with
    d = (y - sign(f)) / 2, where sign(0) = -1 because f = 0 counts as the negative class. At the kink, f = 0, the
    subgradient is chosen accordingly. Rosenblatt 1958; the form is that of Bishop, *Pattern Recognition and Machine
    Learning*, 2006, eq. 4.54. Outputs and targets are (N,) or (N, 1).
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar tensor. Raises UsageError if outputs and targets do not fit."""
        targets = _as_one_output("PerceptronCriterion", outputs, targets)
        delta = (_signs(targets) - _signs(outputs.detach())) / 2
        return -(delta * outputs).mean()


def _signs(numbers: Tensor) -> Tensor:
    """Return +1 for numbers above zero and -1 for the others."""
    return (numbers > 0).float() * 2 - 1


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Cosine annealing of the learning rate to zero, after a linear rise over the first `warmup` fraction of steps.

    Loshchilov and Hutter, arXiv 1608.03983 (one period, no restarts).
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UsageError(f"Cosine: warmup is a share of all steps in [0, 1), got {self.warmup}")

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Build the torch scheduler."""
        if self.warmup:
            return Warmup(self.warmup, then=Cosine())(optimizer, total_steps)
        return CosineAnnealingLR(optimizer, T_max=total_steps)


@dataclass(frozen=True)
class Warmup:
    """A linear rise of the learning rate over the first `share` of steps, followed by `then`, or by a constant rate.

    With a share of 0 there is no rise, only what follows.

    Goyal et al., arXiv 1706.02677, section 2.2.
    """

    share: float
    then: Schedule | None = None

    def __post_init__(self) -> None:
        if self.share != 0 and not is_between(0, self.share, 1):
            raise UsageError(f"Warmup: share is a share of all steps in [0, 1), got {self.share!r}")
        if isinstance(self.then, OneCycle) or not (callable(self.then) or self.then is None):
            raise UsageError(f"Warmup: then must be a schedule without a rise of its own, or None, got {self.then!r}")

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Build the torch scheduler."""
        rising = round(self.share * total_steps)
        if rising == 0 and self.then is not None:
            return self.then(optimizer, total_steps)
        rise = LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
        # Plateau's own does nothing, but in a sequence it would undo what has been lowered during the rise.
        if self.then is None or isinstance(self.then, Plateau):
            return rise
        rest = self.then(optimizer, max(1, total_steps - rising))
        return SequentialLR(optimizer, [rise, rest], milestones=[rising])


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """A learning rate that rises to the optimiser's `lr` over the first `rise` fraction of steps, then falls to near 0.

    Smith and Topin, arXiv 1708.07120, for the learning rate only: momentum (Adam's first beta) keeps the optimiser's
    value, so that it can be searched. torch's default sets it to 0.95 and cycles it, whatever it was.
    """

    rise: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.rise < 1:
            raise UsageError(f"OneCycle: rise is a share of all steps in (0, 1), got {self.rise}")

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Build the torch scheduler."""
        # torch divides by zero if the rise is exactly one of these steps.
        rise = math.nextafter(self.rise, 0) if self.rise * (total_steps + 1) == 1 else self.rise
        return OneCycleLR(
            optimizer,
            max_lr=[g["lr"] for g in optimizer.param_groups],
            # One more than we step: the last call would otherwise exceed the cycle.
            total_steps=total_steps + 1,
            pct_start=rise,
            cycle_momentum=False,
        )


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """A learning rate that is multiplied by `factor` whenever the study's measure no longer improves.

    That is after `patience` intervals in a row without a relative improvement of the best validation measure by more
    than `min_improvement`, as in `EarlyStopping`; then intervals are counted anew. `Warmup` may come before it. In
    torch's `ReduceLROnPlateau`, which does not know the measure's direction, `patience` is one less. `hpsearch retrain`
    trains the final model on the validation examples too, which then go on improving for longer.
    """

    factor: float = 0.1
    patience: int = 3
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if not is_between(0, self.factor, 1):
            raise UsageError(f"Plateau: factor must be a number in (0, 1), got {self.factor!r}")
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise UsageError(f"Plateau: patience must be a number of intervals, at least 1, got {self.patience!r}")
        _check("Plateau", min_improvement=self.min_improvement)

    def __call__(self, optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
        """Build the torch scheduler of each update, which changes nothing: the training loop does, after intervals."""
        return ConstantLR(optimizer, factor=1.0, total_iters=0)


def plateau_of(schedule: Schedule | None) -> Plateau | None:
    """Return the `Plateau` that a schedule is or ends with."""
    while isinstance(schedule, Warmup):
        schedule = schedule.then
    return schedule if isinstance(schedule, Plateau) else None
