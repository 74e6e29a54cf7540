"""Epoch throughput of augmentation on whole batches in memory against torchvision's transforms in a `DataLoader`.

    python tests/benchmarks/augmentation.py

LeNet-5 on colour images of 32x32, SGD with momentum, batches of 128, one thread: the digits as 5,000 JPEG files in
class folders. Both crop at random after padding by 4, flip, rotate by up to 15 degrees in the second case, and
normalise. torchvision's `ImageFolder` is read by two worker processes; the shared loop augments the tensors of
`hpsearch.images` in its own process, and evaluates 500 validation images besides. The two train in turn, round after
round; printed are images per second (the median round) and their ratio, and what each augmentation takes alone.
"""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from hpsearch import (
    SGD,
    CutMix,
    Dataset,
    LeNet,
    MixUp,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    Recipe,
    Space,
    Split,
    Study,
    digits,
    images,
)
from hpsearch.datasets import import_torchvision
from hpsearch.training import Run, train

IMAGES, BATCH, ROUNDS, WORKERS = 5_000, 128, 3, 2


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        measure(folder)


def write(folder: Path) -> None:
    """Write the digits as JPEG files, training and validation images."""
    whole = digits(size=32)
    for name, split, count in (("train", whole.train, IMAGES), ("validation", whole.validation, 500)):
        assert isinstance(split, Split)
        low, high = split.inputs.min(), split.inputs.max()
        pixels = ((split.inputs - low) / (high - low) * 255).byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        for number in range(count):
            index = number % len(split)
            path = folder / name / str(int(split.targets[index])) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index]).save(path)


def measure(folder: Path) -> None:
    """Print the tables, of the images in a folder."""
    data = images(folder, size=32)
    assert isinstance(data.train, Split)
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{versions}, median of {ROUNDS} rounds, one thread, {WORKERS} DataLoader workers")
    print(f"{'':12} {'in memory':>10} {'DataLoader':>11} {'ratio':>6}   (images/s)")
    for name, ours, theirs in CASES:
        epochs = [shared(data, ours), loaded(folder / "train", theirs())]
        seconds: list[list[float]] = [[], []]
        for _ in range(ROUNDS + 1):
            for epoch, times in zip(epochs, seconds, strict=True):
                began = time.perf_counter()
                epoch()
                times.append(time.perf_counter() - began)
        in_memory, by_loader = (IMAGES / statistics.median(times[1:]) for times in seconds)
        print(f"{name:12} {in_memory:10,.0f} {by_loader:11,.0f} {in_memory / by_loader:6.1f}")
    print(f"\nms for a batch of {BATCH} images of 3x32x32")
    inputs, targets = data.train.inputs[:BATCH], nn.functional.one_hot(data.train.targets[:BATCH], 10).float()
    for augmentation in (RandomCrop(4), RandomFlip(), RandomRotation(15), RandomErasing(), MixUp(0.2), CutMix(1.0)):
        times = []
        for _ in range(50):
            began = time.perf_counter()
            augmentation(inputs, targets)
            times.append(time.perf_counter() - began)
        print(f"{type(augmentation).__name__:15} {statistics.median(times) * 1000:6.2f}")


def flips() -> list[Any]:
    """Return torchvision's transforms of the first case."""
    import_torchvision("transforms")
    from torchvision import transforms

    return [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]


def rotations() -> list[Any]:
    """Return torchvision's transforms of the second case."""
    from torchvision import transforms

    bilinear = transforms.InterpolationMode.BILINEAR
    return [*flips(), transforms.RandomRotation(15, interpolation=bilinear)]


CASES: list[tuple[str, Sequence[Any], Callable[[], list[Any]]]] = [
    ("crop, flip", (RandomCrop(4), RandomFlip()), flips),
    ("and rotate", (RandomCrop(4), RandomFlip(), RandomRotation(15)), rotations),
]


def shared(data: Dataset, augment: Sequence[Any]) -> Callable[[], Any]:
    """Return one epoch of the shared loop."""

    def recipe(space: Space) -> Recipe:
        optimizer = SGD(lr=0.01, momentum=0.9)
        return Recipe(model=LeNet(channels=3, size=32), optimizer=optimizer, batch_size=BATCH, augment=augment)

    epochs = train(Run(Study(recipe=recipe, dataset=lambda: data, epochs=10_000), {}, data, seed=0))
    return lambda: next(epochs)


def loaded(folder: Path, augment: list[Any]) -> Callable[[], Any]:
    """Return one epoch fed by a `DataLoader`."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize((0.3,) * 3, (0.4,) * 3)])
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    model = LeNet(channels=3, size=32)
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
