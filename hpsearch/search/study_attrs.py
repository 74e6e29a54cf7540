"""The names of the user attributes of a stored study."""

from collections.abc import Mapping
from typing import Any

from hpsearch import text

# An id that distinguishes the study from those of the same name in other databases.
STUDY_ID = "hpsearch:study_id"
# Its fingerprint (`hpsearch.search.fingerprint`).
FINGERPRINT = "hpsearch:fingerprint"
# The note of the data set.
NOTE = "hpsearch:note"
# The accuracy of a constant prediction (`Baseline`).
BASELINE = "hpsearch:baseline"
# How and where it was run, one entry for identical runs.
RUNS = "hpsearch:runs"
# For a pair of a comparison, the total seconds of its runs.
WALL_SECONDS = "hpsearch:wall_seconds"


def unit_of(attrs: Mapping[str, Any]) -> str:
    """Return the name of an interval of a study with these attributes: "epoch" if it is one epoch."""
    return text.unit(attrs.get(FINGERPRINT, {}).get("training", {}).get("interval"))
