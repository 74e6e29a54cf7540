"""Train several pairs of a comparison at once, each in a separate process with one thread.

The first interrupt is forwarded to the processes, which put their trials back into the queue; the second kills them.
"""

import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

import optuna
import torch
import torch.multiprocessing

from hpsearch.datasets import Dataset
from hpsearch.errors import HpsearchError
from hpsearch.executors import processes, time_to_load
from hpsearch.interrupts import SIGNALS, handling
from hpsearch.search.comparison import Comparison, Pair, train_pair, trained
from hpsearch.search.supervisor import End

TICK_SECONDS = 0.25
LOADED = "loaded"


@dataclass(frozen=True, kw_only=True)
class Job:
    """The arguments of a pair's process. If `data` is None, the process loads the data itself.

    A pair fails if its process takes longer than `load_timeout` seconds to load study and data.
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

    def comparison(self) -> Comparison:
        """Load the study file in the pair's process. Raises StudyFileError if the file was changed."""
        return Comparison(
            study_file=processes.load_unchanged(self.path, self.digest),
            storage=self.storage,
            runs=self.runs,
            budget=self.budget,
            device=self.device,
            workers=self.workers,
        )


class Watcher(Protocol):
    """An observer of a comparison. Every method must return at once."""

    def pair_started(self, pair: Pair) -> None:
        """The process of a pair was started."""

    def pair_reported(self, pair: Pair, value: float) -> None:
        """A pair trained another interval; `value` is the measure after it."""

    def pair_ended(self, pair: Pair, end: End, intervals: int, best: float | None) -> None:
        """A pair ended without an error; `intervals` and `best`, the best value, are those of all its runs."""

    def pair_failed(self, pair: Pair, error: str) -> None:
        """A pair ended with an error, or its process died."""

    def message(self, text: str) -> None:
        """There is a message for the user."""

    def tick(self) -> None:
        """Time passed."""


def make_job(comparison: Comparison, data: Dataset, *, load_seconds: float = 0.0) -> Job:
    """Return the job; move its data to shared memory if they are tensors. `load_seconds` is the loading time here."""
    return Job(
        path=comparison.study_file.path,
        digest=comparison.study_file.digest,
        data=data.share(),
        storage=comparison.storage,
        runs=comparison.runs,
        budget=comparison.budget,
        device=comparison.device,
        workers=comparison.workers,
        load_timeout=time_to_load(load_seconds),
    )


def train_pairs(pairs: Sequence[Pair], job: Job, watcher: Watcher) -> bool:
    """Train the pairs in order, `job.workers` at a time; return False if interrupted.

    A pair that fails does not stop the others.
    """
    waiting = list(pairs)
    running: list[_Process] = []
    interrupted = False

    def on_interrupt() -> None:
        nonlocal interrupted
        for process in running if not interrupted else ():
            process.child.send_signal(signal.SIGTERM)
        interrupted = True

    with handling(on_interrupt):
        try:
            while running or (waiting and not interrupted):
                while waiting and len(running) < job.workers and not interrupted:
                    running.append(_Process(waiting.pop(0), job))
                    watcher.pair_started(running[-1].pair)
                wait([waitable for process in running for waitable in process.child.waitables], TICK_SECONDS)
                for process in list(running):
                    if not process.receive(watcher, expected=interrupted):
                        process.child.close()
                        running.remove(process)
                watcher.tick()
        finally:
            for process in running:
                process.child.send_signal(signal.SIGKILL)
            for process in running:
                process.child.close()
        return not interrupted


class _Process:
    """The process of a pair, in the parent."""

    def __init__(self, pair: Pair, job: Job) -> None:
        self.pair = pair
        self.child = processes.Child(processes.context(__name__), _main, pair, job)
        self._load_timeout = job.load_timeout
        self._started = time.monotonic()
        self._loaded = self._ended = False

    def receive(self, watcher: Watcher, *, expected: bool) -> bool:
        """Forward its messages to `watcher`; return False if the process has ended, which may be `expected`."""
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
    """Train one pair, in its process."""
    # In its own process group, it gets no signals from the terminal; the parent forwards them once.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        comparison = job.comparison()
        data = job.data or comparison.study_file.study.load_data().without_test()
        _send(connection, LOADED)
        finished = train_pair(
            pair,
            comparison,
            data,
            reported=lambda value: _send(connection, "pair_reported", value),
            message=lambda text: _send(connection, "message", f"{pair.name}: {text}"),
        )
        _send(connection, "pair_ended", finished.end, *trained(finished.stored))
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
        # The parent has ended: stop as after an interrupt.
        signal.raise_signal(signal.SIGTERM)
