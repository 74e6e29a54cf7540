"""Whoever watches a search."""

from optuna.trial import TrialState

from hpsearch.executors import Outcome, Task
from hpsearch.search.search import Loaded, Search
from hpsearch.search.stored_study import StoredStudy
from hpsearch.training import IntervalReport


class Observer:
    """Watches a search and does nothing. Every method of a subclass must return at once."""

    def opened(self, stored: StoredStudy, search: Search, loaded: Loaded) -> None:
        """The study is open, and its workers are going to be started."""

    def counts(self, counts: dict[TrialState, int], limit: int) -> None:
        """Take the present number of trials in each state, and how many are to be finished."""

    def started(self, task: Task, intervals_before: int) -> None:
        """A trial was handed to a worker."""

    def reported(self, number: int, report: IntervalReport) -> None:
        """A trial finished an interval."""

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        """A trial's end was stored."""

    def released(self, number: int) -> None:
        """A trial is no longer run here, without having ended."""

    def message(self, text: str) -> None:
        """Say something to the user."""

    def tick(self) -> None:
        """Time passed."""
