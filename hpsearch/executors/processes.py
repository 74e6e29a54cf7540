"""Child processes that train with torch, using the study and the data set of the parent.

The parent detects when a child or the fork server ends, for whatever reason, and no child outlives the parent.
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
import types
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import util
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hpsearch.errors import CannotContinue, StudyFileError
from hpsearch.interrupts import SIGNALS
from hpsearch.study import StudyFile, load_study

# Modules that a trial also needs. The first torch optimiser imports `torch._dynamo`, which takes a second.
PRELOADED = ("torch.utils.tensorboard", "torch._dynamo")
SAFE_PATH = "PYTHONSAFEPATH"
START_ATTEMPTS = 5
END_SECONDS = 5.0


def context(preloaded: str) -> Any:
    """Return a multiprocessing context that forks from a server that has imported torch and the module `preloaded`.

    On systems other than Linux, where forking is not safe, its processes are spawned.
    """
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    forkserver = torch.multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([preloaded, *PRELOADED])
    return forkserver


class Child:
    """A process and a pipe to it. It is not daemonic, so that it may have child processes; `_end_all` ends it.

    `gone` is True once the process has ended and all its messages were received. `SIGNALS` are blocked when it starts,
    and in the fork server too: a signal to the whole process group must not end the server.
    """

    def __init__(self, context: Any, target: Callable[..., None], *arguments: object) -> None:
        """Start a process that calls `target` with its end of the pipe and with `arguments`.

        Raises CannotContinue if no process can be started.
        """
        self.gone = False
        self.connection, theirs = context.Pipe()
        with theirs:
            self._process = _start(context, target, (theirs, *arguments))
        self.pid: int = self._process.pid
        # A pidfd reliably shows the end of the process. The pipe may be held open by a process that it forked, and the
        # sentinel of multiprocessing depends on the server.
        try:
            self._pidfd: int | None = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            self._pidfd = None
        _children.add(self)

    @property
    def waitables(self) -> list[Any]:
        """The objects for `multiprocessing.connection.wait`; one is ready when `receive` has something to return."""
        return [self.connection, self._sentinel]

    def send(self, message: object) -> None:
        """Send a message, if the process is still running."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def receive(self) -> list[Any]:
        """Return the messages received so far, and set `gone` if the process has ended."""
        messages = []
        # This comes first: if the process has ended, all its messages are in the pipe.
        ended = bool(wait([self._sentinel], 0))
        try:
            while self.connection.poll():
                messages.append(self.connection.recv())
        except (EOFError, OSError):
            ended = True
        self.gone = ended
        return messages

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if it is still running."""
        if self.connection.closed:
            return
        # `Process.kill` regards the process as dead once the fork server is.
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is None:
                os.kill(self.pid, number)
            else:
                # A pidfd never refers to another process with the same id.
                signal.pidfd_send_signal(self._pidfd, number)

    def how_it_ended(self) -> str:
        """Return how the process ended, as the predicate of a sentence about it."""
        # The server reports the exit code shortly after the end.
        wait([self._process.sentinel], 1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with exit code {code}"

    def close(self) -> None:
        """Kill the process, wait until it has ended, and close the pipe."""
        if self.connection.closed:
            return
        self.send_signal(signal.SIGKILL)
        wait([self._sentinel], END_SECONDS)
        # The server has now reaped the process.
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
    # For sockets of the processes that the new one starts. This process removes it; that one may be killed.
    util.get_temp_dir()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for attempt in range(START_ATTEMPTS):
        time.sleep(0.2 * attempt)
        process = context.Process(target=_begin, args=(safe_path, target, arguments))
        # Otherwise a new interpreter looks in the working directory first, even for the modules of Python itself.
        os.environ[SAFE_PATH] = "1"
        try:
            # Otherwise `start` would start the tracker, and unblock the signals again.
            multiprocessing.resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            with _without_main_module():
                process.start()
            return process
        except (OSError, EOFError) as error:
            # The server may just have been killed; the next attempt starts a new one.
            failure = error
        finally:
            _set_safe_path(safe_path)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    raise CannotContinue(
        f"cannot start a process ({failure}): are there too many processes, or is there too little memory?"
    )


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Start processes that do not run the main module again: a script that searches would search in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(safe_path: str | None, target: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Run `target` in a new process, and end it without waiting for threads started by the user's code."""
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
    """End all children and the server: Python would wait for children that ignore SIGTERM, and leave the server."""
    if _starter != os.getpid():
        return  # In a forked process, the children are not ours.
    for child in list(_children):
        child.close()
    server: Any = multiprocessing.forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def load_unchanged(path: Path, digest: str) -> StudyFile:
    """Load a study file in a child process. Raises StudyFileError if the file was changed since the run began."""
    study_file = load_study(str(path))
    if study_file.digest != digest:
        raise StudyFileError(f"{path} was changed during the run; finish or stop the run before editing it")
    return study_file
