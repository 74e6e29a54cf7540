"""The default locations of the database and of the trials' files. Imports nothing slow."""

import os
from pathlib import Path

STORAGE_VARIABLE, STORAGE = "HPSEARCH_STORAGE", "sqlite:///hpsearch.db"
RUNS_VARIABLE, RUNS = "HPSEARCH_RUNS", "runs"


def default_storage() -> str:
    """Return the URL of the database: `$HPSEARCH_STORAGE`, else a SQLite file in the working directory."""
    return os.environ.get(STORAGE_VARIABLE) or STORAGE


def default_runs() -> Path:
    """Return the folder for the trials' files: `$HPSEARCH_RUNS`, else `runs` in the working directory."""
    return Path(os.environ.get(RUNS_VARIABLE) or RUNS)
