"""What a study is recognised by: whatever changes its results, as short texts that a message can name.

Its space, its data, how long it trains and when it stops, what its recipe builds, and the code that this is made of.
Comments, docstrings, figures, the number of trials and the order of definitions are not part of it.
"""

import ast
import functools
import hashlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from hpsearch.datasets import Dataset, fingerprint
from hpsearch.space import Choice, Space
from hpsearch.study import Recipe, Study, StudyFile, users_code

FUNCTIONS = (ast.Lambda, ast.FunctionDef)
PARTS = ("model", "optimizer", "loss", "schedule", "batch_size", "epochs")


def describe_study(study_file: StudyFile, data: Dataset | None, seed: int) -> dict[str, Any]:
    """Return, as short texts, what must not change between two runs of a study."""
    study = study_file.study
    built: dict[str, set[str]] = {part: set() for part in PARTS}
    names: dict[str, set[str]] = {part: set() for part in PARTS}

    def look(space: Space, recipe: Recipe) -> None:
        # What is built at points of a grid would depend on the grid, which does not change what a trial is.
        if not all(isinstance(p, Choice) or space.params[p.name] in (p.low, p.high) for p in space.parameters.values()):
            return
        for part in PARTS:
            value = getattr(recipe, part)
            built[part].add(_text(value))
            names[part].add(_name(value))

    with users_code(study_file.path):
        described = study.explore(look)
    training = {
        "epochs": str(study.epochs),
        "interval": str(study.interval),
        "early stopping": str(study.early_stopping),
    }
    for part in PARTS:
        if part in ("batch_size", "epochs"):
            # Where they are parameters of the space, these are the ends of their ranges.
            training[f"recipe's {part}"] = ", ".join(sorted(built[part]))
        else:
            training[part] = f"{', '.join(sorted(names[part]))} ({_digest(sorted(built[part]))})"
    return {
        "space": {
            name: f"{type(found.parameter).__name__.lower()} {found.parameter}" for name, found in described.items()
        },
        "training": training,
        "code": _code(study),
        "data": fingerprint(data) if data else {},
        "direction": "maximize",
        "seed": seed,
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one text for each entry that differs between two descriptions of a study.

    Sections that `before`, of an earlier version, does not have are not compared.
    """
    return _differences(before, {key: value for key, value in now.items() if key in before})


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        was, new = before.get(key), now.get(key)
        if isinstance(was, dict) or isinstance(new, dict):
            found += _differences(was or {}, new or {}, f"{key} ")
        elif was != new:
            change = "is new" if was is None else "is gone" if new is None else f"was {was}, is now {new}"
            found.append(f"{prefix}{key} {change}")
    return found


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _name(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, functools.partial):
        return _name(value.func)
    return str(getattr(value, "__qualname__", None) or type(value).__qualname__)


def _text(value: Any) -> str:
    """Return what a part of a recipe is, without the addresses that differ from run to run."""
    if isinstance(value, functools.partial):
        return f"partial({_text(value.func)}, {value.args}, {value.keywords})"
    if inspect.isfunction(value):
        return f"{_name(value)} {_source(value)}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return _name(value)
    text = repr(value)
    if isinstance(value, nn.Module):
        text += "".join(f" {name} {_shape(tensor)}" for name, tensor in value.state_dict().items())
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _shape(tensor: Any) -> str:
    try:
        return str(tuple(tensor.shape))
    except (AttributeError, RuntimeError):
        # A lazy module's, before it has seen a batch; or state that is no tensor.
        return ""


def _source(function: Any) -> str:
    """Return a function as parsed, such as a lambda in a recipe."""
    path, line = Path(function.__code__.co_filename), function.__code__.co_firstlineno
    if not path.is_file():
        return ""
    tree = ast.parse(path.read_bytes())
    return "".join(ast.dump(node) for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node.lineno == line)


def _code(study: Study) -> dict[str, str]:
    """Return a digest of each definition that the recipe and the data set function use, by its name.

    Those in the same file, as parsed: formatting, comments and docstrings do not count. The recipe itself is known by
    what it builds, the data set function by its data.
    """
    found: dict[str, str] = {}
    for function in (study.recipe, study.dataset):
        while isinstance(function, functools.partial):
            function = function.func
        if not inspect.isfunction(function) or not Path(function.__code__.co_filename).is_file():
            continue
        if function.__module__.startswith("hpsearch."):
            continue
        defined = _definitions(Path(function.__code__.co_filename))
        waiting = list(_names(defined.get(function.__name__, [])))
        while waiting:
            name = waiting.pop()
            if name in defined and name not in found and name != function.__name__:
                found[name] = _digest([ast.dump(node) for node in defined[name]])
                waiting += _names(defined[name])
    return found


def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """Return the statements of a file that define each of its names, without docstrings; imports are not among them."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in ast.parse(path.read_bytes()).body:
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.setdefault(node.id, []).append(statement)
    return found


def _names(nodes: list[ast.stmt]) -> Iterator[str]:
    return (node.id for statement in nodes for node in ast.walk(statement) if isinstance(node, ast.Name))
