"""Three trainings of one's own: scikit-learn by `partial_fit`, boosting by rounds, and a GAN."""

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from torch import Tensor, nn

from hpsearch import Dataset, Space, Split, Study, Training, digits


def arrays(examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return flat inputs and targets."""
    assert isinstance(examples, Split)
    return examples.inputs.flatten(1).numpy().astype(np.float64), examples.targets.numpy()


class Linear(Training):
    """A linear classifier of scikit-learn, an epoch by `partial_fit` on shuffled examples."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        """Make the classifier."""
        self.inputs, self.targets = arrays(data.train)
        self.model = SGDClassifier(loss="log_loss", alpha=self.alpha, random_state=seed % 2**32, shuffle=False)

    def train_epoch(self) -> Mapping[str, float]:
        """Train on all examples in a new order, which numpy's generator gives."""
        order = np.random.permutation(len(self.targets))
        self.model.partial_fit(self.inputs[order], self.targets[order], classes=range(10))
        return {"accuracy": self.model.score(self.inputs, self.targets)}

    def evaluate(self, examples: Any) -> Mapping[str, float]:
        """Return accuracy and loss."""
        inputs, targets = arrays(examples)
        loss = log_loss(targets, self.model.predict_proba(inputs), labels=range(10))
        return {"accuracy": self.model.score(inputs, targets), "loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """Return the classifier."""
        return {"model": pickle.dumps(self.model)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.model = pickle.loads(state["model"])


class Boosting(Linear):
    """Gradient boosting of scikit-learn; an epoch is a round of two trees for each class."""

    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        """Make the classifier."""
        self.inputs, self.targets = (part[:200] for part in arrays(data.train))
        self.model = GradientBoostingClassifier(
            n_estimators=0,
            learning_rate=self.alpha,
            max_depth=2,
            warm_start=True,
            random_state=seed % 2**32,
            max_features=8,
        )

    def train_epoch(self) -> Mapping[str, float]:
        """Add two trees for each class."""
        self.model.n_estimators += 2
        self.model.fit(self.inputs, self.targets)
        return {}


class Gan(Training):
    """A generator of points and a discriminator; the measure is how far the points' mean and spread are off."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        """Make both networks and their optimisers."""
        assert isinstance(data.train, Split)
        self.real = data.train.inputs.flatten(1)[:, 30:32]
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)).to(device)
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1)).to(device)
        self.parts = [self.generator, self.discriminator]
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=self.alpha) for part in self.parts]

    @property
    def parameters(self) -> int:
        """The parameters of both."""
        return sum(parameter.numel() for part in self.parts for parameter in part.parameters())

    def train_epoch(self) -> Mapping[str, float]:
        """Train both on batches of 64 in turn."""
        total = 0.0
        for batch in self.real[torch.randperm(len(self.real))].split(64)[:8]:
            for index, (real, fake) in enumerate(((0.0, 1.0), (1.0, 0.0))):
                made = self.generator(torch.randn(len(batch), 2))
                loss = self._loss(made, fake) + (self._loss(batch, real) if index else 0.0)
                self.optimizers[index].zero_grad()
                loss.backward()
                self.optimizers[index].step()
                total += loss.item()
        return {"loss": total}

    def _loss(self, points: Tensor, answer: float) -> Tensor:
        outputs = self.discriminator(points)
        return nn.functional.binary_cross_entropy_with_logits(outputs, torch.full_like(outputs, answer))

    def evaluate(self, examples: Any) -> Mapping[str, float]:
        """Return how far mean and deviation of the points are from the real ones'."""
        with torch.no_grad():
            made = self.generator(torch.randn(500, 2))
        real = examples.inputs.flatten(1)[:, 30:32]
        distance = (made.mean(0) - real.mean(0)).norm() + (made.std(0) - real.std(0)).norm()
        return {"distance": distance}  # type: ignore[dict-item]

    def state_dict(self) -> dict[str, Any]:
        """Return networks and optimisers."""
        return {"parts": [part.state_dict() for part in (*self.parts, *self.optimizers)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        for part, loaded in zip((*self.parts, *self.optimizers), state["parts"], strict=True):
            part.load_state_dict(loaded)


def recipe(space: Space) -> Training:
    """Any of them."""
    kinds = {"linear": Linear, "boosting": Boosting}
    return space.choice("kind", kinds)(alpha=space.float("alpha", 1e-4, 1.0, log=True))


study = Study(recipe=recipe, dataset=digits, epochs=6, n_trials=8, sampler="random", pruner="asha:reduction_factor=2")
