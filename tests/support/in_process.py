"""The command line within this process, for tests of what it writes; `command_line.py` has the real thing."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hpsearch.cli.app import cli, run_command
from support import STUDIES


def hpsearch_here(folder: Path, *arguments: str) -> int:
    """Run a command in `folder` with the studies of the tests; return its exit code or raise its error."""
    with _in(folder):
        return cli.main(list(arguments), standalone_mode=False) or 0


def exit_code_here(folder: Path, *arguments: str) -> int:
    """Run a command as `hpsearch_here` does; return its exit code, with a line on stderr in place of an error."""
    with _in(folder):
        return run_command(arguments)


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    before, studies = Path.cwd(), os.environ.get("HPSEARCH_STUDIES")
    os.chdir(folder)
    os.environ["HPSEARCH_STUDIES"] = str(STUDIES)
    try:
        yield
    finally:
        os.chdir(before)
        del os.environ["HPSEARCH_STUDIES"]
        if studies is not None:
            os.environ["HPSEARCH_STUDIES"] = studies
