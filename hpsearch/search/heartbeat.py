"""A supervisor's heartbeat, in a separate thread, so that a long interval or a slow sampler does not delay it.

The heartbeat stops if the process is suspended. It is recorded only for the trials that the supervisor owns according
to the database, so a trial that was taken over gets none from its earlier owner.
"""

import threading
import time

from hpsearch.search.database import is_outage
from hpsearch.search.storage import Storage

RETRY_SECONDS = 0.5


class Heartbeat:
    """Records heartbeats for the trials of `storage.owner`, and so detects whether the database answers."""

    def __init__(self, storage: Storage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._answered = float("-inf")
        self._error: Exception | None = None
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="hpsearch heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped = True
        self._wake.set()
        # The thread may be waiting for an unavailable database, which must not delay the exit.
        self._thread.join(1.0)

    def answered_since(self, moment: float) -> bool:
        """Whether the database has answered a heartbeat sent after `moment` of the monotonic clock.

        Raises the error that ended the thread, if any; an outage does not end it.
        """
        if self._error is not None:
            raise self._error
        return self._answered > moment

    def beat_now(self) -> None:
        """Send a heartbeat now, and retry until the database answers."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            sent = time.monotonic()
            delay = self._storage.owner.heartbeat
            try:
                self._storage.beat(self._study_id)
                self._answered = sent
            except Exception as error:
                if not is_outage(error):
                    self._error = error
                    return
                delay = RETRY_SECONDS
            self._wake.wait(delay)
