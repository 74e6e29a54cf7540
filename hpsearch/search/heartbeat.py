"""A supervisor's sign of life, from a thread of its own: neither a long interval nor a slow sampler makes it look dead.

A process that is frozen has no threads that run, and a trial that was taken over is not kept alive: a heartbeat is
recorded for what the database says is ours.
"""

import threading
import time

from hpsearch.search.database import is_outage
from hpsearch.search.storage import Storage

RETRY_SECONDS = 0.5


class Heartbeat:
    """Beats for the trials of `storage.owner` while it is entered, and so learns whether the database answers."""

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
        # It may be waiting for a database that is away; that must not keep us.
        self._thread.join(1.0)

    def answered_since(self, moment: float) -> bool:
        """Whether the database has answered a question asked after `moment` of the monotonic clock.

        Raises what ended the thread, if anything but an outage did.
        """
        if self._error is not None:
            raise self._error
        return self._answered > moment

    def hurry(self) -> None:
        """Try now, and go on trying until the database answers."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            asked = time.monotonic()
            delay = self._storage.owner.heartbeat
            try:
                self._storage.beat(self._study_id)
                self._answered = asked
            except Exception as error:
                if not is_outage(error):
                    self._error = error
                    return
                delay = RETRY_SECONDS
            self._wake.wait(delay)
