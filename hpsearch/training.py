"""The one training loop.

`train(run)` is a generator: it trains one interval, evaluates, yields a report, and goes on. Closing it stops it.
An interval is a pure function of (weights, optimiser and schedule state, seed, interval number): the batch order
comes from a generator seeded by (seed, epoch), every other draw from torch's, seeded by (seed, interval). So a run
restored from `Run.state_dict` goes on bit for bit as the uninterrupted one (on one thread of a CPU).

It knows nothing of trials, files, databases or early stopping.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from hpsearch.datasets import Dataset, Examples, Split, length
from hpsearch.errors import UsageError
from hpsearch.study import Recipe, Steps, Study

EVALUATION_BATCH = 500


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**63) that depends on every part and looks random for neighbouring ones."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one interval of training came to. Losses are means per example, accuracies shares from 0 to 1."""

    interval: int
    epoch: float
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite."""
        total = self.train_loss + self.validation_loss
        return not float("-inf") < total < float("inf")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


class Run:
    """A model being trained: everything an interval reads and changes, and nothing else."""

    def __init__(self, study: Study, params: dict[str, Any], data: Dataset, *, seed: int, device: str = "cpu") -> None:
        """Replay the recipe at `params`, its weights initialised from `seed`, with `data` moved to `device`.

        Raises UsageError if the params do not fit the recipe.
        """
        self.seed = seed
        self.device = torch.device(device)
        with _seeded(derive_seed(seed, "weights"), self.device):
            recipe: Recipe = study.replay(params)
        self.model = recipe.model.to(self.device)
        self.loss = recipe.loss
        self.batch_size = recipe.batch_size
        self.train_split = _on(data.train, self.device)
        self.validation_split = _on(data.validation, self.device)
        if isinstance(data.train, Split) and data.train.inputs.dim() == 4:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = recipe.optimizer(self.model.parameters())
        self.epochs = recipe.epochs or study.epochs
        self.steps_per_epoch = -(-length(data.train) // recipe.batch_size)
        self.total_steps = self.epochs * self.steps_per_epoch
        interval = study.interval
        self.steps_per_interval = interval.count if isinstance(interval, Steps) else interval * self.steps_per_epoch
        self.schedule = recipe.schedule(self.optimizer, self.total_steps) if recipe.schedule else None
        self.interval = 0

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return min(self.interval * self.steps_per_interval, self.total_steps)

    @property
    def intervals(self) -> int:
        """Intervals in the whole run."""
        return -(-self.total_steps // self.steps_per_interval)

    @property
    def learning_rate(self) -> float:
        """The optimiser's present step size (of its first parameter group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next interval depends on, for `load_state_dict`."""
        return {
            "interval": self.interval,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": _plain(self.schedule.state_dict()) if self.schedule else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in a run built from the same study, params, data and seed."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.interval = state["interval"]


def train(run: Run, stop: Callable[[], bool] = lambda: False) -> Iterator[EpochReport]:
    """Train interval by interval, yielding a report after each; end at the last one, or once `stop()` is true.

    `stop` is asked before every batch. An interval cut short is not reported, and leaves `run` unfit to go on:
    restore it from the state saved after the last report.
    """
    while run.step < run.total_steps:
        began = time.perf_counter()
        first, last = run.step, min(run.step + run.steps_per_interval, run.total_steps)
        with _seeded(derive_seed(run.seed, "interval", run.interval), run.device):
            run.model.train()
            total_loss = torch.zeros((), device=run.device)
            correct = torch.zeros((), dtype=torch.int64, device=run.device)
            examples = 0
            for inputs, targets in _batches(run, first, last):
                if stop():
                    return
                outputs = run.model(inputs)
                loss = run.loss(outputs, targets)
                run.optimizer.zero_grad()
                loss.backward()
                run.optimizer.step()
                if run.schedule is not None:
                    run.schedule.step()
                total_loss += loss.detach() * len(targets)
                correct += count_correct(outputs.detach(), targets)
                examples += len(targets)
        validation_loss, validation_accuracy = evaluate(run.model, run.loss, run.validation_split)
        run.interval += 1
        yield EpochReport(
            interval=run.interval,
            epoch=run.step / run.steps_per_epoch,
            step=run.step,
            train_loss=total_loss.item() / examples,
            train_accuracy=correct.item() / examples,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=run.learning_rate,
            seconds=time.perf_counter() - began,
        )


def evaluate(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], split: Examples) -> tuple[float, float]:
    """Return the mean loss per example and the accuracy of `model` on a split, in evaluation mode."""
    device = next(model.parameters()).device
    total_loss = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    model.eval()
    with torch.inference_mode():
        for start in range(0, length(split), EVALUATION_BATCH):
            indices = torch.arange(start, min(start + EVALUATION_BATCH, length(split)))
            inputs, targets = take(split, indices, device)
            outputs = model(inputs)
            total_loss += loss(outputs, targets) * len(targets)
            correct += count_correct(outputs, targets)
    return total_loss.item() / length(split), correct.item() / length(split)


def has_one_output(outputs: Tensor) -> bool:
    """Whether outputs are (N,) or (N, 1): two classes, split at zero."""
    return outputs.dim() < 2 or outputs.shape[1] == 1


def class_numbers(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted and true classes (N,) of outputs (N, classes), or (N, 1) for two classes split at zero."""
    if has_one_output(outputs):
        return (outputs.flatten() > 0).long(), (targets > 0).long()
    return outputs.argmax(dim=1), targets


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return how many outputs name their target's class, as `class_numbers` has them."""
    predicted, true = class_numbers(outputs, targets)
    return (predicted == true).sum()


def _batches(run: Run, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of steps `first` to `last`. An epoch's order depends on (seed, epoch) alone."""
    examples = length(run.train_split)
    epoch = -1
    for step in range(first, last):
        if step // run.steps_per_epoch != epoch:
            epoch = step // run.steps_per_epoch
            generator = torch.Generator().manual_seed(derive_seed(run.seed, "order", epoch))
            order = torch.randperm(examples, generator=generator)
            if isinstance(run.train_split, Split):
                order = order.to(run.device)
        start = step % run.steps_per_epoch * run.batch_size
        yield take(run.train_split, order[start : start + run.batch_size], run.device)


def take(split: Examples, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets at `indices`, on `device`."""
    if isinstance(split, Split):
        indices = indices.to(split.targets.device)
        return split.inputs[indices], split.targets[indices]
    inputs, targets = default_collate([split[index] for index in indices.tolist()])
    return inputs.to(device), targets.to(device)


def _on(split: Examples, device: torch.device) -> Examples:
    """Return a split in memory on `device`; a torch `Dataset` stays where it is."""
    if isinstance(split, Split):
        return Split(split.inputs.to(device), split.targets.to(device))
    return split


class _seeded:
    """Draw from a fixed seed inside the `with`, and leave the process's random state as it was."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda")

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *exception: Any) -> None:
        self._fork.__exit__(*exception)


def _plain(state: Any) -> Any:
    """Return a scheduler's state with only what a checkpoint can hold; raises UsageError naming what cannot."""
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
