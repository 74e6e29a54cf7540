"""Reads a split in batches and moves them to a device.

What is in a batch, random augmentation included, depends only on its indices and its seed: not on the process that
reads it, nor on what was read before. This module does not know in which order and under which seeds a run reads.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import util
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate, get_worker_info

from hpsearch.datasets import Dataset, Examples, Split, as_pair, length
from hpsearch.datasets.dataset import Collate
from hpsearch.errors import HpsearchError, UsageError, WorkerDied
from hpsearch.interrupts import SIGNALS
from hpsearch.seeding import derive_seed, seeded, set_seed

EVALUATION_BATCH = 500
# For how long a loader worker may finish its batch when it is no longer needed, before it is killed.
END_SECONDS = 1.0

# Inputs, which may be nested, and targets.
Batch = tuple[Any, Tensor]
# A batch to be read: the indices of its examples, and its seed.
Request = tuple[Tensor, int]


class Loader:
    """Reads the examples of a torch `Dataset` in batches, on `device`.

    With `workers`, processes of torch's `DataLoader` read ahead, from the first call of `batches` until `close`. Where
    processes are not forked, on systems other than Linux, the calling process reads instead, as without workers.
    `batch_size` is that of `in_order`.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        device: torch.device,
        collate: Collate | None = None,
        workers: int = 0,
        batch_size: int = EVALUATION_BATCH,
    ) -> None:
        self.batch_size = batch_size
        self._device = device
        self._reader = _Reader(examples, collate)
        self._requests = _Requests()
        self._workers = workers if sys.platform == "linux" else 0
        self._loader: DataLoader[Any] | None = None
        self._iterator: Any = None
        self._processes: list[Any] = []

    def __len__(self) -> int:
        return length(self._reader.examples)

    def __repr__(self) -> str:
        return repr(self._reader.examples)

    def take(self, indices: Tensor, seed: int = 0) -> Batch:
        """Return a batch, read in this process. Raises UsageError if it cannot be read."""
        return self._received(self._reader[indices.tolist(), seed])

    def batches(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """Yield the batches requested. Not for several iterations at once: a new one ends the one before.

        Raises UsageError if a batch cannot be read, and WorkerDied if a loader worker has died.
        """
        if not self._workers:
            for indices, seed in requests:
                yield self.take(indices, seed)
            return
        self._requests.waiting = iter(requests)
        with self._explaining_deaths():
            iterator = self._started()
        while True:
            with self._explaining_deaths():
                batch = next(iterator, None)
            if batch is None:
                return
            yield self._received(batch)

    def close(self) -> None:
        """End the loader workers; `batches` starts new ones."""
        if self._iterator is None:
            return
        iterator, self._iterator, self._loader = self._iterator, None, None
        slow = threading.Timer(END_SECONDS, _kill, [self._processes])
        slow.daemon = True
        slow.start()
        # torch's handler of SIGCHLD, if a DataLoader of the user's has installed it, raises an error for those killed.
        with contextlib.suppress(RuntimeError):
            iterator._shutdown_workers()
        slow.cancel()

    def _started(self) -> Iterator[Any]:
        """Return an iterator over the requests that wait, with the same workers every time."""
        if self._loader is not None:
            return iter(self._loader)
        before = multiprocessing.active_children()
        with _forking(self._device):
            loader: DataLoader[Any] = DataLoader(
                self._reader,
                # Each of the sampler's indices is a request, and each of the data set's items a batch.
                sampler=self._requests,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
                worker_init_fn=_begin,
                multiprocessing_context=torch.multiprocessing.get_context("fork"),
                # The DataLoader draws a seed, from the generator that the model draws from unless it has another.
                generator=torch.Generator(),
                persistent_workers=True,
            )
            self._iterator = iter(loader)
        self._loader = loader
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        _open.add(self)
        return self._iterator  # type: ignore[no-any-return]

    def _received(self, batch: "Batch | _Failure") -> Batch:
        if isinstance(batch, _Failure):
            batch.reraise()
        inputs, targets = batch
        # Copied, because measures keep the targets: one of a loader worker's keeps a file open for as long.
        return _moved(inputs, self._device), targets.to(self._device, non_blocking=True, copy=True)

    @contextlib.contextmanager
    def _explaining_deaths(self) -> Iterator[None]:
        try:
            yield
        # Errors of the user's code come as a `_Failure`. This one is that of a connection, or torch's.
        except Exception as error:
            # A connection may fail seconds before the process is known to have ended, on a machine that is busy.
            died = self._died(wait_for=10.0 if isinstance(error, OSError | EOFError) else 1.0)
            if died is None:
                raise
            raise WorkerDied(died) from error

    def _died(self, wait_for: float) -> str | None:
        """Return how a loader worker ended, if one does within some seconds."""
        wait([process.sentinel for process in self._processes], wait_for)
        for process in self._processes:
            if process.exitcode is not None:
                code = process.exitcode
                name = signal.Signals(-code).name if code < 0 else ""
                how = f"was killed by {name}" if name else f"ended with exit code {code}"
                return f"a loader worker {how}{_CAUSES.get(name, '')}"
        return None


_CAUSES = {
    "SIGKILL": " (out of memory?)",
    "SIGBUS": " (is shared memory full? /dev/shm must hold a few batches for each loader worker)",
}


_open: "weakref.WeakSet[Loader]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all loader workers: Python would send them SIGTERM, which they ignore, and wait for them."""
    for loader in list(_open):
        loader.close()


class _Requests:
    """The sampler of a `DataLoader`: what is `waiting` when an iteration begins."""

    def __init__(self) -> None:
        self.waiting: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[tuple[list[int], int]]:
        # Lists: the indices of a tensor would be sent as shared memory.
        return ((indices.tolist(), seed) for indices, seed in self.waiting)


class _Reader(torch.utils.data.Dataset[Any]):
    """A data set whose items are the batches of another one, by the indices of their examples and by their seed."""

    def __init__(self, examples: Examples, collate: Collate | None) -> None:
        self.examples: Any = examples
        self._collate = collate

    def __getitem__(self, request: tuple[list[int], int]) -> "Batch | _Failure":
        indices, seed = request
        if get_worker_info() is None:
            with seeded(seed):
                return self._read(indices)
        # A loader worker needs no state restored, which takes as long as reading a few small examples.
        set_seed(seed)
        return self._read(indices)

    def _read(self, indices: list[int]) -> "Batch | _Failure":
        doing = f"the batch of examples {indices[0]}, ... cannot be read"
        try:
            if callable(getattr(self.examples, "__getitems__", None)):
                examples = self.examples.__getitems__(indices)
            else:
                examples = []
                for index in indices:
                    doing = f"example {index} cannot be read"
                    examples.append(self.examples[index])
            if self._collate is not None:
                doing = "the collate function fails"
                return _as_batch(self._collate(examples))
            pairs = [as_pair(example, index) for example, index in zip(examples, indices, strict=True)]
            doing = (
                "the examples cannot be stacked to a batch (if they differ in shape, give the data set a collate "
                "function)"
            )
            return _as_batch(default_collate(pairs))
        except Exception as error:
            return _Failure(doing, error)


class _Failure:
    """An error of reading a batch, which may be sent to another process."""

    def __init__(self, doing: str, error: Exception) -> None:
        self._error: Exception | None = error
        self._what = " ".join(str(error).split())
        if not isinstance(error, HpsearchError):
            self._what = f"dataset: {doing}: {type(error).__name__}: {self._what}"
        self._where = _users_line(error)
        self._traceback = "".join(traceback.format_exception(error))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_error": None}

    def reraise(self) -> NoReturn:
        """Raise UsageError: with the frames of the user's code, or else with their last line in the message."""
        if self._error is None:
            raise UsageError(f"{self._where}{self._what}") from _InLoaderWorker(self._traceback)
        raise UsageError(self._what).with_traceback(self._error.__traceback__) from self._error


class _InLoaderWorker(Exception):
    """The traceback of an error in a loader worker."""

    def __str__(self) -> str:
        return f"in a loader worker\n\n{self.args[0]}"


def _users_line(error: Exception) -> str:
    """Return where in the user's code an error arose, to begin a message with, or nothing if it did not."""
    paths = sysconfig.get_paths()
    others = [*(paths[name] for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parent), "<"]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(tuple(others)):
            return f"{frame.filename}:{frame.lineno}: {frame.line!r}: "
    return ""


def _as_batch(batch: Any) -> Batch:
    """Return a batch. Raises UsageError unless it is a pair of inputs and a tensor of targets."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise UsageError(f"dataset: collate must return a pair (inputs, targets), got a {type(batch).__name__}{size}")
    inputs, targets = batch
    if not isinstance(targets, Tensor) or targets.dim() == 0:
        got = "one without dimensions" if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        raise UsageError(f"dataset: the targets of a batch must be one tensor, as long as the batch, got {got}")
    return inputs, targets


def _as_it_is(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def _forking(device: torch.device) -> Iterator[None]:
    """Start the workers of a `DataLoader` in such a way that they do not disturb this process, nor it them."""
    # They keep sockets in a temporary folder: that of this process, which outlives them, even if they are killed.
    util.get_temp_dir()
    handler = signal.getsignal(signal.SIGCHLD)
    # Signals to the process group are for this process; workers ignore them from `_begin` on.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with warnings.catch_warnings(), torch.cuda.device(device if device.type == "cuda" else -1):
            # More workers than cores, and from Python 3.12 on a fork of a process with threads.
            warnings.simplefilter("ignore")
            yield
    finally:
        # When a worker dies, torch's handler raises an error wherever this process is, even while it writes a file.
        # Without it, the error arises when the next batch is needed.
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _begin(number: int) -> None:
    """Prepare a loader worker."""
    for ignored in SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int | None) -> None:
    """End this process within half a second of its parent, even in the middle of an example."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _kill(processes: list[Any]) -> None:
    for process in processes:
        process.kill()


def _moved(value: Any, device: torch.device) -> Any:
    """Return a value, which may be nested, with its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if callable(getattr(value, "to", None)):
        # For example a PackedSequence, which is a tuple too.
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(item, device) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    return value


def call(model: nn.Module, inputs: Any) -> Any:
    """Return a model's outputs: a dict of inputs is its keyword arguments, a tuple or list its positional arguments.

    Anything else is its one argument, a named tuple such as `PackedSequence` included.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if type(inputs) in (tuple, list):
        return model(*inputs)
    return model(inputs)


# A split from which batches are taken.
Source = Examples | Loader


def source(data: Dataset, name: str, device: torch.device, *, batch_size: int = EVALUATION_BATCH) -> Split | Loader:
    """Return a split of a data set, ready to be read: its tensors on `device`, or a `Loader`.

    `batch_size` is that in which a `Loader` is read in order.
    """
    split = getattr(data, name)
    if isinstance(split, Split):
        return Split(split.inputs.to(device), split.targets.to(device))
    return Loader(split, device=device, collate=data.collate, workers=data.loader_workers, batch_size=batch_size)


def close(*splits: Source) -> None:
    """End the processes that read examples."""
    for split in splits:
        if isinstance(split, Loader):
            split.close()


def take(split: Source, indices: Tensor, device: torch.device) -> Batch:
    """Return the inputs and targets at `indices`, on `device`. Raises UsageError if they cannot be read."""
    if isinstance(split, Split):
        indices = indices.to(split.targets.device)
        return split.inputs[indices].to(device), split.targets[indices].to(device)
    return _loader(split, device).take(indices)


def batches(split: Source, requests: Iterable[Request], device: torch.device) -> Iterator[Batch]:
    """Yield the batches requested, on `device`. Raises what `Loader.batches` does."""
    if isinstance(split, Split):
        return (take(split, indices, device) for indices, _ in requests)
    return _loader(split, device).batches(requests)


def in_order(split: Source, device: torch.device, *, seed: int = 0, indices: Tensor | None = None) -> Iterator[Batch]:
    """Yield all examples in their order, in batches, or those at `indices`, (N,).

    Random augmentation has a seed derived from `seed`. Raises what `Loader.batches` does.
    """
    size = split.batch_size if isinstance(split, Loader) else EVALUATION_BATCH
    chosen = torch.arange(length(split)) if indices is None else indices
    requests = (
        (chosen[start : start + size], derive_seed(seed, "in order", start)) for start in range(0, len(chosen), size)
    )
    return batches(split, requests, device)


def _loader(split: Examples | Loader, device: torch.device) -> Loader:
    """Return examples, which are not a `Split`, as a `Loader`."""
    return split if isinstance(split, Loader) else Loader(split, device=device)
