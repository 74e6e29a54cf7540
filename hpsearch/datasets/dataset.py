"""A data set: three splits, in memory as tensors or as torch data sets, and what identifies their contents."""

import hashlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

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


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Three splits and the classes' names, none if the targets are numbers.

    A search uses `train` and `validation`; `test` is for the final model.

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
