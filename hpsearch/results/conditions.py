"""Conditions on trials, such as `parameters < 50000 and lr >= 0.01`: comparisons of columns of the trials' frame.

A parser of comparisons, nothing else: what a user types is not evaluated as code.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hpsearch.errors import UsageError
from hpsearch.text import brief

EXAMPLE = "parameters < 50000 and latency_ms <= 2"
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_COMPARISON = re.compile(
    r"""\s*(?P<column>[^<>=!'"]*[^<>=!'"\s])
        \s*(?P<operator><=|>=|==|!=|<|>|=)
        \s*(?P<value>'[^']*'|"[^"]*"|[^\s<>=!'"]+)
        (?:\s*$|\s+and\s+(?=\S))""",
    re.VERBOSE | re.IGNORECASE,
)
# Not compared: times, and texts of errors.
_LEFT_OUT = ("started", "ended", "error")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of a column with a value: a number, a text, True, False or None."""

    column: str
    operator: str
    value: Any

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {_text(self.value)}"

    def holds(self, entry: Any) -> bool:
        """Whether it holds for an entry of the column; never for a missing one."""
        return not _is_missing(entry) and bool(_OPERATORS[self.operator](entry, self.value))


def parse_conditions(text: str, trials: pd.DataFrame) -> list[Condition]:
    """Parse comparisons joined by `and`. A column is one of the frame of trials; `lr` stands for `params.lr`.

    Raises UsageError for anything else, an unknown column, and a value that is not of the column's type.
    """
    conditions: list[Condition] = []
    position = 0
    while position < len(text) or not conditions:
        match = _COMPARISON.match(text, position)
        if match is None:
            raise UsageError(
                f"--where: cannot read {brief(text[position:].strip())}: give comparisons (< <= > >= == !=) of a "
                f"column with a value, joined by and, such as {EXAMPLE!r}"
            )
        column = _column(match["column"], trials)
        conditions.append(
            Condition(
                column=column,
                operator=match["operator"],
                value=_value(column, match["operator"], match["value"], trials[column]),
            )
        )
        position = match.end()
    return conditions


def satisfying(trials: pd.DataFrame, conditions: Sequence[Condition]) -> pd.DataFrame:
    """Return the trials for which all conditions hold.

    Raises UsageError if there is none, with the nearest value of the first condition that leaves none.
    """
    earlier: list[str] = []
    for condition in conditions:
        left = trials[trials[condition.column].map(condition.holds).astype(bool)]
        if left.empty:
            others = f" that has {' and '.join(earlier)}" if earlier else ""
            raise UsageError(f"no complete trial{others} has {condition}: {_nearest(trials, condition)}")
        trials = left
        earlier.append(str(condition))
    return trials


def _column(name: str, trials: pd.DataFrame) -> str:
    known = [str(column) for column in trials.columns if column not in _LEFT_OUT]
    for column in (name, f"params.{name}"):
        if column in known:
            return column
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"--where: the trials have no column {brief(name)}: {hint}they have {', '.join(known)}")


def _value(column: str, sign: str, text: str, entries: pd.Series) -> Any:
    """Return a value as the type of a column's entries. Raises UsageError if it has another type."""
    present = [entry for entry in entries if not _is_missing(entry)]
    value = _literal(text)
    if isinstance(value, str) and present and all(map(_is_number, present)):
        raise UsageError(f"--where: {column} is a number, got {brief(value)}")
    if any(isinstance(entry, str) for entry in present):
        # A column of choices may mix numbers and texts, and a text may look like a number.
        plain = text[1:-1] if text[0] in "'\"" else text
        value = next((entry for entry in present if str(entry) in (plain, str(value))), value)
    if sign not in ("=", "==", "!=") and not (_is_number(value) and all(map(_is_number, present))):
        raise UsageError(f"--where: {column} {sign} {text}: only numbers have an order; texts are compared by == or !=")
    return value


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isnan(number) else number


def _nearest(trials: pd.DataFrame, condition: Condition) -> str:
    present = [entry for entry in trials[condition.column] if not _is_missing(entry)]
    if not present:
        return "it is not known of any (trials of earlier versions lack it)"
    if not all(map(_is_number, present)) or condition.operator == "!=":
        return f"there is {', '.join(sorted(set(map(_text, present))))}"
    if condition.operator in ("<", "<="):
        return f"the lowest is {_text(min(present))}"
    if condition.operator in (">", ">="):
        return f"the highest is {_text(max(present))}"
    return f"the nearest is {_text(min(present, key=lambda entry: abs(entry - condition.value)))}"


def _text(entry: Any) -> str:
    return f"{entry:.10g}" if _is_number(entry) else str(entry)


def _is_number(entry: Any) -> bool:
    return pd.api.types.is_number(entry) and not isinstance(entry, bool)


def _is_missing(entry: Any) -> bool:
    return entry is None or bool(pd.isna(entry))
