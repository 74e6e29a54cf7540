"""The user attributes of a stored study."""

from collections.abc import Mapping
from typing import Any

from hpsearch import text

# Which study it is, among those of its name elsewhere.
STUDY_ID = "hpsearch:study_id"
# What it is recognised by (`hpsearch.search.fingerprint`).
FINGERPRINT = "hpsearch:fingerprint"
# What the data set says of itself.
NOTE = "hpsearch:note"
# The accuracy of always giving the same answer, as `Baseline` has it.
BASELINE = "hpsearch:baseline"
# How it was run and where, one entry for all runs that are alike.
RUNS = "hpsearch:runs"
# For a pair of a comparison: the seconds that its runs took together.
WALL_SECONDS = "hpsearch:wall_seconds"


def unit_of(attrs: Mapping[str, Any]) -> str:
    """Return what an interval of a study with these attributes is called: "epoch" where it is one."""
    return text.unit(attrs.get(FINGERPRINT, {}).get("training", {}).get("interval"))
