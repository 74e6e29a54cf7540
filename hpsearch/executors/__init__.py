"""Where a trial is trained. One protocol, several executors, one contract test (`tests/test_executors.py`).

An executor knows nothing of the search: it is handed a `Task`, reports after each interval, waits to be told to go on
or to stop before it reports again, and says how the task ended.
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
