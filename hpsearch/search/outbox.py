"""A database that may be away for a while: what is written waits in order, what is asked is asked again later."""

import time
from collections import deque
from collections.abc import Callable

from hpsearch.errors import StorageUnavailable
from hpsearch.search.storage import Storage, is_outage, reason

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 4.0


class Outbox:
    """Writes to a database in order, each until it succeeds, without ever waiting for the database to come back."""

    def __init__(self, storage: Storage, seconds: float, say: Callable[[str], None]) -> None:
        """Give up once the database has been away for `seconds`; `say` what goes on."""
        self._storage = storage
        self._seconds = seconds
        self._say = say
        self._waiting: deque[Callable[[], None]] = deque()
        self.retry_now()

    def retry_now(self) -> None:
        """Forget earlier failures: the next attempt is made at once, and is the first."""
        self._away_since: float | None = None
        self._next_attempt = 0.0
        self._delay = FIRST_DELAY_SECONDS

    def append(self, write: Callable[[], None]) -> None:
        """Have `write` done by `flush`, after all that was appended before. It must be safe to repeat."""
        self._waiting.append(write)

    def flush(self) -> bool:
        """Write what waits, in order; return whether all of it could be written. Raises what `attempt` raises."""
        while self._waiting:
            if not self.attempt(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def attempt(self, operation: Callable[[], None]) -> bool:
        """Do something with the database now; return False if it is out of reach.

        After a failure nothing is tried for a while, from attempt to attempt longer. Raises StorageUnavailable once
        the database has been away for too long, and whatever else `operation` raises.
        """
        if time.monotonic() < self._next_attempt:
            return False
        try:
            operation()
        except Exception as error:
            if not is_outage(error):
                raise
            self._failed(error)
            return False
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._say(f"the database is back after {away:.0f} s; nothing was lost")
        self.retry_now()
        return True

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        said = reason(error, self._storage.engine.url)
        if self._away_since is None:
            self._away_since = now
            self._say(f"the database does not answer ({said}); training goes on, trying again")
        elif now - self._away_since > self._seconds:
            raise StorageUnavailable(
                f"the database did not answer for {self._seconds:g} s ({said}); everything trained is kept: "
                f"run the same command again when it is back"
            ) from error
        self._next_attempt = now + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)
