"""Files in the formats of MNIST and CIFAR-10, with images of noise."""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpsearch.datasets import CIFAR10_CLASSES, import_torchvision

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def write_mnist(folder: Path, *, train: int, test: int) -> Pixels:
    """Write files as those of MNIST; return the test images (N, 28, 28)."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    for name, part in (("train", pixels[:train]), ("t10k", pixels[train:])):
        labels = (np.arange(len(part)) % 10).astype(np.uint8)
        images = struct.pack(">4i", 2051, *part.shape) + part.tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(part)) + labels.tobytes())
    return pixels[train:]


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Pixels:
    """Write CIFAR-10 with 1,010 images a file, whose checksums torchvision is told; return all images (N, 3, 32, 32).

    The last 1,010 are the test images. An image's class is its number modulo ten.
    """
    cls = import_torchvision("datasets").CIFAR10
    folder = root / cls.base_folder
    folder.mkdir()

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name: str, count: int, first: int) -> str:
        labels = [(first + index) % 10 for index in range(count)]
        return write(name, {"data": pixels[first : first + count], "labels": labels})

    pixels: Pixels = np.random.default_rng(0).integers(0, 200, (6 * 1010, 3072), dtype=np.uint8)
    pixels[:, 1024:2048] //= 2
    train = [(name, batch(name, 1010, 1010 * n)) for n, (name, _) in enumerate(cls.train_list)]
    monkeypatch.setattr(cls, "train_list", train)
    monkeypatch.setattr(cls, "test_list", [("test_batch", batch("test_batch", 1010, 5050))])
    names = write("batches.meta", {"label_names": list(CIFAR10_CLASSES)})
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": names})
    return pixels.reshape(-1, 3, 32, 32)
