"""The training loop.

`train(run)` is a generator: it trains one interval, evaluates, yields a report, and continues. Closing it stops it.
An interval is a pure function of (weights and their average, accumulated gradients, state of optimiser, schedule and
gradient scaler, seed, interval number): the batch order comes from a generator seeded by (seed, epoch), all other
random numbers, also those of augmentation, from the generators of torch, numpy and Python, seeded by (seed, step) while
examples are read and by (seed, interval) otherwise.
So a run restored from `Run.state_dict` continues bit for bit as if it had not been interrupted (on one thread of a
CPU).

This module does not depend on trials, files or databases.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import clip_grad_norm_, convert_conv2d_weight_memory_format
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hpsearch.augmentation import mixes_targets
from hpsearch.datasets import Dataset, Split, length
from hpsearch.errors import UsageError
from hpsearch.loading import Batch, Request, Source, batches, call, close, in_order, source, take
from hpsearch.measure import ACCURACY, LOSS, Measure, column_of
from hpsearch.meters import make_meter
from hpsearch.optim import Plateau, as_numbers, build_optimizer, plateau_of
from hpsearch.seeding import derive_seed, seeded
from hpsearch.stopping import EarlyStopping, Stopper
from hpsearch.study import Recipe, Steps, Study


@dataclass(frozen=True, kw_only=True)
class IntervalReport:
    """The measures after one interval, by name, of the training and of the validation examples.

    `measure` is the name of the one that the study optimises. `loss`, if there is one, is a mean per example.
    """

    interval: int
    epoch: float
    step: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    learning_rate: float | None
    seconds: float
    measure: str = ACCURACY.name

    @property
    def value(self) -> float:
        """The study's measure of the validation examples."""
        return self.validation[self.measure]

    @property
    def train_value(self) -> float:
        """The study's measure of the training examples; NaN if it is not known."""
        return self.train.get(self.measure, math.nan)

    @property
    def diverged(self) -> bool:
        """Whether a loss, or the study's measure of the validation examples, is NaN or infinite."""
        losses = [measures[LOSS.name] for measures in (self.train, self.validation) if LOSS.name in measures]
        return not all(math.isfinite(value) for value in (*losses, self.value))

    def as_row(self) -> dict[str, float]:
        """Return the figures by column, such as `train_loss` and `validation_accuracy`."""
        row: dict[str, float] = {"interval": self.interval, "epoch": self.epoch, "step": self.step}
        for name in dict.fromkeys((*self.train, *self.validation)):
            for split, measures in (("train", self.train), ("validation", self.validation)):
                if name in measures:
                    row[f"{split}_{column_of(name)}"] = measures[name]
        if self.learning_rate is not None:
            row["learning_rate"] = self.learning_rate
        return row | {"seconds": self.seconds}


class Run:
    """A model being trained: everything an interval reads and changes, and nothing else."""

    def __init__(self, study: Study, params: dict[str, Any], data: Dataset, *, seed: int, device: str = "cpu") -> None:
        """Build the recipe at `params`, initialise its weights from `seed` and move `data` to `device`.

        Raises UsageError if the params do not fit the recipe.
        """
        self.seed = seed
        self.unit = study.unit
        self.measures = study.measures
        self.device = torch.device(device)
        with seeded(derive_seed(seed, "weights"), self.device):
            recipe = study.replay(params)
            if not isinstance(recipe, Recipe):
                raise UsageError(f"this is for recipes that return a Recipe, not a {type(recipe).__name__}")
            self._recipe = recipe
            self.model = self._recipe.model.to(self.device)
            self.precision = _precision(self._recipe.precision, self.device)
            self.loss = self._recipe.loss
            if isinstance(self.loss, nn.Module):
                self.loss = self.loss.to(self.device)
            self.batch_size = self._recipe.batch_size
            self.accumulate = self._recipe.accumulate
            self.clip_norm = self._recipe.clip_norm
            self.train_split = source(data, "train", self.device, batch_size=self.batch_size)
            self.validation_split = source(data, "validation", self.device, batch_size=self.batch_size)
            if any(is_lazy(tensor) for tensor in [*self.model.parameters(), *self.model.buffers()]):
                # A forward pass initialises lazy layers. Not in training mode, where batch norm would count it as a
                # step.
                with torch.no_grad():
                    call(self.model.eval(), self._first_batch()[0])
        trained = [*self.model.parameters(), *_parameters(self.loss)]
        if not any(parameter.requires_grad for parameter in trained):
            raise UsageError("nothing to train: the model has no parameters, or all of them have requires_grad=False")
        if _pays_channels_last(self.model):
            with seeded(derive_seed(seed, "memory format"), self.device):
                if self._works_channels_last():
                    convert_conv2d_weight_memory_format(self.model, torch.channels_last)
        self.epochs = self._recipe.epochs or study.epochs
        self._examples = length(data.train)
        self.steps_per_epoch = steps_per_epoch(self._recipe, self._examples)
        self.total_steps = self.epochs * self.steps_per_epoch
        self.total_updates = self.epochs * -(-self.steps_per_epoch // self.accumulate)
        interval = study.interval
        self.steps_per_interval = interval.count if isinstance(interval, Steps) else interval * self.steps_per_epoch
        self.interval = 0

    @cached_property
    def _live(self) -> tuple[torch.optim.Optimizer, LRScheduler | None]:
        # Built on first use: torch's import for it takes a second, which a command that only tries a batch can save.
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for parameter in _parameters(self.loss):
            # A loss may contain the model, or a part of it.
            names.setdefault(parameter, "")
        optimizer = build_optimizer(self._recipe.optimizer, names, self._recipe.groups)
        if self._recipe.schedule is None:
            return optimizer, None
        schedule = self._recipe.schedule(optimizer, self.total_updates)
        if isinstance(schedule, ReduceLROnPlateau):
            raise UsageError(
                "the schedule is torch's ReduceLROnPlateau, which needs a value at each step: use hpsearch's "
                "Plateau(), which takes that of the study's measure after each interval"
            )
        return optimizer, schedule

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the model's parameters, and of the loss's if the loss is a module with parameters."""
        return self._live[0]

    @property
    def schedule(self) -> LRScheduler | None:
        """The learning rate schedule, if the recipe has one."""
        return self._live[1]

    @cached_property
    def _plateau(self) -> tuple[Plateau, Stopper] | None:
        """The schedule's rules for intervals without improvement, and how many there were."""
        if (plateau := plateau_of(self._recipe.schedule)) is None:
            return None
        rules = EarlyStopping(patience=plateau.patience, min_improvement=plateau.min_improvement)
        return plateau, Stopper(rules, self.measures[0])

    @cached_property
    def average(self) -> AveragedModel | None:
        """The exponential moving average of the model's weights after each update, if the recipe has `ema`."""
        if self._recipe.ema is None:
            return None
        return AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self._recipe.ema))

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: with the average of the weights if there is one, else the model."""
        return self.model if self.average is None else self.average.module

    @cached_property
    def scaler(self) -> torch.amp.GradScaler:
        """What scales the gradients of float16 up, so that small ones are not lost; off for other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)

    @cached_property
    def trained(self) -> list[Tensor]:
        """The optimiser's parameters."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def step(self) -> int:
        """The number of batches trained on."""
        return min(self.interval * self.steps_per_interval, self.total_steps)

    @property
    def intervals(self) -> int:
        """The number of intervals in the whole run."""
        return -(-self.total_steps // self.steps_per_interval)

    @property
    def learning_rate(self) -> float:
        """The optimiser's current learning rate (of its first parameter group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    @property
    def epochs_trained(self) -> float:
        """The number of epochs trained."""
        return self.step / self.steps_per_epoch

    @property
    def trained_on(self) -> int:
        """The number of training examples."""
        return length(self.train_split)

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def is_finished(self) -> bool:
        """Whether all intervals have been trained."""
        return self.step >= self.total_steps

    def train(self, stop: Callable[[], bool] = lambda: False) -> Iterator[IntervalReport]:
        """Train; see `train`."""
        return train(self, stop)

    def kept_state(self) -> dict[str, Any]:
        """Return a copy of the state of the model that is evaluated, which is kept of the best interval."""
        return {name: tensor.clone() for name, tensor in self.evaluated.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next interval depends on, for `load_state_dict`."""
        state = {
            "interval": self.interval,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": _plain(self.schedule.state_dict()) if self.schedule else None,
        }
        if isinstance(self.loss, nn.Module):
            state["loss"] = self.loss.state_dict()
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if self._plateau is not None:
            state["plateau"] = self._plateau[1].state_dict()
        if not self.begins_update(self.step):
            state["gradients"] = [parameter.grad for parameter in self.trained]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in a run built from the same study, params, data and seed."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        if isinstance(self.loss, nn.Module):
            self.loss.load_state_dict(state["loss"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self._plateau is not None:
            self._plateau[1].load_state_dict(state["plateau"])
        if "gradients" in state:
            for parameter, gradient in zip(self.trained, state["gradients"], strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.interval = state["interval"]

    def close(self) -> None:
        """End the processes that read examples; training starts new ones."""
        close(self.train_split, self.validation_split)

    def augment(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return a training batch with the recipe's augmentation; the same targets unless that changes them."""
        for augmentation in self._recipe.augment:
            if mixes_targets(augmentation):
                targets = as_numbers(targets, self._example_outputs, self.loss)
            augmented = augmentation(inputs, targets)
            if not isinstance(augmented, tuple | list) or len(augmented) != 2:
                raise UsageError(f"an augmentation must return (inputs, targets); this one does not: {augmentation!r}")
            inputs, targets = augmented
        return inputs, targets

    @cached_property
    def _example_outputs(self) -> Tensor:
        """The outputs for one example, which show how many there are."""
        inputs, _ = take(self.train_split, torch.arange(1), self.device)
        training = self.model.training
        with seeded(derive_seed(self.seed, "outputs"), self.device), torch.no_grad():
            outputs = forward(self.model.eval(), inputs, self.precision)
        self.model.train(training)
        return outputs

    @cached_property
    def examples_as_they_are(self) -> Tensor:
        """Indices of as many training examples as there are validation examples, or all, drawn once for the run."""
        count = length(self.train_split)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "training measures"))
        return torch.randperm(count, generator=generator)[: length(self.validation_split)].sort().values

    def update(self, loss: Tensor, step: int) -> None:
        """Add the gradients of a step's loss to those of its update and, if they are complete, change the weights."""
        if self.begins_update(step):
            self.optimizer.zero_grad()
        # The gradients of an update's batches add up to that of the mean over all of their examples.
        self.scaler.scale(loss if self.accumulate == 1 else loss * self.share_of_update(step)).backward()
        if not self.begins_update(step + 1):
            return
        # Before what is added to the gradients or taken from them.
        self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            clip_grad_norm_(self.trained, self.clip_norm)
        overflowed = self.scaler.is_enabled() and not _are_finite(self.trained)
        if not overflowed:
            # Not left to the scaler: torch's fused SGD then starts from a momentum that is whatever is in memory.
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if overflowed:
            return
        if self.schedule is not None:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def observe(self, value: float) -> None:
        """Take the study's measure after an interval: with `Plateau`, lower the learning rates if it is stuck."""
        if self._plateau is None:
            return
        plateau, stopper = self._plateau
        if stopper.update(value, value) is not None:
            stopper.without_improvement, stopper.reason = 0, None
            for group in self.optimizer.param_groups:
                group["lr"] *= plateau.factor

    def compiled(self) -> tuple[nn.Module, nn.Module]:
        """Return `model` and `evaluated`, compiled if the recipe says so; compiled ones share the weights of these."""
        if not self._recipe.compile:
            return self.model, self.evaluated
        if self.device.type == "cpu":
            # In this process: there are as many workers as cores, and each would start as many compilers.
            os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        # A process that has compiled several models of a class would leave its next ones as they are.
        torch.compiler.reset()
        # For each shape: a graph for several of them is made at the second, so that a resumed run might lack it.
        model = cast(nn.Module, torch.compile(self.model, dynamic=False))
        if self.average is None:
            return model, model
        return model, cast(nn.Module, torch.compile(self.evaluated, dynamic=False))

    def begins_update(self, step: int) -> bool:
        """Whether a step is the first of those whose gradients make one update, which are all of one epoch."""
        return step % self.steps_per_epoch % self.accumulate == 0

    def share_of_update(self, step: int) -> float:
        """Return a step's share of the examples whose gradients make one update."""
        position = step % self.steps_per_epoch
        first = position - position % self.accumulate
        last = min(first + self.accumulate, self.steps_per_epoch) - 1
        start, stop = self.bounds(position)
        return (stop - start) / (self.bounds(last)[1] - self.bounds(first)[0])

    def bounds(self, position: int) -> tuple[int, int]:
        """Return where the examples of an epoch's batch, counted from 0, start and stop in the epoch's order."""
        start = position * self.batch_size
        # An epoch's last batch takes the remaining examples: fewer than the others, or one more.
        return start, self._examples if position == self.steps_per_epoch - 1 else start + self.batch_size

    def _first_batch(self) -> Batch:
        return take(self.train_split, torch.arange(min(self.batch_size, length(self.train_split))), self.device)

    def _works_channels_last(self) -> bool:
        """Whether one batch passes forward and backward; tried on a copy, so that the model does not change."""
        try:
            model, loss = copy.deepcopy((self.model, self.loss))
            convert_conv2d_weight_memory_format(model.train(), torch.channels_last)
            inputs, targets = self._first_batch()
            loss(call(model, inputs), targets).backward()
        # For example `view` on an activation. A model that fails in the default format too raises its error later.
        except Exception:
            return False
        return True


def _pays_channels_last(model: nn.Module) -> bool:
    """Whether a model is faster in channels-last format: if it has an ungrouped convolution larger than 1x1.

    Measured forward and backward on a CPU: 1.05 to 1.7 times as fast with one (1.2 for LeNet, 1.7 for MobileNet;
    ResNet-18 on 32x32 images is slower, 0.8), 0.93 to 0.95 with only depthwise, grouped or 1x1 convolutions.
    """
    return any(
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1 for layer in model.modules()
    )


def _parameters(loss: Callable[[Tensor, Tensor], Tensor]) -> list[nn.Parameter]:
    return list(loss.parameters()) if isinstance(loss, nn.Module) else []


def _are_finite(parameters: list[Tensor]) -> bool:
    """Whether all gradients are finite."""
    finite = [parameter.grad.isfinite().all() for parameter in parameters if parameter.grad is not None]
    return bool(torch.stack(finite).all())


def _precision(name: str | None, device: torch.device) -> torch.dtype | None:
    """Return the type that layers are computed in, or None. Raises UsageError if the device does not have it."""
    if name is None:
        return None
    if name == "float16" and device.type != "cuda":
        raise UsageError(f'precision "float16" needs a CUDA device, this is {device}; "bfloat16" also works on a CPU')
    if not torch.amp.is_autocast_available(device.type) or (
        name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported()
    ):
        raise UsageError(f'precision "{name}" does not work on this device, {device}; leave it out or use another one')
    return torch.bfloat16 if name == "bfloat16" else torch.float16


def _autocast(model: nn.Module, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(next(model.parameters()).device.type, dtype=precision)


def forward(model: nn.Module, inputs: Any, precision: torch.dtype | None = None) -> Tensor:
    """Return a model's outputs, computed in `precision` where that is safe and returned in single precision.

    Raises UsageError if the model is to be compiled and cannot be.
    """
    try:
        with _autocast(model, precision) if precision else nullcontext():
            outputs: Tensor = call(model, inputs)
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"torch.compile fails: {first}; leave out compile=True, or see that a compiler is installed"
        ) from error
    # What is no tensor is refused later.
    return outputs.float() if isinstance(outputs, Tensor) and outputs.dtype == precision else outputs


def load_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Load a model's state and the memory format it was trained in, so that its outputs are the same bit for bit."""
    model.load_state_dict(weights)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            stored = weights[f"{name}.weight" if name else "weight"]
            if not stored.is_contiguous() and stored.is_contiguous(memory_format=torch.channels_last):
                convert_conv2d_weight_memory_format(layer, torch.channels_last)


def steps_per_epoch(recipe: Recipe, examples: int) -> int:
    """Return the number of batches in an epoch; the last one may be smaller.

    If the model has batch norm and the last batch would be a single example, which has no variance, that example joins
    the batch before.
    """
    whole, rest = divmod(examples, recipe.batch_size)
    if rest == 1 and whole and any(isinstance(layer, _BatchNorm) for layer in recipe.model.modules()):
        return whole
    return whole + (rest > 0)


def train(run: Run, stop: Callable[[], bool] = lambda: False) -> Iterator[IntervalReport]:
    """Train interval by interval and yield a report after each, until the last one or until `stop()` is true.

    `stop` is called before every batch. An interval that is cut short is not reported, and `run` cannot continue from
    it: restore the state saved after the last report.
    """
    with closing(run):
        yield from _intervals(run, stop)


def _intervals(run: Run, stop: Callable[[], bool]) -> Iterator[IntervalReport]:
    model, evaluated = run.compiled()
    while run.step < run.total_steps:
        began = time.perf_counter()
        first, last = run.step, min(run.step + run.steps_per_interval, run.total_steps)
        with seeded(derive_seed(run.seed, "interval", run.interval), run.device):
            _set_mode(run.model, run.loss, training=True)
            meters = _Meters(run.measures, run.device)
            mixed = False
            for step, (inputs, targets) in enumerate(_batches(run, first, last), first):
                if stop():
                    return
                inputs, given = run.augment(inputs, targets)
                outputs = forward(model, inputs, run.precision)
                loss = run.loss(outputs, given)
                run.update(loss, step)
                if given is targets:
                    meters.update(loss.detach(), outputs.detach(), targets)
                else:
                    # Measures of mixed examples could not be compared with those of the validation examples.
                    mixed = True
            # Seeded too, because the model or the examples may draw random numbers.
            figures = partial(
                evaluate,
                evaluated,
                run.loss,
                measures=run.measures,
                seed=derive_seed(run.seed, "validation", run.interval),
                precision=run.precision,
            )
            validation = figures(run.validation_split)
            training = figures(run.train_split, indices=run.examples_as_they_are) if mixed else meters.compute()
        measure = run.measures[0].name
        if math.isnan(validation[measure]) and math.isfinite(validation[LOSS.name]):
            raise UsageError(
                f"the measure {measure} of the validation examples is not a number, although the loss is finite: "
                f"is every class among them, and are they more than one?"
            )
        run.observe(validation[measure])
        run.interval += 1
        yield IntervalReport(
            interval=run.interval,
            epoch=run.step / run.steps_per_epoch,
            step=run.step,
            train=training,
            validation=validation,
            learning_rate=run.learning_rate,
            seconds=time.perf_counter() - began,
            measure=measure,
        )


class _Meters:
    """Adds up the loss and the measures of an interval or a split."""

    def __init__(self, measures: Sequence[Measure], device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._examples = 0
        self._meters = {measure.name: make_meter(measure, device) for measure in measures if measure != LOSS}

    def update(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        self._loss += loss * len(targets)
        self._examples += len(targets)
        for meter in self._meters.values():
            meter.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        loss = self._loss.item() / self._examples
        if not math.isfinite(loss):
            return {LOSS.name: loss} | dict.fromkeys(self._meters, math.nan)
        return {LOSS.name: loss} | {name: meter.compute() for name, meter in self._meters.items()}


def evaluate(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    split: Source,
    measures: Sequence[Measure] = (ACCURACY,),
    *,
    seed: int = 0,
    precision: torch.dtype | None = None,
    indices: Tensor | None = None,
) -> dict[str, float]:
    """Return the mean loss per example and the `measures` of `model` on a split, by name, in evaluation mode.

    With `indices`, (N,), only of these examples. `precision` is that of `forward`.
    """
    device = next(model.parameters()).device
    meters = _Meters(measures, device)
    _set_mode(model, loss, training=False)
    # Not in inference mode: tensors that a module creates and keeps there could not be used in training later.
    with torch.no_grad():
        for inputs, targets in in_order(split, device, seed=seed, indices=indices):
            outputs = forward(model, inputs, precision)
            meters.update(loss(outputs, targets), outputs, targets)
    return meters.compute()


def _set_mode(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], *, training: bool) -> None:
    model.train(training)
    if isinstance(loss, nn.Module):
        loss.train(training)


def _batches(run: Run, first: int, last: int) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last`."""
    return batches(run.train_split, _requests(run, first, last), run.device)


def _requests(run: Run, first: int, last: int) -> Iterator[Request]:
    """Yield what is in the batches. An epoch's order depends only on (seed, epoch), their draws on (seed, step)."""
    examples, in_memory = length(run.train_split), isinstance(run.train_split, Split)
    epoch = -1
    for step in range(first, last):
        if step // run.steps_per_epoch != epoch:
            epoch = step // run.steps_per_epoch
            generator = torch.Generator().manual_seed(derive_seed(run.seed, "order", epoch))
            order = torch.randperm(examples, generator=generator)
            if in_memory:
                order = order.to(run.device)
        start, stop = run.bounds(step % run.steps_per_epoch)
        # Examples in memory draw nothing; a seed takes as long as a hundredth of a small step.
        yield order[start:stop], 0 if in_memory else derive_seed(run.seed, "examples", step)


def _plain(state: Any) -> Any:
    """Return a scheduler's state as plain values. Raises UsageError naming a type that a checkpoint cannot hold."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    if state is None or isinstance(state, bool | int | float | str | Tensor):
        return state
    raise UsageError(
        f"the schedule's state holds a {type(state).__name__}, which a resume point cannot keep; "
        f"use a schedule from hpsearch.optim or torch's own"
    )
