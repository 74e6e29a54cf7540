"""Executors train trials: one protocol, several implementations, one contract test (`tests/test_executors.py`).

An executor does not depend on the search. It receives a `Task`, reports after each interval, waits for the verdict on a
report before it reports again, and returns the outcome of the task.
"""

from hpsearch.datasets import Dataset
from hpsearch.executors.inline import InlineExecutor
from hpsearch.executors.local import LocalExecutor, time_to_load
from hpsearch.executors.protocol import Died, Ended, Event, Executor, Reported, Verdict, Warned
from hpsearch.executors.task import Outcome, Reason, Task
from hpsearch.study import StudyFile

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
    "make_executor",
    "time_to_load",
]


def make_executor(study_file: StudyFile, data: Dataset, workers: int, load_seconds: float) -> Executor:
    """Return an executor of that many workers, or one that trains in this process if there are none.

    `load_seconds` is the time that loading study and data took here.
    """
    if not workers:
        return InlineExecutor(study_file.study, data)
    return LocalExecutor(study_file, data, workers=workers, load_timeout=time_to_load(load_seconds))
