"""A data set: three splits, in memory as tensors or as torch data sets, and what identifies their contents."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hpsearch.errors import UsageError
from hpsearch.seeding import seeded
from hpsearch.text import brief


class Split(NamedTuple):
    """Examples in memory: inputs (N, ...) float32 and targets, int64 class numbers (N,) or float32 numbers (N, ...)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]


# Examples that do not fit into memory are a torch `Dataset` of (input, target) pairs.
Examples = Split | torch.utils.data.Dataset[Any]
# From a list of examples to (inputs, targets).
Collate = Callable[[list[Any]], tuple[Any, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits and the classes' names, none if the targets are numbers.

    A search uses `train` and `validation`; `test` is for the final model.

    A split is tensors in memory (`Split`) or a map-style torch `Dataset`, which is read during training by
    `loader_workers` processes of torch's `DataLoader` for each split, or by the training process itself if there are
    none, and on systems other than Linux. Batches and random augmentation do not depend on who reads: while a batch is
    read, the generators of torch, numpy and `random` have a seed of its own.

    `collate` makes a batch `(inputs, targets)` of a list of a torch `Dataset`'s examples, whatever these are; targets
    are one tensor, as long as the batch. By default, examples are pairs (input, target) and torch's `default_collate`
    is used. A dict of inputs is passed to the model as keyword arguments, a tuple or list as positional arguments, and
    anything else, such as a tensor or a `PackedSequence`, as its one argument.

    `preprocessing` makes inputs of raw examples, as those who use the final model have them. It then is part of that
    model's file, which takes raw examples; what its attribute `about` (a dict of numbers and texts, if it has one) says
    of them is in the file as well. `raw_test` are the raw examples (N, ...) of the test split, or the first of them.
    """

    train: Examples
    validation: Examples
    test: Examples | None
    classes: tuple[str, ...] = ()
    note: str = ""
    preprocessing: nn.Module | None = None
    raw_test: Tensor | None = None
    loader_workers: int = 0
    collate: Collate | None = None

    def __post_init__(self) -> None:
        workers = self.loader_workers
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise UsageError(f"dataset: loader_workers must be a whole number of at least 0, got {workers!r}")
        if self.collate is not None and not callable(self.collate):
            raise UsageError(f"dataset: collate must be a function of a list of examples, got {self.collate!r}")
        if self.collate and all(isinstance(split, Split | None) for split in (self.train, self.validation, self.test)):
            raise UsageError("dataset: collate is for the examples of a torch Dataset, but every split is a Split")
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            if isinstance(split, IterableDataset):
                raise UsageError(
                    f"dataset: {name} is an IterableDataset, which cannot be shuffled and resumed: give a map-style "
                    f"Dataset, with __getitem__ and __len__"
                )
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
        self._check_preprocessing()

    def _check_preprocessing(self) -> None:
        if self.preprocessing is not None and not isinstance(self.preprocessing, nn.Module):
            raise UsageError(f"dataset: preprocessing must be an nn.Module, got {brief(self.preprocessing)}")
        if self.raw_test is not None and not isinstance(self.raw_test, Tensor):
            raise UsageError(f"dataset: raw_test must be one tensor, got a {type(self.raw_test).__name__}")
        if self.test is not None and (self.preprocessing is None) != (self.raw_test is None):
            given, missing = (
                ("raw_test", "preprocessing") if self.preprocessing is None else ("preprocessing", "raw_test")
            )
            raise UsageError(f"dataset: {given} needs {missing} as well, to compare what it makes of the test examples")
        if self.test is not None and self.raw_test is not None and not 0 < len(self.raw_test) <= length(self.test):
            raise UsageError(
                f"dataset: raw_test has {len(self.raw_test)} examples, but test {length(self.test)}: they must be "
                f"the same ones, or the first of them"
            )

    def without_test(self) -> "Dataset":
        """Return the same data set without its test split, which a search must not use, and what belongs to it."""
        return replace(self, test=None, preprocessing=None, raw_test=None)

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


def length(split: Any) -> int:
    """Return the number of examples."""
    return len(split)


def as_pair(example: Any, index: int) -> tuple[Any, Any]:
    """Return an example of a torch `Dataset`. Raises UsageError unless it is a pair that `default_collate` takes.

    The input is a tensor, array or number, or a dict, tuple or list of inputs; the target one tensor, array or number.
    """
    if not isinstance(example, tuple | list) or len(example) != 2:
        size = f" of {len(example)}" if isinstance(example, tuple | list | dict) else ""
        raise UsageError(
            f"dataset: example {index} is a {type(example).__name__}{size}; it must be a pair (input, target), or the "
            f"data set needs a collate function"
        )
    for name, value, types in (("input", example[0], _INPUTS), ("target", example[1], _TENSORS)):
        if not isinstance(value, types):
            raise UsageError(
                f"dataset: example {index} has a {type(value).__name__} as its {name}; it must be one tensor, array or "
                f"number, made so by the data set's transform or its collate function"
            )
    return example[0], example[1]


_TENSORS = (Tensor, np.ndarray, np.generic, int, float)
_INPUTS = (*_TENSORS, Mapping, tuple, list)


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """Return short texts that identify the data of a search by its sizes, classes and contents.

    A torch `Dataset` is represented by a few examples, and by a batch of them if there is a collate function. They are
    read under a fixed seed, so that random augmentation by torch, numpy or Python's `random` gives the same ones again.
    Parts that vary nevertheless, because they come from the user's own generator, count by type and shape only.
    """
    texts = {"classes": ", ".join(dataset.classes)}
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        hasher = hashlib.sha256()
        for part in split if isinstance(split, Split) else _sampled(split, dataset.collate):
            hasher.update(_content(part))
        texts[name] = f"{length(split):,} examples, {hasher.hexdigest()[:12]}"
    return texts


# How often an example is read to find out whether it varies: an augmentation applied half the time is missed, over
# three examples, in one of two million cases.
_DRAWS = 8
# A part of an example: a tensor, or a text of anything that is not one.
Part = Tensor | str


def _sampled(split: Any, collate: Collate | None) -> Iterator[Part]:
    """Yield the parts of the first, the middle and the last example of a torch `Dataset`, or what identifies them.

    The parts of nested examples have a path; the same part of all the examples comes together.
    """
    indices = sorted({0, length(split) // 2, length(split) - 1})

    def example(index: int) -> Any:
        return split[index] if collate is not None else as_pair(split[index], index)

    reads: list[Callable[[], Any]] = [partial(example, index) for index in indices]
    if collate is not None:
        reads.append(lambda: {"batch": collate([example(index) for index in indices])})
    drawn: list[list[dict[str, Part]]] = []
    for read in reads:
        drawn.append([])
        for _ in range(_DRAWS):
            with seeded(0):
                drawn[-1].append(dict(_parts(read())))
    for path in dict.fromkeys(path for draws in drawn for draw in draws for path in draw):
        if path.count("/") != 1:
            yield path
        parts = [[draw.get(path, "") for draw in draws] for draws in drawn]
        texts = [{_text(part) for part in draws} for draws in parts]
        if all(len({(_text(part), bytes(_content(part))) for part in draws}) == 1 for draws in parts):
            yield from (draws[0] for draws in parts)
        else:
            # Its shape may be drawn too, or whether there is one.
            yield from (text.pop() if len(text) == 1 else "" for text in texts)


def _parts(value: Any, path: str = "") -> Iterator[tuple[str, Part]]:
    """Yield the tensors in nested dicts, sequences and dataclasses, and texts of the rest, each with its path."""
    if isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda entry: str(entry[0])):
            yield from _parts(item, f"{path}/{key}")
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _parts(item, f"{path}/{index}")
    elif isinstance(value, str | bytes | None):
        yield path, repr(value)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _parts(getattr(value, field.name), f"{path}/{field.name}")
    elif isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array_interface__"):
        array = np.array(value, order="C")
        yield path, torch.from_numpy(array) if array.dtype.kind in "biufc" else repr(array.tolist())
    elif isinstance(value, Tensor | int | float):
        # A copy: a data set may return its next example in the same memory.
        yield path, torch.as_tensor(value).clone()
    else:
        # Its text could hold a memory address.
        yield path, type(value).__qualname__


def _text(part: Part) -> str:
    return part if isinstance(part, str) else f"{part.dtype}{tuple(part.shape)}"


def _content(part: Part) -> Any:
    if isinstance(part, str):
        return part.encode()
    flat = part.detach().cpu().resolve_conj().contiguous().flatten()
    return (torch.view_as_real(flat).flatten() if flat.is_complex() else flat).view(torch.uint8).numpy().data
