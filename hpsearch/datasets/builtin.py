"""Data sets that need no files."""

import torch

from hpsearch.datasets.dataset import Dataset, Split
from hpsearch.datasets.splitting import normalised, stratified


def digits(*, size: int = 28, seed: int = 0) -> Dataset:
    """1,797 handwritten digits, enlarged from 8x8 to `size` x `size` so that the models for MNIST fit.

    Split 60 / 20 / 20, stratified. Source: E. Alpaydin and C. Kaynak, UCI repository 1998, as shipped with
    scikit-learn: no download.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    targets = torch.tensor(bunch.target, dtype=torch.int64)
    rest, test = stratified(images, targets, 360, seed)
    train, validation = stratified(*rest, 360, seed)
    train, validation, test = normalised(train, validation, test)
    return Dataset(train=train, validation=validation, test=test, classes=tuple("0123456789"))


def points(*, separable: bool = True) -> Dataset:
    """The course's eight points in the plane, classes 0 (-) and 1 (+); all eight are training, validation and test.

    A line separates the classes. With `separable=False` the origin is in the other class: along the line y = x / 2 the
    signs are then -, +, +, -, which no line separates.
    """
    positive = [(2.0, 1.0), (2.5, -1.0), (1.0, 0.5)]
    negative = [(6.0, 0.5), (5.0, 0.0), (4.0, -1.0), (3.0, 1.5)]
    (positive if separable else negative).append((0.0, 0.0))
    inputs = torch.tensor(positive + negative)
    targets = torch.tensor([1] * len(positive) + [0] * len(negative))
    split = Split(inputs, targets)
    note = "eight points, all of them for training, validation and test"
    return Dataset(train=split, validation=split, test=split, classes=("-", "+"), note=note)
