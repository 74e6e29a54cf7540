"""Tables and numbers in markdown."""

from collections.abc import Sequence

import pandas as pd

from hpsearch.measure import Measure


def table(frame: pd.DataFrame) -> str:
    """Return a frame of texts and numbers, without its index, as a markdown table; numbers are right-aligned."""
    headers = [str(column) for column in frame.columns]
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(_row(cells) for cells in (headers, rule, *rows))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(value: object) -> str:
    """Return a value in a few characters, for a table's cell."""
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def mean_sd(mean: float, sd: float, digits: int = 4) -> str:
    """Return `mean ± sd`, or the mean alone if there is only one value."""
    return f"{mean:.{digits}f}" if sd != sd else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def measured(mean: float, sd: float, measure: Measure) -> str:
    """Return a mean of a measure as `mean ± sd`, or alone if there is only one value."""
    if measure.high <= 1:
        return mean_sd(mean, sd)
    return f"{mean:.5g}" if sd != sd else f"{mean:.5g} ± {sd:.2g}"
