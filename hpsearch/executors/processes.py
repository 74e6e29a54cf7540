"""Processes in which torch works, with the study and the data set of the one that starts them.

Whatever becomes of them or of the server they are forked from, the one that started them notices, and none outlives it.
"""

import atexit
import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import time
import traceback
import weakref
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hpsearch.errors import CannotContinue, StudyFileError
from hpsearch.interrupts import SIGNALS
from hpsearch.study import StudyFile, load_study

# What a trial needs besides: torch's optimisers import the last one when the first of them is made, a second's work.
PRELOADED = ("torch.utils.tensorboard", "torch._dynamo")
SAFE_PATH = "PYTHONSAFEPATH"
START_ATTEMPTS = 5
END_SECONDS = 5.0


def context(preloaded: str) -> Any:
    """Return how processes are started: forked from a server that has imported torch and the module `preloaded`.

    Where that is not safe, elsewhere than on Linux, they are spawned.
    """
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    found = torch.multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([preloaded, *PRELOADED])
    return found


class Child:
    """A daemonic process and a pipe to it.

    `gone` says that it has ended, and that all it sent was received. It begins with `SIGNALS` blocked, and so does the
    server it is forked from: a signal to the whole process group must not take that down.
    """

    def __init__(self, context: Any, target: Callable[..., None], *arguments: object) -> None:
        """Start a process that calls `target` with its end of the pipe and `arguments`.

        Raises CannotContinue if no process can be started.
        """
        self.gone = False
        self.connection, theirs = context.Pipe()
        with theirs:
            self._process = _start(context, target, (theirs, *arguments))
        self.pid: int = self._process.pid
        # The end of the pipe is no sure sign of the process's end: what it forked may hold it open. Nor is the
        # sentinel of multiprocessing, which comes from the server.
        try:
            self._pidfd: int | None = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            self._pidfd = None
        _children.add(self)

    @property
    def waitables(self) -> list[Any]:
        """What `multiprocessing.connection.wait` finds ready when `receive` has something to do."""
        return [self.connection, self._sentinel]

    def send(self, message: object) -> None:
        """Send a message, if the process is still there."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> list[Any]:
        """Return the messages that are there, and find out whether the process is `gone`."""
        messages = []
        # Asked first: what it sent before it ended is in the pipe by then.
        ended = bool(wait([self._sentinel], 0))
        try:
            while self.connection.poll():
                messages.append(self.connection.recv())
        except (EOFError, OSError):
            ended = True
        self.gone = ended
        return messages

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        if self.connection.closed:
            return
        # Not `Process.kill`, which takes the process for dead once the server it was forked from is.
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is None:
                os.kill(self.pid, number)
            else:
                # Never another process that got its number.
                signal.pidfd_send_signal(self._pidfd, number)

    def how_it_ended(self) -> str:
        """Return how the process ended, in words that follow its name."""
        # The server tells it, a moment after the end.
        wait([self._process.sentinel], 1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with exit code {code}"

    def close(self) -> None:
        """End the process at once, wait until it has ended, and close the pipe."""
        if self.connection.closed:
            return
        self.send_signal(signal.SIGKILL)
        wait([self._sentinel], END_SECONDS)
        # Then the server has reaped it.
        wait([self._process.sentinel], 1.0)
        self.connection.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        _children.discard(self)

    @property
    def _sentinel(self) -> int:
        sentinel: int = self._process.sentinel if self._pidfd is None else self._pidfd
        return sentinel


def _start(context: Any, target: Callable[..., None], arguments: tuple[object, ...]) -> Any:
    global _starter
    _starter = os.getpid()
    safe_path = os.environ.get(SAFE_PATH)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for attempt in range(START_ATTEMPTS):
        time.sleep(0.2 * attempt)
        process = context.Process(target=_begin, args=(safe_path, target, arguments), daemon=True)
        # Else the working folder is the first where a new interpreter looks for modules, those of Python included.
        os.environ[SAFE_PATH] = "1"
        try:
            # Else `start` would do it, which unblocks the signals again.
            multiprocessing.resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            process.start()
            return process
        except (OSError, EOFError) as error:
            # The server may have been killed this very moment; the next attempt starts another one.
            failure = error
        finally:
            _set_safe_path(safe_path)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    raise CannotContinue(f"no process can be started ({failure}): are there too many, or is there too little memory?")


def _begin(safe_path: str | None, target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Run a new process, and end it without waiting for threads that the user's code may have started in it."""
    _set_safe_path(safe_path)
    code = 1
    try:
        target(*arguments)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _set_safe_path(value: str | None) -> None:
    if value is None:
        os.environ.pop(SAFE_PATH, None)
    else:
        os.environ[SAFE_PATH] = value


_children: "weakref.WeakSet[Child]" = weakref.WeakSet()
_starter: int | None = None


@atexit.register
def _end_all() -> None:
    """End what still runs: Python itself would wait for processes that ignore its SIGTERM, and not for the server."""
    if _starter != os.getpid():
        return  # A fork of it.
    for child in list(_children):
        child.close()
    server: Any = multiprocessing.forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def load_unchanged(path: Path, digest: str) -> StudyFile:
    """Load a study file in a process that was started for it. Raises StudyFileError if its text is another by now."""
    study_file = load_study(str(path))
    if study_file.digest != digest:
        raise StudyFileError(f"{path} was changed during the run; finish or stop the run before editing it")
    return study_file
