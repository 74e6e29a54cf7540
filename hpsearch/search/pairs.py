"""Trains several pairs of a comparison at once, each in a process of its own with one thread.

The first interrupt is passed on to the processes, which put their trials back into the queue; the second ends them.
"""

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Protocol

import optuna
import torch
import torch.multiprocessing

from hpsearch.datasets import Dataset
from hpsearch.errors import HpsearchError
from hpsearch.executors import processes, time_to_load
from hpsearch.search.comparison import Pair, train_pair, trained
from hpsearch.search.opening import open_for_run
from hpsearch.search.supervisor import End
from hpsearch.study import StudyFile

TICK_SECONDS = 0.25
LOADED = "loaded"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all pairs have in common. `data` is None where the processes have to load it themselves.

    One that takes longer than `load_timeout` seconds to load study and data fails.
    """

    path: Path
    digest: str
    data: Dataset | None
    storage: str
    runs: Path
    budget: int
    device: str
    workers: int
    load_timeout: float


class Watcher(Protocol):
    """Whoever watches a comparison. Every method returns at once."""

    def pair_started(self, pair: Pair) -> None:
        """A pair has a process."""

    def pair_reported(self, pair: Pair, accuracy: float) -> None:
        """A pair trained an interval more."""

    def pair_ended(self, pair: Pair, end: End, intervals: int, best: float) -> None:
        """A pair ended in order, having trained so many intervals, to that best accuracy, in all its runs."""

    def pair_failed(self, pair: Pair, error: str) -> None:
        """A pair ended with an error, or its process died."""

    def message(self, text: str) -> None:
        """Say something to the user."""

    def tick(self) -> None:
        """Time passed."""


def make_job(
    study_file: StudyFile,
    data: Dataset,
    *,
    storage: str,
    runs: Path,
    budget: int,
    device: str,
    workers: int = 1,
    load_seconds: float = 0.0,
) -> Job:
    """Return the job, its data moved to shared memory if they are tensors. Loading took `load_seconds` here."""
    return Job(
        path=study_file.path,
        digest=study_file.digest,
        data=data.share(),
        storage=storage,
        runs=runs,
        budget=budget,
        device=device,
        workers=workers,
        load_timeout=time_to_load(load_seconds),
    )


def train_pairs(pairs: Sequence[Pair], job: Job, watcher: Watcher) -> bool:
    """Train the pairs, `job.workers` at a time, in their order; return False if it was interrupted.

    A pair that fails does not stop the others.
    """
    waiting = list(pairs)
    running: list[_Process] = []
    with _interrupts(running) as interrupted:
        try:
            while running or (waiting and not interrupted()):
                while waiting and len(running) < job.workers and not interrupted():
                    running.append(_Process(waiting.pop(0), job))
                    watcher.pair_started(running[-1].pair)
                wait([waitable for process in running for waitable in process.child.waitables], TICK_SECONDS)
                for process in list(running):
                    if not process.receive(watcher, expected=bool(interrupted())):
                        process.child.close()
                        running.remove(process)
                watcher.tick()
        finally:
            for process in running:
                process.child.send_signal(signal.SIGKILL)
            for process in running:
                process.child.close()
        return not interrupted()


@contextlib.contextmanager
def _interrupts(running: "list[_Process]") -> Iterator[Callable[[], int]]:
    """Pass the first signal on to the processes, raise KeyboardInterrupt at the second; give their number."""
    count = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        for process in running:
            process.child.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, on_signal) for number in processes.SIGNALS}
    try:
        yield lambda: count
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Process:
    """A pair's process, as its parent sees it."""

    def __init__(self, pair: Pair, job: Job) -> None:
        self.pair = pair
        self.child = processes.Child(processes.context(__name__), _main, pair, job)
        self._load_timeout = job.load_timeout
        self._started = time.monotonic()
        self._loaded = self._ended = False

    def receive(self, watcher: Watcher, *, expected: bool) -> bool:
        """Hand on its messages; return False if the process is gone. `expected` says that it was told to go."""
        for method, *arguments in self.child.receive():
            self._loaded = True
            if method == LOADED:
                continue
            self._ended = self._ended or method in ("pair_ended", "pair_failed")
            getattr(watcher, method)(*([] if method == "message" else [self.pair]), *arguments)
        if self.child.gone and not self._ended and not expected:
            watcher.pair_failed(self.pair, f"its process {self.child.how_it_ended()}")
        if not self._loaded and time.monotonic() - self._started > self._load_timeout:
            watcher.pair_failed(self.pair, f"its process has not loaded the study within {self._load_timeout:.0f} s")
            return False
        return not self.child.gone


def _main(connection: Connection, pair: Pair, job: Job) -> None:
    """Train one pair, in its own process."""
    # Signals for the terminal's foreground processes go to the parent, which passes them on once.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, processes.SIGNALS)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study_file = processes.load_unchanged(job.path, job.digest)
        data = job.data or study_file.study.load_data().without_test()
        _send(connection, LOADED)
        opened = open_for_run(job.storage, study_file, data, name=pair.name, seed=pair.seed, runs=job.runs)
        opened.record_run(study_file, sampler=pair.sampler, pruner=pair.pruner, device=job.device, workers=job.workers)
        end = train_pair(
            pair,
            opened,
            study_file.study,
            data,
            job.budget,
            device=job.device,
            reported=lambda accuracy: _send(connection, "pair_reported", accuracy),
            message=lambda text: _send(connection, "message", f"{pair.name}: {text}"),
        )
        _send(connection, "pair_ended", end, *trained(opened))
    except HpsearchError as error:
        _send(connection, "pair_failed", str(error))
    except KeyboardInterrupt:
        pass
    except Exception:
        _send(connection, "pair_failed", traceback.format_exc())


def _send(connection: Connection, *message: object) -> None:
    try:
        connection.send(message)
    except OSError:
        # The parent is gone: end in order.
        signal.raise_signal(signal.SIGTERM)
