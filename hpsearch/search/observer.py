"""The interface through which a search reports its progress."""

from optuna.trial import TrialState

from hpsearch.executors import Outcome, Task
from hpsearch.search.search import Loaded, Search
from hpsearch.search.stored_study import StoredStudy
from hpsearch.training import IntervalReport


class Observer:
    """An observer of a search that does nothing. Every method of a subclass must return at once."""

    def opened(self, stored: StoredStudy, search: Search, loaded: Loaded) -> None:
        """The study was opened; its workers are started next."""

    def counts(self, counts: dict[TrialState, int], limit: int, infeasible: int = 0) -> None:
        """The number of trials in each state changed; `limit` trials are to be finished.

        Of those that failed, so many are `infeasible`.
        """

    def started(self, task: Task, intervals_before: int) -> None:
        """A trial was submitted to a worker."""

    def reported(self, number: int, report: IntervalReport) -> None:
        """A trial finished an interval."""

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        """The outcome of a trial was stored."""

    def released(self, number: int) -> None:
        """A trial is no longer run by this supervisor, although it has not ended."""

    def message(self, text: str) -> None:
        """There is a message for the user."""

    def tick(self) -> None:
        """Time passed."""
