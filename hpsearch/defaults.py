"""Where studies and files are when nobody says so. Imports nothing that takes long."""

import os
from pathlib import Path

STORAGE_VARIABLE, STORAGE = "HPSEARCH_STORAGE", "sqlite:///hpsearch.db"
RUNS_VARIABLE, RUNS = "HPSEARCH_RUNS", "runs"


def default_storage() -> str:
    """Return the URL of the database: `$HPSEARCH_STORAGE`, else a SQLite file here."""
    return os.environ.get(STORAGE_VARIABLE) or STORAGE


def default_runs() -> Path:
    """Return the folder for the trials' files: `$HPSEARCH_RUNS`, else `runs` here."""
    return Path(os.environ.get(RUNS_VARIABLE) or RUNS)
