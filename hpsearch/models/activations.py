"""Activation functions by name."""

from collections.abc import Callable

from torch import Tensor, nn

from hpsearch.errors import UsageError


class Maxout(nn.Module):
    """The largest of `pieces` linear functions: (N, pieces x outputs, ...) to (N, outputs, ...).

    The layer before it computes the pieces of one output next to each other.
    Goodfellow, Warde-Farley, Mirza, Courville and Bengio, *Maxout networks*, ICML 2013.
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the largest piece of each output."""
        largest: Tensor = inputs.unflatten(1, (-1, self.pieces)).amax(dim=2)
        return largest


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "maxout": Maxout,
}


def activation(name: str) -> nn.Module:
    """Return a new activation module. Raises UsageError for an unknown name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]()


def pieces(name: str) -> int:
    """Return how many inputs an activation takes for each of its outputs: 2 for maxout, 1 for the others."""
    return getattr(activation(name), "pieces", 1)
