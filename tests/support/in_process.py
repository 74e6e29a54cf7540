"""The command line within this process, for tests of what it writes; `command_line.py` has the real thing."""

import os
from pathlib import Path

from hpsearch.cli.app import cli
from support import STUDIES


def hpsearch_here(folder: Path, *arguments: str) -> int:
    """Run a command in `folder` with the studies of the tests; return its exit code or raise its error."""
    before, studies = Path.cwd(), os.environ.get("HPSEARCH_STUDIES")
    os.chdir(folder)
    os.environ["HPSEARCH_STUDIES"] = str(STUDIES)
    try:
        return cli.main(list(arguments), standalone_mode=False) or 0
    finally:
        os.chdir(before)
        del os.environ["HPSEARCH_STUDIES"]
        if studies is not None:
            os.environ["HPSEARCH_STUDIES"] = studies
