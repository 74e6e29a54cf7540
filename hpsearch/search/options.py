"""The form in which samplers and pruners are named on the command line: `name` or `name:option=value,...`."""

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from hpsearch.errors import UsageError

# Set by hpsearch itself.
_RESERVED = {"self", "seed"}


def parse(kind: str, text: str, known: Mapping[str, Callable[..., Any]]) -> tuple[str, dict[str, Any]]:
    """Return the name and the options in `text`. `known` gives for each name a callable with its options.

    Values are read as JSON where they can be (`5`, `0.1`, `true`, `null`), else as strings. Raises UsageError for an
    unknown name or option, listing the valid ones.
    """
    name, _, tail = text.partition(":")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")
    valid = [option for option in inspect.signature(known[name]).parameters if option not in _RESERVED]
    options: dict[str, Any] = {}
    for item in filter(None, tail.split(",")):
        option, equals, value = item.partition("=")
        if option not in valid or not equals:
            raise UsageError(
                f"{kind} {name}: cannot use {item!r}; options are given as name=value, "
                f"valid are {', '.join(valid) or 'none'}"
            )
        try:
            options[option] = json.loads(value)
        except json.JSONDecodeError:
            options[option] = value
    return name, options
