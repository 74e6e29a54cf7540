"""Throughput through a `DataLoader` with two workers: the shared loop against a loop written by hand.

    python tests/benchmarks/loader.py

LeNet-5, SGD with momentum, batches of 64, the digits enlarged to 28x28 and repeated to 4,000 images; one thread trains.
Each image is read as a PIL picture through a random affine transform, `ToTensor` and `Normalize`. The three train in
turn, round after round, in one process, and all evaluate 500 validation images after the epoch; printed are images per
second (the median round) and the ratios. The loop by hand has a `DataLoader` of two persistent workers for each split,
as the shared loop has. `in memory` is the shared loop on the same images as tensors, normalised and not augmented.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from hpsearch import SGD, Dataset, LeNet, Recipe, Space, Split, Study, digits, import_torchvision
from hpsearch.training import Run, train

IMAGES, VALIDATION, BATCH, WORKERS, ROUNDS = 4_000, 500, 64, 2, 7


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    whole = digits()
    data = replace(whole, train=_repeated(whole.train, IMAGES), validation=_repeated(whole.validation, VALIDATION))
    pictures = replace(
        data, train=Pictures(data.train), validation=Pictures(data.validation), loader_workers=WORKERS, test=None
    )
    epochs = [shared(pictures), by_hand(pictures), shared(data)]
    seconds: list[list[float]] = [[], [], []]
    for _ in range(ROUNDS + 1):
        for epoch, times in zip(epochs, seconds, strict=True):
            began = time.perf_counter()
            epoch()
            times.append(time.perf_counter() - began)
    ours, hand, memory = (IMAGES / statistics.median(times[1:]) for times in seconds)
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{versions}, {WORKERS} loader workers, median of {ROUNDS} rounds")
    print(f"{'shared':>9} {'by hand':>9} {'in memory':>10}   shared/by hand  in memory/shared   (images/s)")
    print(f"{ours:9,.0f} {hand:9,.0f} {memory:10,.0f}   {ours / hand:14.2f}  {memory / ours:16.2f}")


class Pictures(torch.utils.data.Dataset[Any]):
    """The images of a split as PIL pictures, augmented at random."""

    def __init__(self, split: Any) -> None:
        transforms = import_torchvision("transforms")
        low, high = split.inputs.min(), split.inputs.max()
        self._pixels = ((split.inputs[:, 0] - low) / (high - low) * 255).byte().numpy()
        self._targets = split.targets.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomAffine(degrees=10, translate=(0.1, 0.1)),
                transforms.ToTensor(),
                transforms.Normalize((0.3,), (0.4,)),
            ]
        )

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Any:
        return self._transform(Image.fromarray(self._pixels[index])), self._targets[index]


def shared(data: Dataset) -> Callable[[], Any]:
    """Return one epoch of the shared loop."""

    def recipe(space: Space) -> Recipe:
        return Recipe(model=LeNet(), optimizer=SGD(lr=0.01, momentum=0.9), batch_size=BATCH)

    epochs = train(Run(Study(recipe=recipe, dataset=lambda: data, epochs=10_000), {}, data, seed=0))
    return lambda: next(epochs)


def by_hand(data: Dataset) -> Callable[[], Any]:
    """Return one epoch of a loop written by hand, as tutorials do it."""
    settings: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    loader, validation = DataLoader(data.train, shuffle=True, **settings), DataLoader(data.validation, **settings)  # type: ignore[arg-type]
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        model.train()
        for inputs, targets in loader:
            loss = criterion(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for inputs, targets in validation:
                correct += int((model(inputs).argmax(dim=1) == targets).sum())

    return epoch


def _repeated(split: Any, count: int) -> Split:
    order = torch.arange(count) % len(split)
    return Split(split.inputs[order], split.targets[order])


if __name__ == "__main__":
    main()
