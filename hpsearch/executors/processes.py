"""Processes in which torch works, with the study and the data set of the one that starts them."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hpsearch.errors import StudyFileError
from hpsearch.study import StudyFile, load_study

# What a trial needs besides: torch's optimisers import the last one when the first of them is made, a second's work.
PRELOADED = ("torch.utils.tensorboard", "torch._dynamo")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def context(preloaded: str) -> Any:
    """Return how processes are started: forked from a server that has imported torch and the module `preloaded`.

    Where that is not safe, elsewhere than on Linux, they are spawned.
    """
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    found = torch.multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([preloaded, *PRELOADED])
    return found


def start(context: Any, target: Callable[..., None], *arguments: object) -> Any:
    """Start a daemonic process and return it.

    It begins with `SIGNALS` blocked, and so does the server it is forked from: a signal to the whole process group must
    not take that down.
    """
    process = context.Process(target=target, args=arguments, daemon=True)
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return process


def send_signal(process: Any, number: int) -> None:
    """Send a signal to a process, if it is still there."""
    # Not `Process.kill`, which takes the process for dead once the server it was forked from is.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def load_unchanged(path: Path, digest: str) -> StudyFile:
    """Load a study file in a process that was started for it. Raises StudyFileError if its text is another by now."""
    study_file = load_study(str(path))
    if study_file.digest != digest:
        raise StudyFileError(f"{path} was changed during the run; finish or stop the run before editing it")
    return study_file
