"""Short texts of values and numbers, for messages and tables."""

import reprlib
from datetime import timedelta


def short(value: object) -> str:
    """Return a parameter's value in a few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def brief(value: object) -> str:
    """Return the `repr` of a value given by the user, shortened in the middle if it is long or deeply nested."""
    try:
        return _brief.repr(value)
    except ValueError:
        # Python does not convert integers of more than 4,300 digits to text.
        return f"{type(value).__name__} of {value.bit_length():,} bits" if isinstance(value, int) else "..."


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = 60


def unit(interval: object) -> str:
    """Return the name of a study's intervals: "epoch" if each is one epoch. `interval` is the study's, or its text."""
    return "epoch" if str(interval) == "1" else "interval"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is one."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a time span as h:mm:ss, preceded by days if necessary."""
    try:
        return str(timedelta(seconds=max(0, round(seconds))))
    except (OverflowError, ValueError):
        return "more than a million years"
