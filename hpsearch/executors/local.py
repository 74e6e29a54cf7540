"""An executor that trains trials in a pool of processes on this machine, one trial and one thread each.

Each process loads the user's study file itself; the tensors of the data set are in shared memory, one copy for all.
A process that dies is detected at once and replaced. If the supervisor dies, its workers end within a second.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

import torch
import torch.multiprocessing

from hpsearch.datasets import Dataset, fingerprint
from hpsearch.errors import DataDiffer, HpsearchError, WorkerDied
from hpsearch.executors import processes
from hpsearch.executors.protocol import Died, Ended, Event, Reported, Verdict, Warned
from hpsearch.executors.task import Outcome, Task, work
from hpsearch.interrupts import SIGNALS
from hpsearch.study import Study, StudyFile, users_code

POLL_SECONDS = 0.02
LOADED = "loaded"


def time_to_load(seconds: float) -> float:
    """Return the time limit, in seconds, for a worker to load study and data if loading them here took `seconds`."""
    # A worker loads with one thread, while other workers use the remaining cores and read from the same disk.
    return 120.0 + 30 * seconds


class LocalExecutor:
    """An `Executor` of `workers` processes, each with `threads` threads."""

    def __init__(
        self,
        study_file: StudyFile,
        data: Dataset,
        *,
        workers: int,
        threads: int = 1,
        load_timeout: float = time_to_load(0.0),
    ) -> None:
        """Start the workers. If one takes longer than `load_timeout` seconds to load study and data, the run ends."""
        self.slots = workers
        self._study_file = study_file
        shared = data.share()
        expected = None if shared else fingerprint(data)
        self._arguments = (study_file.path, study_file.digest, shared, expected, threads)
        self._load_timeout = load_timeout
        self._context = processes.context(__name__)
        self._stopping = False
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task) -> None:
        """Start a task on an idle worker."""
        self._stopping = False
        index, worker = next((index, worker) for index, worker in enumerate(self._workers) if worker.number is None)
        if task.device == "cuda":
            task = replace(task, device=own_device(index, torch.cuda.device_count()))
        worker.submit(task)

    def reply(self, number: int, verdict: Verdict) -> None:
        """Answer the last report of a trial."""
        for worker in self._workers:
            if worker.number == number:
                worker.child.send(verdict)

    def events(self, timeout: float) -> list[Event]:
        """Return the events that the workers sent, and the deaths of workers."""
        if self._stopping:
            for worker in self._workers:
                if worker.number is not None and not worker.told_to_stop:
                    worker.child.send("interrupt")
                    worker.told_to_stop = True
        events: list[Event] = []
        ready = wait([waitable for worker in self._workers for waitable in worker.child.waitables], timeout)
        for index, worker in enumerate(self._workers):
            if any(waitable in ready for waitable in worker.child.waitables):
                events += worker.receive()
                if worker.child.gone:
                    if worker.number is not None:
                        events.append(Died(worker.number, f"its worker {worker.child.how_it_ended()}"))
                    self._replace(index)
            elif worker.number is not None and worker.loading_for() > self._load_timeout:
                events.append(Ended(worker.number, Outcome(reason="interrupted", error=self._too_slow())))
                self._replace(index)
        return events

    def stop(self) -> None:
        """Have every trial stop at its next batch."""
        self._stopping = True

    def kill(self, number: int) -> None:
        """Kill the process of a trial."""
        for worker in self._workers:
            if worker.number == number:
                worker.child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill all processes."""
        for worker in self._workers:
            worker.child.send_signal(signal.SIGKILL)
        for worker in self._workers:
            worker.child.close()

    def _start(self) -> "_Worker":
        return _Worker(processes.Child(self._context, _main, *self._arguments))

    def _replace(self, index: int) -> None:
        self._workers[index].child.close()
        self._workers[index] = self._start()

    def _too_slow(self) -> str:
        return (
            f"a worker has not loaded {self._study_file.path} and its data within {self._load_timeout:.0f} s, many "
            f"times the time it took before the run: look for code that hangs in a separate process"
        )


def own_device(worker: int, gpus: int) -> str:
    """Return the device of a worker, counted from 0, if the device is "cuda": workers get the GPUs in turn."""
    return f"cuda:{worker % gpus}"


class _Worker:
    """A worker process and the trial that it trains."""

    def __init__(self, child: processes.Child) -> None:
        self.child = child
        self.number: int | None = None
        self.told_to_stop = False
        self._loaded = False
        self._submitted = 0.0

    def submit(self, task: Task) -> None:
        self.number = task.number
        self._submitted = time.monotonic()
        self.child.send(task)

    def loading_for(self) -> float:
        """Return for how many seconds the worker has been loading study and data for its first task."""
        return 0.0 if self._loaded else time.monotonic() - self._submitted

    def receive(self) -> list[Event]:
        events: list[Event] = []
        for message in self.child.receive():
            if message == LOADED:
                self._loaded = True
                continue
            events.append(message)
            if isinstance(message, Ended | Died):
                self.number = None
                self.told_to_stop = False
        return events


def _main(
    connection: Connection,
    path: Path,
    digest: str,
    data: Dataset | None,
    expected: dict[str, str] | None,
    threads: int,
) -> None:
    """Run tasks in a worker process until the supervisor ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)
    loaded: tuple[Study, Dataset] | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        if not isinstance(task, Task):
            continue
        try:
            if loaded is None:
                loaded = _load(path, digest, data, expected)
                connection.send(LOADED)
            outcome = _run(connection, task, *loaded)
        except WorkerDied as error:
            connection.send(Died(task.number, str(error)))
            continue
        except HpsearchError as error:
            # The cause lies in no trial, and the next one would fail in the same way.
            outcome = Outcome(reason="interrupted", error=str(error))
        except Exception:
            outcome = Outcome(reason="failed", error=traceback.format_exc())
        connection.send(Ended(task.number, outcome))


def _load(path: Path, digest: str, data: Dataset | None, expected: dict[str, str] | None) -> tuple[Study, Dataset]:
    """Return the study, and its data without the test split.

    Raises StudyFileError, with the user's line, if loading fails, and DataDiffer if the data are not as `expected`.
    """
    study = processes.load_unchanged(path, digest).study
    if data is not None:
        return study, data
    with users_code(path):
        data = study.load_data().without_test()
        actual = fingerprint(data)
    if expected is not None and actual != expected:
        changes = [f"{name} has {actual[name]}, not {text}" for name, text in expected.items() if actual[name] != text]
        raise DataDiffer(
            f"the data set of {path.name} is different in a worker: {'; '.join(changes)}. Make its function return "
            f"the same data in every process, drawn from fixed seeds and read from files that do not change"
        )
    return study, data


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


def _die_with_parent(server: int) -> None:
    """End this process once the supervisor has ended; kill the fork server too, which would take seconds to end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if parent.pid != server == os.getppid():
        os.kill(server, signal.SIGKILL)
    os._exit(1)


class _Control:
    """Receives the supervisor's messages for one task, in a worker."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.due = False
        self._connection = connection
        self._number = number
        self._decision: Literal["continue", "prune", "interrupt"] = "continue"
        self._polled = time.monotonic()

    def stop(self) -> bool:
        # Polling the pipe takes longer than a small batch, so it is not polled at every batch.
        if time.monotonic() - self._polled > POLL_SECONDS:
            self._polled = time.monotonic()
            while self._decision == "continue" and self._connection.poll():
                self._receive()
        return self._decision != "continue"

    def verdict(self) -> Literal["continue", "prune", "interrupt"]:
        while self.due and self._decision == "continue":
            self._receive()
        return self._decision

    def warn(self, message: str) -> None:
        self._connection.send(Warned(self._number, message))

    def _receive(self) -> None:
        message = self._connection.recv()
        if message == "continue":
            self.due = False
        else:
            self._decision = message
