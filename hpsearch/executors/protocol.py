"""What the supervisor and an executor say to each other."""

from dataclasses import dataclass
from typing import Literal, Protocol

from hpsearch.executors.task import Outcome, Task
from hpsearch.training import IntervalReport

Verdict = Literal["continue", "prune"]


@dataclass(frozen=True)
class Reported:
    """A trial finished an interval and waits for a verdict before it may report the next."""

    number: int
    report: IntervalReport


@dataclass(frozen=True)
class Ended:
    """A trial ended by itself, was pruned or was stopped; its slot is free."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """A trial's process is gone without an outcome; its slot is free and its resume point is on disk."""

    number: int
    why: str


@dataclass(frozen=True)
class Warned:
    """Something the user should know that ends no trial."""

    number: int
    message: str


Event = Reported | Ended | Died | Warned


class Executor(Protocol):
    """Runs tasks in `slots` places at once."""

    slots: int

    def submit(self, task: Task) -> None:
        """Start a task in a free slot. There must be one."""

    def reply(self, number: int, verdict: Verdict) -> None:
        """Answer the last report of a trial. Does nothing if the trial is gone."""

    def events(self, timeout: float) -> list[Event]:
        """Return what happened, waiting up to `timeout` seconds for something."""

    def stop(self) -> None:
        """Have every trial stop at its next batch; each then ends as `interrupted`. Safe in a signal handler."""

    def kill(self, number: int) -> None:
        """End a trial's process by force: it is then reported as `Died`."""

    def close(self) -> None:
        """End all processes and free everything, at once."""
