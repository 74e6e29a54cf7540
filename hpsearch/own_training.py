"""`Training`: the protocol under which anything trains that hpsearch's own loop does not fit.

A recipe may return one instead of a `Recipe`. The trial is then pruned, stopped early, resumed, kept and reported as
any other; `hpsearch.own_run` calls it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn

from hpsearch.datasets import Dataset, Examples


class Training(ABC):
    """A training of your own: of a GAN, by `partial_fit` of scikit-learn, by rounds of boosting, by another library.

        class Boosting(Training):
            def __init__(self, depth): ...
            def start(self, data, *, seed, device): ...
            def train_epoch(self): ...
            def evaluate(self, examples): return {"accuracy": ...}
            def state_dict(self): ...
            def load_state_dict(self, state): ...

        def recipe(space):
            return Boosting(depth=space.int("depth", 1, 6))

    A recipe is run many times to find out its parameters, so `__init__` should only keep them; what costs time belongs
    in `start`. `epochs` overrides the study's. A `model`, if given, is what `retrain` exports.

    torch, numpy and `random` are seeded before `start` and before each interval. If all that an epoch depends on is in
    the state or drawn from these, an interrupted trial continues as if it had not been interrupted.
    """

    epochs: int | None = None
    # The torch module that gives the answers, if there is one, from `start` on: `retrain` then writes it as a file of
    # its own, which needs no hpsearch, and reports on it as on other models.
    model: nn.Module | None = None

    @abstractmethod
    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        """Build the model, to be trained on `data.train`; `data.test` is None in a search."""

    @abstractmethod
    def train_epoch(self) -> Mapping[str, float] | None:
        """Train for an epoch, whatever that is; return measures of the training examples by name, or None.

        Without the study's measure among them, early stopping's `target` is never reached, as that needs both.
        """

    @abstractmethod
    def evaluate(self, examples: Examples) -> Mapping[str, float]:
        """Return measures of examples, `data.validation` or another split, by name; the study's must be among them."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch and `evaluate` depend on: tensors, dicts, lists, numbers, texts and bytes.

        Other objects as bytes, by `pickle.dumps`.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, after `start` with the same data and seed."""

    @property
    def parameters(self) -> int:
        """The number of trained parameters, if there is one."""
        return 0
