"""Data sets: decoded and normalised once, split with a seed, kept in memory as tensors.

A data set is any function without arguments that returns a `Dataset`. Digits come with scikit-learn; MNIST and
Fashion-MNIST are read by torchvision from the data folder (`--data` or `$HPSEARCH_DATA`) or downloaded to it.
"""

import contextlib
import hashlib
import importlib
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpsearch.errors import UsageError
from hpsearch.seeding import seeded

DATA_VARIABLE = "HPSEARCH_DATA"


class Split(NamedTuple):
    """Examples in memory: inputs (N, ...) float32 and targets (N,) int64 class numbers."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]


# Examples that do not fit into memory are a torch `Dataset` of (input, target) pairs.
Examples = Split | torch.utils.data.Dataset[Any]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits and the classes' names. A search uses `train` and `validation`; `test` is for the final model."""

    train: Examples
    validation: Examples
    test: Examples | None
    classes: tuple[str, ...]
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            for part, value in split._asdict().items() if isinstance(split, Split) else ():
                if not isinstance(value, Tensor):
                    raise UsageError(
                        f"dataset: {name}.{part} is a {type(value).__name__}; it must be one tensor, of numbers only"
                    )
            if isinstance(split, Split) and split.inputs.shape[0] != split.targets.shape[0]:
                raise UsageError(
                    f"dataset: {name} has {split.inputs.shape[0]} inputs but {split.targets.shape[0]} targets"
                )
            if split is not None and length(split) == 0:
                raise UsageError(f"dataset: {name} is empty")

    def without_test(self) -> "Dataset":
        """Return the same data set without its test split, which a search must not use."""
        return replace(self, test=None)

    def share(self) -> "Dataset | None":
        """Move the training and validation tensors to shared memory; return the data set without its test split.

        Returns None if other processes have to load the data themselves: a user's torch `Dataset` may not be picklable,
        and shared memory, often small in containers, may not hold the tensors, which is reported on stderr.
        """
        splits = [split for split in (self.train, self.validation) if isinstance(split, Split)]
        if len(splits) < 2:
            return None
        tensors = [tensor for split in splits for tensor in split if not tensor.is_shared()]
        # Splits may be views of the same tensor, which is moved as a whole.
        storages = [tensor.untyped_storage() for tensor in tensors]
        needed = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        free = free_shared_memory()
        try:
            # Checked beforehand: writing to full shared memory kills the process.
            if free is not None and needed > free:
                raise OSError(f"{_size(free)} are free there")
            for tensor in tensors:
                tensor.share_memory_()
        except (OSError, RuntimeError) as error:
            print(
                f"hpsearch: the data set ({_size(needed)}) does not fit into shared memory ({SHARED_MEMORY}: "
                f"{' '.join(str(error).split())}), so every worker loads its own; "
                f"a larger {SHARED_MEMORY} (in Docker: --shm-size) avoids that",
                file=sys.stderr,
            )
            return None
        return self.without_test()


SHARED_MEMORY = Path("/dev/shm")


def free_shared_memory() -> int | None:
    """Return how many bytes of shared memory are free, or None if that is unknown."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def length(split: Examples) -> int:
    """Return the number of examples."""
    return len(split)  # type: ignore[arg-type]


def as_pair(example: Any, index: int) -> tuple[Any, Any]:
    """Return an example of a torch `Dataset`. Raises UsageError unless it is a pair of tensors, arrays or numbers."""
    if not isinstance(example, tuple | list) or len(example) != 2:
        size = f" of {len(example)}" if isinstance(example, tuple | list | dict) else ""
        raise UsageError(
            f"dataset: example {index} is a {type(example).__name__}{size}; it must be a pair (input, target)"
        )
    for name, value in zip(("input", "target"), example, strict=True):
        if not isinstance(value, Tensor | np.ndarray | np.generic | int | float):
            raise UsageError(
                f"dataset: example {index} has a {type(value).__name__} as its {name}; it must be one tensor, array or "
                f"number, made so by the data set's transform"
            )
    return example[0], example[1]


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """Return short texts that identify the data of a search by its sizes, classes and contents.

    A torch `Dataset` is represented by a few examples. They are read under a fixed seed, so that random augmentation by
    torch, numpy or Python's `random` gives the same ones again. Inputs or targets that vary nevertheless, because they
    come from the user's own generator, count by type and shape only.
    """
    texts = {"classes": ", ".join(dataset.classes)}
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        hasher = hashlib.sha256()
        for part in split if isinstance(split, Split) else _sampled(split):
            _feed(hasher, part)
        texts[name] = f"{length(split):,} examples, {hasher.hexdigest()[:12]}"
    return texts


# How often an example is read to find out whether it varies: an augmentation applied half the time is missed, over
# three examples, in one of two million cases.
_DRAWS = 8


def _sampled(split: Examples) -> list[Tensor | str]:
    """Return the first, the middle and the last example of a torch `Dataset`, or the type and shape of what varies."""
    count = length(split)
    drawn: dict[int, list[tuple[Tensor, ...]]] = {}
    for index in sorted({0, count // 2, count - 1}):
        for _ in range(_DRAWS):
            with seeded(0):
                example = as_pair(split[index], index)
            # Copies: a data set may return its next example in the same memory.
            drawn.setdefault(index, []).append(tuple(torch.as_tensor(part).clone() for part in example))
    parts: list[Tensor | str] = []
    for place in (0, 1):
        varies = any(not _same(draws[0][place], other[place]) for draws in drawn.values() for other in draws[1:])
        for draws in drawn.values():
            part = draws[0][place]
            parts.append(f"{part.dtype}{tuple(part.shape)}" if varies else part)
    return parts


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and _bytes(a) == _bytes(b)


def _bytes(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().resolve_conj().contiguous().flatten()
    return (torch.view_as_real(flat).flatten() if flat.is_complex() else flat).view(torch.uint8).numpy().data


def _feed(hasher: "hashlib._Hash", part: Tensor | str) -> None:
    hasher.update(part.encode() if isinstance(part, str) else _bytes(part))


def _stratified(inputs: Tensor, targets: Tensor, held_out: int, seed: int) -> tuple[Split, Split]:
    """Split off `held_out` examples, stratified by class. The same seed gives the same split."""
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(range(len(targets)), test_size=held_out, stratify=targets, random_state=seed)
    return Split(inputs[kept], targets[kept]), Split(inputs[held], targets[held])


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
    rest, test = _stratified(images, targets, 360, seed)
    train, validation = _stratified(*rest, 360, seed)
    train, validation, test = _normalised(train, validation, test)
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


def mnist(*, train_size: int | None = None, seed: int = 0) -> Dataset:
    """MNIST: 50,000 / 10,000 / 10,000 grey 28x28 images; `train_size` takes a stratified part of the 50,000.

    LeCun, Cortes and Burges. The test split is the official one. Raises UsageError if it is neither in the data folder
    nor can be downloaded.
    """
    return _torchvision("MNIST", data_folder(), tuple("0123456789"), 10_000, train_size, seed)


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
    if sample.is_dir() and not _has_files(root / "FashionMNIST"):
        dataset = _torchvision("FashionMNIST", sample, FASHION_CLASSES, 600, train_size, seed)
        sizes = f"{length(dataset.train):,} training, {length(dataset.validation):,} validation images"
        return replace(dataset, note=f"a sample of Fashion-MNIST ({sizes}), not the whole of it")
    return _torchvision("FashionMNIST", root, FASHION_CLASSES, 10_000, train_size, seed)


def data_folder() -> Path:
    """Return the folder data sets are read from and downloaded to."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "hpsearch" / "data"


def _torchvision(
    name: str, root: Path, classes: tuple[str, ...], validation_size: int, train_size: int | None, seed: int
) -> Dataset:
    datasets = import_torchvision("datasets")
    cls = getattr(datasets, name)
    if not _has_files(root / name):
        print(f"{name} is not in {root}: downloading", file=sys.stderr)
    try:
        parts = [cls(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        _remove_empty(root / name / "raw", root / name)
        raise UsageError(
            f"{name} is neither in {root} nor can it be downloaded ({' '.join(str(error).split())}): pass --data "
            f"FOLDER (or set {DATA_VARIABLE}) where FOLDER/{name}/raw holds its files, or run once with a network"
        ) from error
    (images, targets), (test_images, test_targets) = [
        (part.data.unsqueeze(1).float() / 255, part.targets.long()) for part in parts
    ]
    if len(images) < validation_size + len(classes):
        raise UsageError(
            f"{name} in {root} has {len(images):,} training images, too few to hold {validation_size:,} of them out "
            f"for validation: give --data another folder (or {DATA_VARIABLE}), with all of its files"
        )
    train, validation = _stratified(images, targets, validation_size, seed)
    if train_size is not None:
        if not len(classes) <= train_size <= len(train):
            raise UsageError(f"{name}: train_size must be from {len(classes)} to {len(train)}, got {train_size}")
        # A stratified split needs every class in the remaining part too.
        if train_size <= len(train) - len(classes):
            _, train = _stratified(*train, train_size, seed)
        else:
            train = Split(train.inputs[:train_size], train.targets[:train_size])
    train, validation, test = _normalised(train, validation, Split(test_images, test_targets))
    return Dataset(train=train, validation=validation, test=test, classes=classes)


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("raw/*"))


def _remove_empty(*folders: Path) -> None:
    """Remove the empty folders that a failed download left behind."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _normalised(train: Split, *others: Split) -> tuple[Split, ...]:
    """Standardise every split by the training split's mean and standard deviation."""
    # In double precision: otherwise the last bits, and so the data's fingerprint, differ between machines.
    mean, deviation = train.inputs.double().mean().float(), train.inputs.double().std().float()
    return tuple(Split((split.inputs - mean) / deviation, split.targets) for split in (train, *others))


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
