"""The interface between the supervisor and an executor."""

from dataclasses import dataclass
from typing import Literal, Protocol

from hpsearch.executors.task import Outcome, Task
from hpsearch.training import IntervalReport

Verdict = Literal["continue", "prune"]


@dataclass(frozen=True)
class Reported:
    """A trial finished an interval; it needs a verdict before it reports the next one."""

    number: int
    report: IntervalReport


@dataclass(frozen=True)
class Ended:
    """A trial ended, was pruned or was stopped; its slot is free."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """A trial's process, or one that read its examples, ended without an outcome.

    The trial's slot is free and its resume point is on disk.
    """

    number: int
    why: str


@dataclass(frozen=True)
class Warned:
    """A message for the user about something that does not end the trial."""

    number: int
    message: str


Event = Reported | Ended | Died | Warned


class Executor(Protocol):
    """Runs up to `slots` tasks at a time."""

    slots: int

    def submit(self, task: Task) -> None:
        """Start a task. A slot must be free."""

    def reply(self, number: int, verdict: Verdict) -> None:
        """Answer the last report of a trial. Does nothing if the trial has ended."""

    def events(self, timeout: float) -> list[Event]:
        """Return the events since the last call, waiting for the first up to `timeout` seconds."""

    def stop(self) -> None:
        """Have every trial stop at its next batch; each then ends as `interrupted`. Safe in a signal handler."""

    def kill(self, number: int) -> None:
        """Kill the process of a trial, which is then reported as `Died`."""

    def close(self) -> None:
        """End all processes and free all resources at once."""
