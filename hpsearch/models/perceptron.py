"""The perceptron: one linear neuron.

Rosenblatt, *The perceptron: a probabilistic model for information storage and organization in the brain*,
Psychological Review 65 (1958).
"""

from torch import Tensor, nn

from hpsearch.models.initialisation import initialise


class Perceptron(nn.Module):
    """Inputs (N, ...) flattened to (N, inputs), to f = W'x + b, shape (N, 1); f > 0 is the positive class.

    With `BinaryCrossEntropy` it is a sigmoid neuron, that is, logistic regression.
    """

    def __init__(self, *, inputs: int = 2, initialisation: str = "default") -> None:
        super().__init__()
        self.neuron = nn.Linear(inputs, 1)
        initialise(self, initialisation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return f, shape (N, 1)."""
        outputs: Tensor = self.neuron(inputs.flatten(1))
        return outputs
