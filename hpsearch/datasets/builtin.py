"""Data sets that need no files."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.datasets.dataset import Dataset, Split
from hpsearch.datasets.preprocessing import preprocessed
from hpsearch.datasets.splitting import stratified


def digits(*, size: int = 28, seed: int = 0) -> Dataset:
    """1,797 handwritten digits, enlarged from 8x8 to `size` x `size` so that the models for MNIST fit.

    Split 60 / 20 / 20, stratified. Source: E. Alpaydin and C. Kaynak, UCI repository 1998, as shipped with
    scikit-learn: no download.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images)
    targets = torch.tensor(bunch.target, dtype=torch.int64)
    rest, test = stratified(images, targets, 360, seed)
    train, validation = stratified(*rest, 360, seed)
    return preprocessed(
        _Enlarging(train.inputs, size), train=train, validation=validation, test=test, classes=tuple("0123456789")
    )


class _Enlarging(nn.Module):
    """Makes inputs (N, 1, size, size) of digits (N, 8, 8) from 0 to 16; zero mean and unit variance over `train`."""

    def __init__(self, train: Tensor, size: int) -> None:
        super().__init__()
        self.about = {"description": "digits of 8x8 pixels from 0 to 16, as sklearn.datasets.load_digits().images"}
        self.size = size
        enlarged = self._enlarged(train).double()
        # In double precision: otherwise the last bits, and so the data's fingerprint, differ between machines.
        self.mean, self.deviation = float(enlarged.mean().float()), float(enlarged.std().float())

    def forward(self, digits: Tensor) -> Tensor:
        """Return the inputs of digits."""
        return (self._enlarged(digits) - self.mean) / self.deviation

    def _enlarged(self, digits: Tensor) -> Tensor:
        images = digits.to(torch.float32).unsqueeze(1) / 16
        return functional.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)


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
