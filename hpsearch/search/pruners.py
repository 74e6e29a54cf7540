"""Pruners by name."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner

from hpsearch.errors import UsageError
from hpsearch.search.options import parse

PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "none": optuna.pruners.NopPruner,
}


def make_pruner(text: str) -> BasePruner:
    """Return the pruner that `text` names, such as `median` or `median:n_warmup_steps=3`.

    Raises UsageError for an unknown name or option, or an option's value that Optuna refuses.
    """
    name, options = parse("pruner", text, dict(PRUNERS))
    arguments: dict[str, Any] = options
    try:
        return PRUNERS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"pruner {text!r}: {error}") from error
