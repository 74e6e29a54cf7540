"""The data folder: `--data` or `$HPSEARCH_DATA`."""

import os
from pathlib import Path

DATA_VARIABLE = "HPSEARCH_DATA"


def data_folder() -> Path:
    """Return the folder data sets are read from and downloaded to."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "hpsearch" / "data"
