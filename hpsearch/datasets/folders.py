"""The data folder, `--data` or `$HPSEARCH_DATA`, and the search for files in it."""

import os
from pathlib import Path

from hpsearch.errors import UsageError
from hpsearch.text import brief

DATA_VARIABLE = "HPSEARCH_DATA"


def data_folder() -> Path:
    """Return the folder data sets are read from and downloaded to."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "hpsearch" / "data"


def find(path: str | Path) -> Path:
    """Return the path of a user's file or folder: if it is not in the working directory, in the data folder.

    Raises UsageError if it is in neither, or no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"expected the path of a file or folder, got {brief(path)}")
    path = Path(path).expanduser()
    for found in (path, data_folder() / path):
        if found.exists():
            return found
    if path.is_absolute():
        raise UsageError(f"there is no {path}")
    raise UsageError(
        f"there is no {path}, neither in {Path.cwd()} nor in the data folder {data_folder()}: "
        f"correct the path, or pass --data FOLDER (or set {DATA_VARIABLE})"
    )
