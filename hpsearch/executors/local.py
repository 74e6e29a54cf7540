"""Runs trials in a pool of processes on this machine, one trial and one thread each.

The processes load the user's study file themselves; the data set's tensors are in shared memory, one copy for all.
A process that dies is noticed at once and replaced; when the supervisor dies, its workers end within a second.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import torch
import torch.multiprocessing

from hpsearch.datasets import Dataset, fingerprint
from hpsearch.errors import DataDiffer, HpsearchError
from hpsearch.executors import processes
from hpsearch.executors.protocol import Died, Ended, Event, Reported, Verdict, Warned
from hpsearch.executors.task import Outcome, Task, work
from hpsearch.study import Study, StudyFile

POLL_SECONDS = 0.02


class LocalExecutor:
    """An `Executor` of `workers` processes, each with `threads` threads."""

    def __init__(self, study_file: StudyFile, data: Dataset, *, workers: int, threads: int = 1) -> None:
        self.slots = workers
        shared = data.share()
        expected = None if shared else fingerprint(data)
        self._arguments = (study_file.path, study_file.digest, shared, expected, threads)
        self._context = processes.context(__name__)
        self._stopping = False
        self._workers = [self._start() for _ in range(workers)]

    def submit(self, task: Task) -> None:
        """Start a task on an idle worker."""
        self._stopping = False
        index, worker = next((index, worker) for index, worker in enumerate(self._workers) if worker.number is None)
        worker.number = task.number
        if task.device == "cuda":
            task = replace(task, device=own_device(index, torch.cuda.device_count()))
        worker.send(task)

    def reply(self, number: int, verdict: Verdict) -> None:
        """Answer the last report of a trial."""
        for worker in self._workers:
            if worker.number == number:
                worker.send(verdict)

    def events(self, timeout: float) -> list[Event]:
        """Return what the workers sent, or died of."""
        if self._stopping:
            for worker in self._workers:
                if worker.number is not None and not worker.told_to_stop:
                    worker.send("interrupt")
                    worker.told_to_stop = True
        events: list[Event] = []
        ready = wait([worker.connection for worker in self._workers], timeout)
        for index, worker in enumerate(self._workers):
            if worker.connection in ready:
                events += worker.receive()
                if worker.gone:
                    if worker.number is not None:
                        events.append(Died(worker.number, worker.why_gone()))
                    self._workers[index] = self._start()
        return events

    def stop(self) -> None:
        """Have every trial stop at its next batch."""
        self._stopping = True

    def kill(self, number: int) -> None:
        """End a trial's process by force."""
        for worker in self._workers:
            if worker.number == number:
                worker.kill()

    def close(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.kill()
            worker.connection.close()

    def _start(self) -> "_Worker":
        ours, theirs = self._context.Pipe()
        process = processes.start(self._context, _main, theirs, *self._arguments)
        theirs.close()
        return _Worker(process, ours)


def own_device(worker: int, gpus: int) -> str:
    """Return the GPU of a worker, counted from 0, where all are to use "cuda": each has its own, in turn."""
    return f"cuda:{worker % gpus}"


class _Worker:
    """The supervisor's end of a worker process."""

    def __init__(self, process: Any, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.number: int | None = None
        self.told_to_stop = False
        self.gone = False

    def send(self, message: object) -> None:
        # A dead worker is noticed by its sentinel.
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> list[Event]:
        events: list[Event] = []
        try:
            while self.connection.poll():
                event = self.connection.recv()
                events.append(event)
                if isinstance(event, Ended):
                    self.number = None
                    self.told_to_stop = False
        except (EOFError, OSError):
            self.gone = True
        return events

    def why_gone(self) -> str:
        # The exit code may come a moment after the connection's end.
        wait([self.process.sentinel], 1.0)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its worker was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"its worker ended with exit code {code}"

    def kill(self) -> None:
        processes.send_signal(self.process, signal.SIGKILL)


def _main(
    connection: Connection,
    path: Path,
    digest: str,
    data: Dataset | None,
    expected: dict[str, str] | None,
    threads: int,
) -> None:
    """Run tasks as they come, in a worker process, until the supervisor is gone."""
    for number in processes.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    study: Study | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        if not isinstance(task, Task):
            continue
        try:
            if study is None:
                study = processes.load_unchanged(path, digest).study
            if data is None:
                data = _load_data(study, path, expected)
            outcome = _run(connection, task, study, data)
        except DataDiffer as error:
            outcome = Outcome(reason="interrupted", error=str(error))
        except HpsearchError as error:
            outcome = Outcome(reason="failed", error=str(error))
        except Exception:
            outcome = Outcome(reason="failed", error=traceback.format_exc())
        connection.send(Ended(task.number, outcome))


def _load_data(study: Study, path: Path, expected: dict[str, str] | None) -> Dataset:
    """Load the study's data set, the test split left out. Raises DataDiffer if it is not the `expected` one."""
    data = study.load_data().without_test()
    found = fingerprint(data)
    if expected is not None and found != expected:
        changes = [f"{name} has {found[name]}, not {text}" for name, text in expected.items() if found[name] != text]
        raise DataDiffer(
            f"the data set of {path.name} is another one in a worker: {'; '.join(changes)}. Make its function return "
            f"the same data in every process, drawn from fixed seeds and read from files that do not change"
        )
    return data


def _run(connection: Connection, task: Task, study: Study, data: Dataset) -> Outcome:
    control = _Control(connection, task.number)
    training = work(task, study, data, control)
    while True:
        try:
            report = next(training)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        control.due = True
        connection.send(Reported(task.number, report))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Control:
    """A worker's ear to the supervisor."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.due = False
        self._connection = connection
        self._number = number
        self._word: Literal["continue", "prune", "interrupt"] = "continue"
        self._polled = time.monotonic()

    def stop(self) -> bool:
        # Asking the pipe costs more than a small batch, so not every batch asks it.
        if time.monotonic() - self._polled > POLL_SECONDS:
            self._polled = time.monotonic()
            while self._word == "continue" and self._connection.poll():
                self._receive()
        return self._word != "continue"

    def verdict(self) -> Literal["continue", "prune", "interrupt"]:
        while self.due and self._word == "continue":
            self._receive()
        return self._word

    def warn(self, message: str) -> None:
        self._connection.send(Warned(self._number, message))

    def _receive(self) -> None:
        word = self._connection.recv()
        if word == "continue":
            self.due = False
        else:
            self._word = word
