"""Epoch throughput of augmentation on whole batches in memory against torchvision's transforms in a `DataLoader`.

    python tests/benchmarks/augmentation.py

A small convolutional network, SGD with momentum, batches of 128, the digits as 5,000 colour images of 32x32, one
thread. Both crop at random after padding by 4, flip, rotate by up to 15 degrees in the second case, and normalise. The
`DataLoader` has two worker processes, which read the images, decoded already, as PIL pictures, one by one; the shared
loop augments tensors in its own process, and evaluates 500 validation images besides. The two train in turn, round
after round; printed are images per second (the median round) and their ratio, and what each augmentation takes alone.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from hpsearch import (
    SGD,
    CutMix,
    Dataset,
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
)
from hpsearch.datasets import import_torchvision
from hpsearch.training import Run, train

IMAGES, BATCH, ROUNDS, WORKERS = 5_000, 128, 3, 2


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    whole = digits(size=32)
    assert isinstance(whole.train, Split)
    order = torch.arange(IMAGES) % len(whole.train)
    data = Split(whole.train.inputs[order].expand(-1, 3, -1, -1).contiguous(), whole.train.targets[order])
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{versions}, median of {ROUNDS} rounds, one thread, {WORKERS} DataLoader workers")
    print(f"{'':12} {'in memory':>10} {'DataLoader':>11} {'ratio':>6}   (images/s)")
    for name, ours, theirs in CASES:
        epochs = [shared(data, whole, ours), loaded(data, theirs())]
        seconds: list[list[float]] = [[], []]
        for _ in range(ROUNDS + 1):
            for epoch, times in zip(epochs, seconds, strict=True):
                began = time.perf_counter()
                epoch()
                times.append(time.perf_counter() - began)
        in_memory, by_loader = (IMAGES / statistics.median(times[1:]) for times in seconds)
        print(f"{name:12} {in_memory:10,.0f} {by_loader:11,.0f} {in_memory / by_loader:6.1f}")
    print(f"\nms for a batch of {BATCH} images of 3x32x32")
    inputs, targets = data.inputs[:BATCH], nn.functional.one_hot(data.targets[:BATCH], 10).float()
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


def network() -> nn.Module:
    """Return a small convolutional network for colour images of 32x32."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 8 * 8, 10)),
    )


def shared(data: Split, whole: Dataset, augment: Sequence[Any]) -> Callable[[], Any]:
    """Return one epoch of the shared loop."""
    assert isinstance(whole.validation, Split)
    validation = Split(whole.validation.inputs[:500].expand(-1, 3, -1, -1), whole.validation.targets[:500])

    def recipe(space: Space) -> Recipe:
        optimizer = SGD(lr=0.01, momentum=0.9)
        return Recipe(model=network(), optimizer=optimizer, batch_size=BATCH, augment=augment)

    study = Study(recipe=recipe, dataset=lambda: whole, epochs=10_000)
    kept = Dataset(train=data, validation=validation, test=None, classes=whole.classes)
    epochs = train(Run(study, {}, kept, seed=0))
    return lambda: next(epochs)


def loaded(data: Split, augment: list[Any]) -> Callable[[], Any]:
    """Return one epoch fed by a `DataLoader`."""
    from torchvision import transforms

    low, high = data.inputs.min(), data.inputs.max()
    pixels = ((data.inputs - low) / (high - low) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize((0.3,) * 3, (0.4,) * 3)])

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> Any:
            return transform(Image.fromarray(pixels[index])), int(data.targets[index])

    loader = torch.utils.data.DataLoader(
        Pictures(), batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    model = network()
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
