"""An executor that trains one trial at a time in this process: for tests, debuggers and notebooks."""

import time
from collections.abc import Callable, Generator
from typing import Literal

import torch

from hpsearch.datasets import Dataset
from hpsearch.errors import WorkerDied
from hpsearch.executors.protocol import Died, Ended, Event, Reported, Verdict, Warned
from hpsearch.executors.task import Outcome, Task, work
from hpsearch.study import Study
from hpsearch.training import IntervalReport


class InlineExecutor:
    """An `Executor` with one slot. Each call of `events` trains one interval."""

    slots = 1

    def __init__(self, study: Study, data: Dataset) -> None:
        self._study = study
        self._data = data.without_test()
        self._task: Task | None = None
        self._work: Generator[IntervalReport, None, Outcome] | None = None
        self._control = _Control(self._warn)
        self._events: list[Event] = []
        # Workers have one thread; with the same number here, a trial has bit-identical results.
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def submit(self, task: Task) -> None:
        """Start a task."""
        self._task = task
        self._control = _Control(self._warn)
        self._work = work(task, self._study, self._data, self._control)

    def reply(self, number: int, verdict: Verdict) -> None:
        """Answer the last report."""
        if verdict == "prune" and self._task is not None and self._task.number == number:
            self._control.decision = "prune"

    def events(self, timeout: float) -> list[Event]:
        """Train the next interval and return its report, or the outcome."""
        if self._work is None or self._task is None:
            time.sleep(timeout)
            return []
        try:
            self._events.append(Reported(self._task.number, next(self._work)))
        except StopIteration as end:
            self._events.append(Ended(self._task.number, end.value))
            self._work = None
        except WorkerDied as error:
            self._events.append(Died(self._task.number, str(error)))
            self._work = None
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Have the trial stop at its next batch."""
        # A trial that is already being pruned ends as pruned.
        if self._control.decision == "continue":
            self._control.decision = "interrupt"

    def kill(self, number: int) -> None:
        """Stop the trial at its next batch: it runs in this process, which cannot be killed."""
        self.stop()

    def close(self) -> None:
        """Discard the trial."""
        torch.set_num_threads(self._threads)
        if self._work is not None:
            self._work.close()
            self._work = None

    def _warn(self, message: str) -> None:
        assert self._task is not None
        self._events.append(Warned(self._task.number, message))


class _Control:
    def __init__(self, warn: Callable[[str], None]) -> None:
        self.decision: Literal["continue", "prune", "interrupt"] = "continue"
        self.warn = warn

    def stop(self) -> bool:
        return self.decision != "continue"

    def verdict(self) -> Literal["continue", "prune", "interrupt"]:
        return self.decision
