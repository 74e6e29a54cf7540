"""A fence around a trial's folder: only the latest claim of the trial may write to it.

A supervisor that was suspended or disconnected, and its workers, do not know that another supervisor has taken over the
trial. Every claim of a trial therefore has a number, larger than all earlier ones, which is written to the trial's
folder. A process that reads a later claim there has lost the trial and must not write to the folder any more. Checking
the claim and putting a file in place happen under one lock, held for microseconds; if a process is suspended while it
holds the lock, a later claim waits until that process continues or is killed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hpsearch.checkpoint import accessing
from hpsearch.errors import TrialLost

CLAIM = ".claim"


class Fence:
    """The claim `number` of the trial `identity` on its folder.

    On a file system without locks (some on clusters), microseconds lie between the check and the write.
    """

    def __init__(self, folder: Path, identity: str, number: int) -> None:
        self._path = folder / CLAIM
        self._identity = identity
        self._number = number

    def enter(self) -> None:
        """Invalidate all earlier claims; ignore those of another identity.

        Raises TrialLost if there is a later claim.
        """
        with self._locked() as file:
            identity, number = _read(file)
            if identity == self._identity and number > self._number:
                raise self._lost()
            os.truncate(file, 0)
            with accessing(self._path):
                os.pwrite(file, json.dumps([self._identity, self._number]).encode(), 0)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Block later claims while a file is renamed or removed. Raises TrialLost if there is one already."""
        with self._locked() as file:
            if _read(file) != (self._identity, self._number):
                raise self._lost()
            yield

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with accessing(self._path):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _lost(self) -> TrialLost:
        return TrialLost(f"{self._path.parent} belongs to a later claim of the trial")


def _read(file: int) -> tuple[str, int]:
    """Return the identity and the number in a claim file, or `("", -1)` if it is empty or damaged."""
    try:
        identity, number = json.loads(os.pread(file, 4096, 0))
        return str(identity), int(number)
    except (ValueError, TypeError):
        return "", -1
