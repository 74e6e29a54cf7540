"""The names of the user attributes of a stored study."""

import math
from collections.abc import Mapping
from typing import Any

from hpsearch import text
from hpsearch.measure import ACCURACY, Measure

# An id that distinguishes the study from those of the same name in other databases.
STUDY_ID = "hpsearch:study_id"
# Its fingerprint (`hpsearch.search.fingerprint`).
FINGERPRINT = "hpsearch:fingerprint"
# The note of the data set.
NOTE = "hpsearch:note"
# The measure, as `measure_attr` returns it.
MEASURE = "hpsearch:measure"
# How good it is to always give the same answer (`Baseline`).
BASELINE = "hpsearch:baseline"
# How and where it was run, one entry for identical runs.
RUNS = "hpsearch:runs"
# For a pair of a comparison, the total seconds of its runs.
WALL_SECONDS = "hpsearch:wall_seconds"


def unit_of(attrs: Mapping[str, Any]) -> str:
    """Return the name of an interval of a study with these attributes: "epoch" if it is one epoch."""
    return text.unit(attrs.get(FINGERPRINT, {}).get("training", {}).get("interval"))


def measure_attr(measure: Measure) -> dict[str, Any]:
    """Return name, direction and bounds of a measure for the attribute `MEASURE`; None for an infinite bound."""
    low, high = (bound if math.isfinite(bound) else None for bound in (measure.low, measure.high))
    return {"name": measure.name, "maximize": measure.maximize, "low": low, "high": high}


def measure_from(attrs: Mapping[str, Any], *, maximize: bool) -> Measure:
    """Return the measure of a study with these attributes and this direction.

    Studies of earlier versions optimised the accuracy. What another tool's are about is not known.
    """
    if (stored := attrs.get(MEASURE)) is not None:
        low = -math.inf if stored["low"] is None else stored["low"]
        high = math.inf if stored["high"] is None else stored["high"]
        return Measure(name=stored["name"], maximize=stored["maximize"], low=low, high=high)
    return ACCURACY if STUDY_ID in attrs and maximize else Measure(name="value", maximize=maximize)
