"""Parse samplers and pruners as they are given on the command line: `name` or `name:option=value,...`.

Each name stands for a function. Its parameters after the first are the options, and their annotations define the
allowed values.
"""

import difflib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from hpsearch.errors import UsageError
from hpsearch.text import brief


@dataclass(frozen=True)
class Range:
    """Allows the numbers from `low` to `high`."""

    low: float
    high: float = float("inf")

    def __str__(self) -> str:
        return f"of at least {self.low:g}" if self.high == float("inf") else f"from {self.low:g} to {self.high:g}"


Whole = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
# A name with its own options, which takes the rest of the text.
Rest = Annotated[str, "rest"]

_TYPES: dict[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "a name"),
    types.NoneType: (types.NoneType, "null"),
}


@dataclass(frozen=True)
class Named:
    """The name of a sampler or pruner and the given options; `text` is what was parsed."""

    name: str
    options: Mapping[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text


def parse(kind: str, text: str, known: Mapping[str, Callable[..., Any]]) -> Named:
    """Return the name and the options in `text`; `known` maps each name to the function that defines its options.

    Values are parsed as JSON if possible (`5`, `0.1`, `true`, `null`), otherwise they are strings. Raises UsageError
    for an unknown name or option, listing the valid ones, and for a value that the annotation does not allow.
    """
    name, _, tail = text.partition(":")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown {kind} {brief(name)}: {hint}choose from {', '.join(known)}")
    hints = typing.get_type_hints(known[name], include_extras=True)
    valid = [option for option in list(inspect.signature(known[name]).parameters)[1:] if not option.startswith("_")]
    options: dict[str, Any] = {}
    while tail:
        item, _, tail = tail.partition(",")
        option, equals, value = item.partition("=")
        if option not in valid or not equals:
            raise UsageError(
                f"{kind} {name}: cannot use {brief(item)}; "
                + (
                    f"options are given as name=value; valid options are {', '.join(valid)}"
                    if valid
                    else "it has no options"
                )
            )
        if Rest in typing.get_args(hints[option]):
            value, tail = f"{value},{tail}".rstrip(","), ""
        options[option] = _check(f"{kind} {name}: {option}", read_value(value), hints[option])
    return Named(name, options, text)


def read_value(text: str) -> Any:
    """Parse `text` as JSON; return the text itself if it is not valid JSON, or too large or nested for Python."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _check(label: str, value: Any, hint: Any) -> Any:
    """Return `value` if the annotation `hint` allows it. Raises UsageError, which lists what is allowed, otherwise."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) or _is_union(hint) else (hint,)
    allowed: list[str] = []
    for member in members:
        limits = next((item for item in getattr(member, "__metadata__", ()) if isinstance(item, Range)), None)
        kind, name = _TYPES[typing.get_args(member)[0] if typing.get_origin(member) is Annotated else member]
        allowed.append(f"{name} {limits}" if limits else name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            continue
        if limits is None or limits.low <= value <= limits.high:
            return value
    raise UsageError(f"{label} must be {' or '.join(allowed)}, got {brief(value)}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union
