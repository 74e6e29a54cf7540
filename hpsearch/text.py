"""Values and numbers in few words, for messages and tables."""

import reprlib
from datetime import timedelta


def short(value: object) -> str:
    """Return a parameter's value in a few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def brief(value: object) -> str:
    """Return the `repr` of a value given by the user, cut in its middle where it is long or nested deep."""
    try:
        return _brief.repr(value)
    except ValueError:
        # Python does not write whole numbers of more than 4,300 digits.
        return f"{type(value).__name__} of {value.bit_length():,} bits" if isinstance(value, int) else "..."


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = 60


def unit(interval: object) -> str:
    """Return what a study's intervals are called, "epoch" where each is one; `interval` is the study's, or its text."""
    return "epoch" if str(interval) == "1" else "interval"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it is not one."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Return a time span as h:mm:ss, with days before it if need be."""
    try:
        return str(timedelta(seconds=max(0, round(seconds))))
    except (OverflowError, ValueError):
        return "more than a million years"
