"""Hyperparameter search for PyTorch models. Everything a study file needs can be imported from here.

Names are imported on first use, so that `hpsearch --help` need not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpsearch.augmentation import CutMix, MixUp, RandomCrop, RandomErasing, RandomFlip, RandomRotation
    from hpsearch.datasets import (
        Dataset,
        Split,
        cifar10,
        digits,
        fashion_mnist,
        images,
        import_torchvision,
        mnist,
        points,
        table,
    )
    from hpsearch.errors import HpsearchError, UsageError
    from hpsearch.measure import Measure
    from hpsearch.models import MLP, LeNet, Perceptron, gradient_norms
    from hpsearch.optim import (
        L1,
        MSE,
        SGD,
        Adagrad,
        Adam,
        AdamW,
        BinaryCrossEntropy,
        Cosine,
        CrossEntropy,
        NormalizedGradient,
        OneCycle,
        PerceptronCriterion,
        Plateau,
        RMSprop,
        Warmup,
    )
    from hpsearch.own_training import Training
    from hpsearch.space import Space
    from hpsearch.stopping import EarlyStopping
    from hpsearch.study import Recipe, Steps, Study

_HOME = {
    "hpsearch.augmentation": ["CutMix", "MixUp", "RandomCrop", "RandomErasing", "RandomFlip", "RandomRotation"],
    "hpsearch.datasets": [
        "Dataset",
        "Split",
        "cifar10",
        "digits",
        "fashion_mnist",
        "images",
        "import_torchvision",
        "mnist",
        "points",
        "table",
    ],
    "hpsearch.errors": ["HpsearchError", "UsageError"],
    "hpsearch.measure": ["Measure"],
    "hpsearch.models": ["MLP", "LeNet", "Perceptron", "gradient_norms"],
    "hpsearch.optim": [
        "L1",
        "MSE",
        "SGD",
        "Adagrad",
        "Adam",
        "AdamW",
        "BinaryCrossEntropy",
        "Cosine",
        "CrossEntropy",
        "NormalizedGradient",
        "OneCycle",
        "PerceptronCriterion",
        "Plateau",
        "RMSprop",
        "Warmup",
    ],
    "hpsearch.own_training": ["Training"],
    "hpsearch.space": ["Space"],
    "hpsearch.stopping": ["EarlyStopping"],
    "hpsearch.study": ["Recipe", "Steps", "Study"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "L1",
    "MLP",
    "MSE",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "CutMix",
    "Dataset",
    "EarlyStopping",
    "HpsearchError",
    "LeNet",
    "Measure",
    "MixUp",
    "NormalizedGradient",
    "OneCycle",
    "Perceptron",
    "PerceptronCriterion",
    "Plateau",
    "RMSprop",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomRotation",
    "Recipe",
    "Space",
    "Split",
    "Steps",
    "Study",
    "Training",
    "UsageError",
    "Warmup",
    "cifar10",
    "digits",
    "fashion_mnist",
    "gradient_norms",
    "images",
    "import_torchvision",
    "mnist",
    "points",
    "table",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'hpsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE[name]), name)
