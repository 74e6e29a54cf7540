"""The command line as a user has it: `hpsearch ...` in a process of its own, in a folder of its own."""

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil

from support import STUDIES


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without hpsearch's variables, but for the tests' study files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HPSEARCH_")}
    return kept | {"HPSEARCH_STUDIES": str(STUDIES), "COLUMNS": "80", "PYTHONWARNINGS": "error::UserWarning"} | extra


def hpsearch(*arguments: str, cwd: Path, timeout: float = 120, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "hpsearch", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=timeout, check=False
    )


class Started:
    """A command under way, in a process group of its own as in a terminal; its output goes to files."""

    def __init__(self, *arguments: str, cwd: Path, name: str = "run", **extra: str) -> None:
        self.out, self.err = cwd / f"{name}.out", cwd / f"{name}.err"
        command = [sys.executable, "-m", "hpsearch", *arguments]
        with self.out.open("w") as out, self.err.open("a") as err:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment(**extra), stdout=out, stderr=err, start_new_session=True
            )

    def interrupt(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def signal_tree(self, number: int) -> None:
        """Send a signal to the supervisor and all processes below it, if it is still there."""
        with suppress(psutil.NoSuchProcess):
            for process in (psutil.Process(self.process.pid), *self.workers()):
                process.send_signal(number)

    def workers(self) -> list[psutil.Process]:
        """Return the processes below the supervisor."""
        try:
            below: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return below

    def wait(self, timeout: float = 120) -> int:
        """Return the exit code."""
        return self.process.wait(timeout)


def states(database: Path, study: str) -> Counter[str]:
    """Return how many trials of a study are in each state, by plain SQL."""
    if not database.exists():
        return Counter()
    query = "SELECT state, COUNT(*) FROM trials NATURAL JOIN studies WHERE study_name = ? GROUP BY state"
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            return Counter(dict(connection.execute(query, (study,))))
    except sqlite3.OperationalError:
        return Counter()


def wait_for(condition: object, timeout: float = 120) -> None:
    """Wait until `condition()` is true. Raises TimeoutError."""
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)
