"""A database that may be away for a while: what is written waits in order, what is asked is asked again later."""

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
    """Writes to a database in order, each until it succeeds, without ever waiting for the database to come back.

    Once a call has failed, `heartbeat` finds out in its thread whether the database answers again; until it does
    nothing is tried here.
    """

    def __init__(
        self,
        storage: Storage,
        heartbeat: Heartbeat,
        seconds: float,
        *,
        write: Callable[[W], None],
        say: Callable[[str], None],
        lose: Callable[[int | None], None],
    ) -> None:
        """Give up once the database has been away for `seconds`; `say` what goes on, `lose` trials that others have.

        `write` does a write, and must be safe to repeat.
        """
        self._storage = storage
        self._heartbeat = heartbeat
        self._seconds = seconds
        self._write = write
        self._say = say
        self._lose = lose
        self._waiting: deque[W] = deque()
        self._away_since: float | None = None
        self._failed_at = self._next_attempt = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._error = ""

    @property
    def away(self) -> bool:
        """Whether the database did not answer when it was last asked."""
        return self._away_since is not None

    def append(self, write: W) -> None:
        """Have a write done by `flush`, after all that was appended before."""
        self._waiting.append(write)

    def flush(self) -> bool:
        """Write what waits, in order; return whether all of it could be written. Raises what `attempt` raises."""
        if self.away and not self._may_try():
            return False
        while self._waiting:
            if not self.attempt(partial(self._write, self._waiting[0])):
                return False
            self._waiting.popleft()
        return True

    def attempt(self, operation: Callable[[], None]) -> bool:
        """Do something with the database now; return False if it is out of reach.

        What concerns a trial that is not ours any more is done by not doing it. Raises StorageUnavailable once the
        database has been away for too long, and whatever else `operation` raises.
        """
        if self.away and not self._may_try():
            return False
        try:
            operation()
        except TrialLost as lost:
            self._lose(lost.trial_id)
        except Exception as error:
            if not is_outage(error):
                raise
            self._failed(error)
            return False
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._say(f"the database is back after {away:.0f} s; nothing was lost")
            self._away_since, self._delay = None, FIRST_DELAY_SECONDS
        return True

    def _may_try(self) -> bool:
        """Whether the database seems to be back. Raises StorageUnavailable."""
        now = time.monotonic()
        if now >= self._next_attempt and self._heartbeat.answered_since(self._failed_at):
            return True
        if self._away_since is not None and now - self._away_since > self._seconds:
            raise StorageUnavailable(
                f"the database did not answer for {self._seconds:g} s ({self._error}); everything trained is kept: "
                f"run the same command again when it is back"
            )
        return False

    def _failed(self, error: Exception) -> None:
        self._failed_at = time.monotonic()
        self._error = reason(error, self._storage.engine.url)
        if self._away_since is None:
            self._away_since = self._failed_at
            self._say(f"the database does not answer ({self._error}); training goes on, trying again")
        self._next_attempt = self._failed_at + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
        self._heartbeat.hurry()
