"""Models to start from. A recipe may return any other `nn.Module` as well."""

from hpsearch.models.activations import ACTIVATIONS, activation
from hpsearch.models.lenet import LeNet
from hpsearch.models.mlp import MLP

__all__ = ["ACTIVATIONS", "MLP", "LeNet", "activation"]
