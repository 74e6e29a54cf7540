"""A trial of a user's own `Training`, with the interface of `hpsearch.training.Run` as far as it has one."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from torch import nn

from hpsearch.datasets import Dataset, length
from hpsearch.errors import UsageError
from hpsearch.own_training import Training
from hpsearch.seeding import derive_seed, seeded
from hpsearch.space import replay
from hpsearch.study import Steps, Study
from hpsearch.text import brief
from hpsearch.training import IntervalReport, Run


def start_run(study: Study, params: dict[str, Any], data: Dataset, *, seed: int, device: str = "cpu") -> "Run | OwnRun":
    """Return a trial of a study's recipe, ready to be trained: of hpsearch's loop, or of the user's own training."""
    # Traced first, which costs next to nothing.
    kind = OwnRun if isinstance(replay(study.trace, params), Training) else Run
    return kind(study, params, data, seed=seed, device=device)


class OwnRun:
    """A `Training` being trained, interval by interval."""

    schedule = None
    loss = None

    def __init__(self, study: Study, params: dict[str, Any], data: Dataset, *, seed: int, device: str = "cpu") -> None:
        """Build the training at `params` and start it, seeded by `seed`.

        Raises UsageError if the params do not fit the recipe, or the study's intervals are steps.
        """
        if isinstance(study.interval, Steps):
            raise UsageError(f"a Training counts epochs, but the study's interval is {study.interval}")
        self.seed = seed
        self.unit = study.unit
        self.device = torch.device(device)
        self.interval = 0
        self._measure = study.measure
        self._data = data
        with seeded(derive_seed(seed, "weights"), self.device):
            training = study.replay(params)
            assert isinstance(training, Training)
            self.training = training
            training.start(data, seed=derive_seed(seed, "training"), device=device)
        self.epochs = training.epochs or study.epochs
        self._epochs_per_interval = study.interval

    @property
    def intervals(self) -> int:
        """The number of intervals in the whole run."""
        return -(-self.epochs // self._epochs_per_interval)

    @property
    def epoch(self) -> int:
        """The number of epochs trained."""
        return min(self.interval * self._epochs_per_interval, self.epochs)

    @property
    def epochs_trained(self) -> float:
        """The number of epochs trained."""
        return float(self.epoch)

    @property
    def trained_on(self) -> int:
        """The number of training examples."""
        return length(self._data.train)

    @property
    def name(self) -> str:
        """The name of the training's class."""
        return type(self.training).__name__

    @property
    def evaluated(self) -> nn.Module | None:
        """The torch module that gives the answers, if the training has one."""
        # Users may well call another library's model so.
        model: Any = self.training.model
        return model if isinstance(model, nn.Module) else None

    @property
    def is_finished(self) -> bool:
        """Whether all intervals have been trained."""
        return self.interval >= self.intervals

    @property
    def parameters(self) -> int:
        """The number of trained parameters, 0 if the training does not say."""
        return self.training.parameters

    def train(self, stop: Callable[[], bool] = lambda: False) -> Iterator[IntervalReport]:
        """Train interval by interval and yield a report after each, until the last one or until `stop()` is true.

        `stop` is called before every epoch. An interval that is cut short is not reported.
        """
        while not self.is_finished:
            began = time.perf_counter()
            first, last = self.epoch, min(self.epoch + self._epochs_per_interval, self.epochs)
            measures: Mapping[str, float] | None = None
            with seeded(derive_seed(self.seed, "interval", self.interval), self.device):
                for _ in range(first, last):
                    if stop():
                        return
                    measures = self.training.train_epoch()
                validation = self.training.evaluate(self._data.validation)
            self.interval += 1
            yield IntervalReport(
                interval=self.interval,
                epoch=float(last),
                step=last,
                train=_checked("train_epoch", measures or {}),
                validation=_checked("evaluate", validation, needed=self._measure.name),
                learning_rate=None,
                seconds=time.perf_counter() - began,
                measure=self._measure.name,
            )

    def kept_state(self) -> dict[str, Any]:
        """Return a copy of the training's state, which is kept of the best interval."""
        return copy.deepcopy(self.training.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next interval depends on, for `load_state_dict`."""
        return {"interval": self.interval, "training": self.training.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in a run built from the same study, params, data and seed."""
        self.training.load_state_dict(state["training"])
        self.interval = state["interval"]


def _checked(method: str, measures: Any, needed: str | None = None) -> dict[str, float]:
    """Return measures as plain numbers. Raises UsageError if they are not numbers, or the study's is missing."""
    if not isinstance(measures, Mapping):
        raise UsageError(f"{method} must return a dict of measures by name, got {brief(measures)}")
    for name, value in measures.items():
        one = isinstance(value, torch.Tensor) and value.numel() == 1
        if not isinstance(name, str) or isinstance(value, bool) or not (one or isinstance(value, Real)):
            raise UsageError(f"{method} must return numbers by name, got {brief(name)}: {brief(value)}")
    if needed is not None and needed not in measures:
        raise UsageError(
            f"{method} must return the study's measure, {needed!r}; it returned {', '.join(measures) or 'nothing'}"
        )
    values = {name: float(value) for name, value in measures.items()}
    if needed is not None and math.isnan(values[needed]) and math.isfinite(values.get("loss", math.nan)):
        raise UsageError(f"{method} returned nan as {needed}, although the loss is finite")
    return values
