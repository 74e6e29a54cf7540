"""Executors train trials: one protocol, several implementations, one contract test (`tests/test_executors.py`).

An executor does not depend on the search. It receives a `Task`, reports after each interval, waits for the verdict on a
report before it reports again, and returns the outcome of the task.
"""

from hpsearch.executors.inline import InlineExecutor
from hpsearch.executors.local import LocalExecutor, time_to_load
from hpsearch.executors.protocol import Died, Ended, Event, Executor, Reported, Verdict, Warned
from hpsearch.executors.task import Outcome, Reason, Task

__all__ = [
    "Died",
    "Ended",
    "Event",
    "Executor",
    "InlineExecutor",
    "LocalExecutor",
    "Outcome",
    "Reason",
    "Reported",
    "Task",
    "Verdict",
    "Warned",
    "time_to_load",
]
