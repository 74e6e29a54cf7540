"""Networks as tutorials and libraries write them, each with data of its shape: what strangers bring to hpsearch.

`NETS` has a `Net` by name: how to build the model from its width, and the data set's function.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch import BinaryCrossEntropy, CrossEntropy, Dataset, Split, import_torchvision

CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model for data of a shape. `exports` says whether `torch.export` can take it."""

    model: Callable[[int], nn.Module]
    data: Callable[[], Dataset]
    loss: Callable[[], Any] = field(default=CrossEntropy)
    batch_size: int = 8
    exports: bool = True


def split(shape: tuple[int, ...], seed: int, size: int) -> Split:
    """Noise whose mean tells the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % CLASSES
    noise = torch.randn(size, *shape, generator=generator)
    return Split(noise + targets.view(-1, *[1] * len(shape)), targets)


def of_shape(*shape: int, train: int = 26) -> Callable[[], Dataset]:
    def dataset() -> Dataset:
        parts = [split(shape, seed, size) for seed, size in enumerate((train, 9, 9))]
        return Dataset(train=parts[0], validation=parts[1], test=parts[2], classes=tuple("abc"))

    return dataset


def words() -> Dataset:
    """Sentences of six words out of twenty; a class has words of its own."""
    parts = []
    for seed, size in enumerate((26, 9, 9)):
        targets = torch.arange(size) % CLASSES
        drawn = torch.randint(0, 6, (size, 6), generator=torch.Generator().manual_seed(seed))
        parts.append(Split(drawn + 6 * targets[:, None], targets))
    return Dataset(train=parts[0], validation=parts[1], test=parts[2], classes=tuple("abc"))


def two_classes() -> Dataset:
    """Targets (N, 1), as a data frame's column gives them."""
    parts = []
    for seed, size in enumerate((26, 9, 9)):
        inputs, targets = split((4,), seed, size)
        parts.append(Split(inputs, (targets > 0).long().unsqueeze(1)))
    return Dataset(train=parts[0], validation=parts[1], test=parts[2], classes=("no", "yes"))


class Augmented(torch.utils.data.Dataset[Any]):
    """A torch `Dataset` with random transforms, drawn from three generators."""

    def __init__(self, images: Split) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images.inputs[index]
        if random.random() < 0.5:
            image = image.flip(-1)
        image = image * float(np.random.uniform(0.9, 1.1)) + 0.1 * torch.randn(())
        return image, int(self.images.targets[index])


def augmented() -> Dataset:
    train, validation, test = (split((1, 8, 8), seed, size) for seed, size in enumerate((26, 9, 9)))
    return Dataset(train=Augmented(train), validation=Augmented(validation), test=test, classes=tuple("abc"))


class Tutorial(nn.Module):
    """PyTorch's 60-minute blitz, smaller: `view` after the convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(width, 4, 3)
        self.fc1 = nn.Linear(4 * 2 * 2, 16)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = x.view(-1, 4 * 2 * 2)
        return self.fc2(functional.relu(self.fc1(x)))


class Example(nn.Module):
    """PyTorch's MNIST example, smaller: dropout by channels, `log_softmax` at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.drop = nn.Dropout2d(0.25)
        self.fc = nn.Linear(width * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(functional.max_pool2d(functional.relu(self.conv(x)), 2))
        return functional.log_softmax(self.fc(torch.flatten(x, 1)), dim=1)


class ReadsValues(nn.Module):
    """Computes with numbers when it is built, as stochastic depth and many initialisations do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        rates = [rate.item() for rate in torch.linspace(0, 0.2, 2)]
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(rates[1]), nn.Linear(width, CLASSES))
        scale = np.sqrt(np.abs(self.layers[0].weight.detach().numpy()).mean())
        with torch.no_grad():
            self.layers[0].weight.mul_(float(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """An encoder over words with learned positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4 * width)
        self.positions = nn.Parameter(torch.zeros(1, 6, 4 * width))
        layer = nn.TransformerEncoderLayer(4 * width, nhead=2, dim_feedforward=16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens) + self.positions).mean(dim=1))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """An LSTM over a series; its last state decides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4 * width, batch_first=True)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, series: Tensor) -> Tensor:
        _, (state, _) = self.lstm(series)
        return self.head(state[-1])  # type: ignore[no-any-return]


class Bag(nn.Module):
    """The mean of the words' embeddings, as in PyTorch's tutorial on text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(20, 4 * width)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))  # type: ignore[no-any-return]


class Spectral(nn.Module):
    """Complex weights on the Fourier transform, as in Fourier neural operators."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, width, dtype=torch.complex64) / 3)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((torch.fft.rfft(x) @ self.weight).abs())  # type: ignore[no-any-return]


class Caching(nn.Module):
    """Keeps a table of positions, made when it is first needed: here when it is evaluated, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.head = nn.Linear(width, CLASSES)
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < len(x) or not self.training:
            self.table = (1 + torch.arange(len(x)) / 20).unsqueeze(1)
        return self.head(self.layer(x).relu() * self.table[: len(x)])  # type: ignore[no-any-return]


class Temperature(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs * self.scale.exp(), targets)


class OneOutput(nn.Module):
    """A logistic regression that drops the last dimension, as many do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze()  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(8, 8)
        self.up = nn.Linear(8, 8)
        self.up.weight = self.down.weight
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.down(x).relu()))  # type: ignore[no-any-return]


def convolution(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4 * width, 3, padding=1),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


def of_torchvision(name: str) -> Callable[[int], nn.Module]:
    return lambda width: getattr(import_torchvision("models"), name)(num_classes=CLASSES)  # type: ignore[no-any-return]


def sequential(*layers: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda width: nn.Sequential(*[layer(width) for layer in layers])


NETS = {
    "view after convolutions": Net(model=Tutorial, data=of_shape(3, 14, 14)),
    "channels dropped": Net(model=Example, data=of_shape(1, 8, 8), loss=nn.NLLLoss),
    "batch norm": Net(
        model=sequential(lambda w: nn.Linear(4, 4 * w), lambda w: nn.BatchNorm1d(4 * w), lambda w: nn.Linear(4 * w, 3)),
        # The last batch is a single example.
        data=of_shape(4, train=25),
    ),
    "depthwise": Net(model=convolution, data=of_shape(1, 8, 8)),
    "values read when built": Net(model=ReadsValues, data=of_shape(4)),
    "a series": Net(
        model=sequential(
            lambda w: nn.Conv1d(2, 4 * w, 3),
            lambda w: nn.AdaptiveMaxPool1d(1),
            lambda w: nn.Flatten(),
            lambda w: nn.Linear(4 * w, 3),
        ),
        data=of_shape(2, 12),
    ),
    "volumes": Net(
        model=sequential(
            lambda w: nn.Conv3d(1, w, 3), lambda w: nn.ReLU(), lambda w: nn.Flatten(), lambda w: nn.Linear(8 * w, 3)
        ),
        data=of_shape(1, 4, 4, 4),
    ),
    "lazy": Net(
        model=sequential(
            lambda w: nn.LazyConv2d(w, 3),
            lambda w: nn.LazyBatchNorm2d(),
            lambda w: nn.Flatten(),
            lambda w: nn.LazyLinear(3),
        ),
        data=of_shape(3, 6, 6),
    ),
    "complex": Net(model=Spectral, data=of_shape(8)),
    "transformer": Net(model=Transformer, data=words),
    "LSTM": Net(model=Recurrent, data=of_shape(6, 4)),
    "embedding bag": Net(model=Bag, data=words),
    "cached tensors": Net(model=Caching, data=of_shape(4), exports=False),
    "loss with parameters": Net(
        model=sequential(lambda w: nn.Linear(4, w), lambda w: nn.Linear(w, 3)), data=of_shape(4), loss=Temperature
    ),
    "class weights": Net(
        model=sequential(lambda w: nn.Linear(4, w), lambda w: nn.Linear(w, 3)),
        data=of_shape(4),
        loss=lambda: nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5])),
    ),
    "one output, squeezed": Net(model=OneOutput, data=two_classes, loss=BinaryCrossEntropy),
    "tied weights": Net(model=Tied, data=of_shape(8)),
    "augmented": Net(model=Example, data=augmented, loss=nn.NLLLoss),
    "resnet18": Net(model=of_torchvision("resnet18"), data=of_shape(3, 32, 32, train=10), batch_size=5),
    "mobilenet": Net(model=of_torchvision("mobilenet_v3_small"), data=of_shape(3, 32, 32, train=10), batch_size=5),
}
