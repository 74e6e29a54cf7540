"""Access to a database that may be unavailable for a while: writes wait in order, other calls can be tried again."""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from hpsearch.errors import StorageUnavailable, TrialLost
from hpsearch.search.database import is_outage, reason
from hpsearch.search.heartbeat import Heartbeat
from hpsearch.search.storage import Storage

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 4.0

W = TypeVar("W")


class Outbox(Generic[W]):
    """Writes to a database in order, each until it succeeds, without waiting for an unavailable database.

    After a call has failed, `heartbeat` checks in its thread whether the database answers again. Until it does, nothing
    is tried here.
    """

    def __init__(
        self,
        storage: Storage,
        heartbeat: Heartbeat,
        seconds: float,
        *,
        write: Callable[[W], None],
        notify: Callable[[str], None],
        on_lost: Callable[[int | None], None],
    ) -> None:
        """Give up once the database has been unavailable for `seconds`.

        `write` does a write, and must be safe to repeat. `notify` is called with messages for the user, `on_lost` with
        the id of a trial that another supervisor has taken over.
        """
        self._storage = storage
        self._heartbeat = heartbeat
        self._seconds = seconds
        self._write = write
        self._notify = notify
        self._on_lost = on_lost
        self._waiting: deque[W] = deque()
        self._away_since: float | None = None
        self._failed_at = self._next_attempt = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._error = ""

    @property
    def away(self) -> bool:
        """Whether the database did not answer the last call."""
        return self._away_since is not None

    def append(self, write: W) -> None:
        """Append a write, to be done by `flush` after all earlier ones."""
        self._waiting.append(write)

    def flush(self) -> bool:
        """Do the waiting writes in order; return whether all of them succeeded. Raises the errors of `attempt`."""
        if self.away and not self._may_try():
            return False
        while self._waiting:
            if not self.attempt(partial(self._write, self._waiting[0])):
                return False
            self._waiting.popleft()
        return True

    def attempt(self, operation: Callable[[], None]) -> bool:
        """Call an operation on the database now; return False if the database is unavailable.

        An operation on a trial that another supervisor has taken over is dropped, and counts as done. Raises
        StorageUnavailable once the database has been unavailable for too long, and any other error of `operation`.
        """
        if self.away and not self._may_try():
            return False
        try:
            operation()
        except TrialLost as lost:
            self._on_lost(lost.trial_id)
        except Exception as error:
            if not is_outage(error):
                raise
            self._failed(error)
            return False
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._notify(f"the database is back after {away:.0f} s; nothing was lost")
            self._away_since, self._delay = None, FIRST_DELAY_SECONDS
        return True

    def _may_try(self) -> bool:
        """Whether the database seems to be available again. Raises StorageUnavailable after too long an outage."""
        now = time.monotonic()
        if now >= self._next_attempt and self._heartbeat.answered_since(self._failed_at):
            return True
        if self._away_since is not None and now - self._away_since > self._seconds:
            raise StorageUnavailable(
                f"the database did not answer for {self._seconds:g} s ({self._error}); everything trained is kept: "
                f"run the same command again when the database is back"
            )
        return False

    def _failed(self, error: Exception) -> None:
        self._failed_at = time.monotonic()
        self._error = reason(error, self._storage.engine.url)
        if self._away_since is None:
            self._away_since = self._failed_at
            self._notify(f"the database does not answer ({self._error}); training continues while hpsearch retries")
        self._next_attempt = self._failed_at + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
        self._heartbeat.beat_now()
