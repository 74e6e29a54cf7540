"""Data sets: decoded and normalised once, split with a seed, kept in memory as tensors.

A data set is any function without arguments that returns a `Dataset`. Digits come with scikit-learn; MNIST and
Fashion-MNIST are read by torchvision from the data folder (`--data` or `$HPSEARCH_DATA`) or downloaded to it.
"""

from hpsearch.datasets.builtin import digits, points
from hpsearch.datasets.dataset import Dataset, Examples, Split, as_pair, fingerprint, length
from hpsearch.datasets.downloads import FASHION_CLASSES, fashion_mnist, import_torchvision, mnist
from hpsearch.datasets.folders import DATA_VARIABLE, data_folder

__all__ = [
    "DATA_VARIABLE",
    "FASHION_CLASSES",
    "Dataset",
    "Examples",
    "Split",
    "as_pair",
    "data_folder",
    "digits",
    "fashion_mnist",
    "fingerprint",
    "import_torchvision",
    "length",
    "mnist",
    "points",
]
