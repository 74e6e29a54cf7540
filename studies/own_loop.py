"""A training loop of one's own: an averaged perceptron that is corrected one mistake at a time.

A recipe may return any `Training`. It is pruned, resumed, kept and reported as others are; with a torch `model`, it is
exported as well.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch import Dataset, Space, Split, Study, Training, digits


class AveragedPerceptron(Training):
    """The multi-class perceptron; answers are those of the mean of its weights after every example.

    Freund and Schapire, *Large margin classification using the perceptron algorithm*, Machine Learning 37, 1999.
    """

    model: nn.Sequential

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        """Begin with weights of zero."""
        assert isinstance(data.train, Split)
        self.train = data.train
        self.weights = torch.zeros(10, 65)
        self.total = torch.zeros(10, 65)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def train_epoch(self) -> Mapping[str, float]:
        """Take the examples in a new order, and correct the weights where another class is too near."""
        mistakes = 0
        for index in torch.randperm(len(self.train)).tolist():
            example, target = torch.cat([self.train.inputs[index].flatten(), torch.ones(1)]), self.train.targets[index]
            outputs = self.weights @ example
            rival = (outputs - 1e9 * nn.functional.one_hot(target, 10)).argmax()
            if outputs[target] - outputs[rival] <= self.margin:
                mistakes += int(outputs[target] <= outputs[rival])
                self.weights[target] += example
                self.weights[rival] -= example
            self.total += self.weights
        scale = self.total.abs().max()
        self.model[1].load_state_dict({"weight": self.total[:, :64] / scale, "bias": self.total[:, 64] / scale})
        return {"accuracy": 1 - mistakes / len(self.train)}

    def evaluate(self, examples: Any) -> Mapping[str, float]:
        """Return the accuracy."""
        with torch.no_grad():
            correct: Tensor = self.model(examples.inputs).argmax(dim=1) == examples.targets
        return {"accuracy": float(correct.double().mean())}

    def state_dict(self) -> dict[str, Any]:
        """Return all weights."""
        return {"weights": self.weights, "total": self.total, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.weights, self.total = state["weights"], state["total"]
        self.model.load_state_dict(state["model"])


def small_digits() -> Dataset:
    """Return the digits in 8x8."""
    return digits(size=8)


def recipe(space: Space) -> Training:
    """Only the margin is searched."""
    return AveragedPerceptron(margin=space.float("margin", 0.01, 1000.0, log=True))


study = Study(recipe=recipe, dataset=small_digits, epochs=5, n_trials=8)
