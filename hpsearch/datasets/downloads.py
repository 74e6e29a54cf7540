"""Data sets that torchvision reads from the data folder or downloads to it, and the import of torchvision."""

import contextlib
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from hpsearch.datasets.dataset import Dataset, Split, length
from hpsearch.datasets.folders import DATA_VARIABLE, data_folder
from hpsearch.datasets.preprocessing import ImageScaling, about_images, preprocessed
from hpsearch.datasets.splitting import stratified
from hpsearch.errors import UsageError


def mnist(*, train_size: int | None = None, seed: int = 0) -> Dataset:
    """MNIST: 50,000 / 10,000 / 10,000 grey 28x28 images; `train_size` takes a stratified part of the 50,000.

    LeCun, Cortes and Burges. The test split is the official one. Raises UsageError if it is neither in the data folder
    nor can be downloaded.
    """
    return _torchvision("MNIST", data_folder(), tuple("0123456789"), 10_000, train_size, seed)


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(*, train_size: int | None = None, seed: int = 0) -> Dataset:
    """CIFAR-10: 45,000 / 5,000 / 10,000 colour 32x32 images; `train_size` takes a stratified part of the 45,000.

    Krizhevsky, 2009. The test split is the official one. Inputs are (N, 3, 32, 32), each channel normalised. Raises
    UsageError if it is neither in the data folder nor can be downloaded.
    """
    return _torchvision("CIFAR10", data_folder(), CIFAR10_CLASSES, 5_000, train_size, seed)


FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(*, train_size: int | None = None, seed: int = 0) -> Dataset:
    """Fashion-MNIST: 50,000 / 10,000 / 10,000 grey 28x28 images of clothes, or the sample in the data folder.

    Xiao, Rasul and Vollgraf, arXiv 1708.07747. If the data folder holds only `fashion-mnist-sample/`, that is used and
    `Dataset.note` says so. Raises UsageError if it is neither in the data folder nor can be downloaded.
    """
    root = data_folder()
    sample = root / "fashion-mnist-sample"
    if sample.is_dir() and not _has_files(root / "FashionMNIST/raw"):
        dataset = _torchvision("FashionMNIST", sample, FASHION_CLASSES, 600, train_size, seed)
        sizes = f"{length(dataset.train):,} training, {length(dataset.validation):,} validation images"
        return replace(dataset, note=f"a sample of Fashion-MNIST ({sizes}), not the whole of it")
    return _torchvision("FashionMNIST", root, FASHION_CLASSES, 10_000, train_size, seed)


def _torchvision(
    name: str, root: Path, classes: tuple[str, ...], validation_size: int, train_size: int | None, seed: int
) -> Dataset:
    datasets = import_torchvision("datasets")
    cls = getattr(datasets, name)
    # CIFAR's folder has a name, MNIST's is named by the class.
    files = getattr(cls, "base_folder", f"{name}/raw")
    if not _has_files(root / files):
        print(f"{name} is not in {root}: downloading", file=sys.stderr)
    try:
        parts = [cls(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        _remove_empty(root / files, root / Path(files).parts[0])
        raise UsageError(
            f"{name} is neither in {root} nor can it be downloaded ({' '.join(str(error).split())}): pass --data "
            f"FOLDER (or set {DATA_VARIABLE}) where FOLDER/{files} holds its files, or run once with a network"
        ) from error
    (images, targets), (test_images, test_targets) = [
        (_channels_first(torch.as_tensor(part.data)), torch.as_tensor(part.targets).long()) for part in parts
    ]
    if len(images) < validation_size + len(classes):
        raise UsageError(
            f"{name} in {root} has {len(images):,} training images, too few to hold {validation_size:,} of them out "
            f"for validation: give --data another folder (or {DATA_VARIABLE}), with all of its files"
        )
    train, validation = stratified(images, targets, validation_size, seed)
    if train_size is not None:
        if not len(classes) <= train_size <= len(train):
            raise UsageError(f"{name}: train_size must be from {len(classes)} to {len(train)}, got {train_size}")
        # A stratified split needs every class in the remaining part too.
        if train_size <= len(train) - len(classes):
            _, train = stratified(*train, train_size, seed)
        else:
            train = Split(train.inputs[:train_size], train.targets[:train_size])
    return preprocessed(
        ImageScaling(train.inputs, about_images(images, resized=False)),
        train=train,
        validation=validation,
        test=Split(test_images, test_targets),
        classes=classes,
    )


def _channels_first(images: Tensor) -> Tensor:
    """Return images (N, H, W) or (N, H, W, C) as (N, C, H, W)."""
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("*"))


def _remove_empty(*folders: Path) -> None:
    """Remove the empty folders that a failed download left behind."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def import_torchvision(module: str = "") -> ModuleType:
    """Import torchvision, or a submodule such as `"models"`, even with a CPU-only torch.

    PyPI's torchvision is linked against CUDA; without it the compiled operators do not load and `import torchvision`
    fails for lack of `torchvision::nms`. Declaring the operators is enough for everything that does not call them: data
    sets, transforms and the classification models.

        models = import_torchvision("models")
        model = models.resnet18(num_classes=10)
    """
    name = ".".join(["torchvision", *filter(None, [module])])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise
    except (ImportError, RuntimeError, OSError):
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # The declarations last as long as the library object.
        globals()["_torchvision_operators"] = library
        return importlib.import_module(name)
