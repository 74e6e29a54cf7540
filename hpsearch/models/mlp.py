"""The multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from hpsearch.models.activations import activation as activation_named
from hpsearch.models.activations import pieces
from hpsearch.models.initialisation import initialise


class MLP(nn.Module):
    """Inputs (N, ...) flattened to (N, inputs), through `hidden` layers, to outputs (N, classes).

    With `classes=1` the output is one number, shape (N, 1), as that of a `Perceptron`. `initialisation` is one of the
    names of `hpsearch.models.initialise`.
    """

    def __init__(
        self,
        *,
        inputs: int = 784,
        hidden: Sequence[int] = (128,),
        classes: int = 10,
        activation: str = "relu",
        dropout: float = 0.0,
        initialisation: str = "default",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for narrow, wide in pairwise((inputs, *hidden)):
            layers += [nn.Linear(narrow, wide * pieces(activation)), activation_named(activation)]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], classes))
        initialise(self, initialisation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs, shape (N, classes)."""
        outputs: Tensor = self.layers(inputs)
        return outputs
