"""Models to start from. A recipe may use any other `nn.Module` as well."""

from hpsearch.models.activations import ACTIVATIONS, Maxout, activation
from hpsearch.models.gradients import gradient_norms
from hpsearch.models.initialisation import INITIALISATIONS, initialise
from hpsearch.models.lenet import LeNet
from hpsearch.models.mlp import MLP
from hpsearch.models.perceptron import Perceptron

__all__ = [
    "ACTIVATIONS",
    "INITIALISATIONS",
    "MLP",
    "LeNet",
    "Maxout",
    "Perceptron",
    "activation",
    "gradient_norms",
    "initialise",
]
