"""Weight initialisations by name."""

from collections.abc import Callable

from torch import Tensor, nn

from hpsearch.errors import UsageError


def _normal(weight: Tensor) -> None:
    nn.init.normal_(weight, std=0.01)


def _he(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


INITIALISATIONS: dict[str, Callable[[Tensor], object]] = {
    "xavier": nn.init.xavier_normal_,
    "he": _he,
    "normal": _normal,
    "zeros": nn.init.zeros_,
}


def initialise(model: nn.Module, name: str) -> None:
    """Initialise the weights of every linear and convolution layer of `model`, and set their biases to zero.

    `xavier`: variance 2 / (inputs + outputs), made for tanh (Glorot and Bengio, AISTATS 2010).
    `he`: variance 2 / inputs, made for ReLU (He, Zhang, Ren and Sun, arXiv 1502.01852).
    `normal`: standard deviation 0.01 whatever the layer's size, as before those two (Krizhevsky et al., NIPS 2012).
    `zeros`: for a single layer only; the neurons of a hidden layer would stay equal.
    `default`: torch's own, uniform within ± 1 / sqrt(inputs), biases too.
    Raises UsageError for an unknown name.
    """
    if name == "default":
        return
    if name not in INITIALISATIONS:
        raise UsageError(f"initialisation must be one of default, {', '.join(INITIALISATIONS)}; got {name!r}")
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            INITIALISATIONS[name](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
