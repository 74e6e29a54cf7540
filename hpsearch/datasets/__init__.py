"""Data sets: decoded and normalised once, split with a seed, kept in memory as tensors.

A data set is any function without arguments that returns a `Dataset`. Digits come with scikit-learn; MNIST,
Fashion-MNIST and CIFAR-10 are read by torchvision from the data folder (`--data` or `$HPSEARCH_DATA`) or downloaded to
it; `images` and `table` read the user's own images and tables.
"""

from hpsearch.datasets.builtin import digits, points
from hpsearch.datasets.dataset import Dataset, Examples, Split, as_pair, fingerprint, length
from hpsearch.datasets.downloads import (
    CIFAR10_CLASSES,
    FASHION_CLASSES,
    cifar10,
    fashion_mnist,
    import_torchvision,
    mnist,
)
from hpsearch.datasets.folders import DATA_VARIABLE, data_folder
from hpsearch.datasets.image_folder import images
from hpsearch.datasets.preprocessing import preprocessed
from hpsearch.datasets.tables import table

__all__ = [
    "CIFAR10_CLASSES",
    "DATA_VARIABLE",
    "FASHION_CLASSES",
    "Dataset",
    "Examples",
    "Split",
    "as_pair",
    "cifar10",
    "data_folder",
    "digits",
    "fashion_mnist",
    "fingerprint",
    "images",
    "import_torchvision",
    "length",
    "mnist",
    "points",
    "preprocessed",
    "table",
]
