"""Epoch throughput of the shared loop against a bare hand-written loop and against a `DataLoader`.

    python tests/benchmarks/loop.py

LeNet-5, SGD with momentum, batches of 64, the digits enlarged to 28x28 and repeated to 10,000 images. The three train
in turn, round after round, in one process; printed are images per second (the median round) and the ratios, one and two
threads. The bare loop indexes tensors in memory by a permutation and does nothing else: no accuracy, no evaluation, no
checks. The `DataLoader` reads the same images as PIL pictures through `ToTensor` and `Normalize`, as tutorials do. The
shared loop counts all it does, the evaluation of 500 validation images included.
"""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import nn

from hpsearch import SGD, Dataset, LeNet, Recipe, Space, Split, Study, digits
from hpsearch.datasets import import_torchvision
from hpsearch.training import Run, train

IMAGES, BATCH, ROUNDS = 10_000, 64, 7


def main() -> None:
    """Print the table."""
    whole = digits()
    assert isinstance(whole.train, Split)
    order = torch.arange(IMAGES) % len(whole.train)
    data = Split(whole.train.inputs[order], whole.train.targets[order])
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{versions}, median of {ROUNDS} rounds")
    print(f"{'threads':>7} {'shared':>9} {'bare':>9} {'DataLoader':>11}   shared/bare  shared/DataLoader   (images/s)")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        epochs = [shared(data, whole), bare(data), loaded(data)]
        seconds: list[list[float]] = [[], [], []]
        for _ in range(ROUNDS + 1):
            for epoch, times in zip(epochs, seconds, strict=True):
                began = time.perf_counter()
                epoch()
                times.append(time.perf_counter() - began)
        ours, by_hand, by_loader = (IMAGES / statistics.median(times[1:]) for times in seconds)
        ratios = f"{ours / by_hand:11.2f}  {ours / by_loader:17.2f}"
        print(f"{threads:7} {ours:9,.0f} {by_hand:9,.0f} {by_loader:11,.0f}   {ratios}")


def shared(data: Split, whole: Dataset) -> Callable[[], Any]:
    """Return one epoch of the shared loop."""
    assert isinstance(whole.validation, Split)
    validation = Split(whole.validation.inputs[:500], whole.validation.targets[:500])

    def recipe(space: Space) -> Recipe:
        return Recipe(model=LeNet(), optimizer=SGD(lr=0.01, momentum=0.9), batch_size=BATCH)

    study = Study(recipe=recipe, dataset=lambda: whole, epochs=10_000)
    kept = Dataset(train=data, validation=validation, test=None, classes=whole.classes)
    epochs = train(Run(study, {}, kept, seed=0))
    return lambda: next(epochs)


def bare(data: Split) -> Callable[[], Any]:
    """Return one epoch of a loop written by hand."""
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        order = torch.randperm(IMAGES)
        for start in range(0, IMAGES, BATCH):
            indices = order[start : start + BATCH]
            loss = criterion(model(data.inputs[indices]), data.targets[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def loaded(data: Split) -> Callable[[], Any]:
    """Return one epoch fed by a `DataLoader`."""
    import_torchvision("datasets")
    from torchvision import transforms

    pixels = ((data.inputs[:, 0] - data.inputs.min()) / (data.inputs.max() - data.inputs.min()) * 255).byte().numpy()
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.3,), (0.4,))])

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> Any:
            return transform(Image.fromarray(pixels[index])), int(data.targets[index])

    loader = torch.utils.data.DataLoader(Pictures(), batch_size=BATCH, shuffle=True)
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        for inputs, targets in loader:
            loss = criterion(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
