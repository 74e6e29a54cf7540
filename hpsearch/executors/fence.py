"""Who may write in a trial's folder: the latest of those that claimed the trial.

A supervisor that was frozen or cut off does not know that its trial was taken over, and neither does its worker. So
every claim of a trial has a number, larger than all before, and leaves it in the trial's folder; whoever finds another
claim there has lost the trial and writes nothing any more. The claim is looked at and the file put in place under one
lock, held for microseconds; a process frozen just there makes a later claim wait until it wakes up or is killed.
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

    A file system that has no locks (some on clusters) leaves a gap of microseconds between look and write.
    """

    def __init__(self, folder: Path, identity: str, number: int) -> None:
        self._path = folder / CLAIM
        self._identity = identity
        self._number = number

    def enter(self) -> None:
        """Shut out all earlier claims; those of another identity count for nothing. Raises TrialLost."""
        with self._locked() as file:
            identity, number = _read(file)
            if identity == self._identity and number > self._number:
                raise self._lost()
            os.truncate(file, 0)
            with accessing(self._path):
                os.pwrite(file, json.dumps([self._identity, self._number]).encode(), 0)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep later claims out for a moment, to rename or remove a file. Raises TrialLost if there is one already."""
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
    """Return identity and number; an empty or damaged file has none."""
    try:
        identity, number = json.loads(os.pread(file, 4096, 0))
        return str(identity), int(number)
    except (ValueError, TypeError):
        return "", -1
