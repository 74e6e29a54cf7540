"""The fingerprint of a study: everything that affects its results, as short texts that error messages can quote.

It covers the space and its requirements, the data, the epochs and early stopping, the objects that the recipe builds,
and the code used by the recipe and the data set. Comments, docstrings, figures, the number of trials and the order of
definitions do not matter.
"""

import ast
import functools
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hpsearch import augmentation, optim
from hpsearch.datasets import Dataset, fingerprint
from hpsearch.measure import ACCURACY, LOSS, Measure
from hpsearch.meters import MEASURES
from hpsearch.own_training import Training
from hpsearch.space import Choice, Space
from hpsearch.study import Recipe, Study, StudyFile, users_code

FUNCTIONS = (ast.Lambda, ast.FunctionDef)
PARTS = (
    *("model", "optimizer", "loss", "schedule", "batch_size", "epochs", "clip_norm", "accumulate", "ema"),
    *("augment", "groups", "frozen", "precision", "compile"),
)
# Those recorded by value; of the others the name and a digest.
BY_VALUE = ("batch_size", "epochs", "clip_norm", "accumulate", "ema", "precision", "compile")
# The values with which a part is off. Off throughout the space, it is left out, as in the fingerprints of earlier
# versions, which did not have it.
OFF = {
    "clip_norm": "None",
    "accumulate": "1",
    "ema": "None",
    "augment": "[]",
    "groups": "{}",
    "frozen": "{}",
    "precision": "None",
    "compile": "False",
}


def describe_study(study_file: StudyFile, data: Dataset | None, seed: int) -> dict[str, Any]:
    """Return the fingerprint of a study, which must not change between two runs."""
    study = study_file.study
    built: dict[str, set[str]] = {part: set() for part in PARTS}
    names: dict[str, set[str]] = {part: set() for part in PARTS}
    requirements: set[str] = set()

    def look(space: Space, recipe: Recipe | Training) -> None:
        requirements.update(space.requirements)
        # Only the ends of ranges are recorded: at other points, the objects depend on the grid, which is not included.
        if not all(isinstance(p, Choice) or space.params[p.name] in (p.low, p.high) for p in space.parameters.values()):
            return
        for part in PARTS:
            value = _part(recipe, part)
            built[part].add(_text(value))
            names[part].add(_name(value))

    with users_code(study_file.path):
        described = study.explore(look)
    training = {
        "epochs": str(study.epochs),
        "interval": str(study.interval),
        "early stopping": str(study.early_stopping),
    }
    # Earlier versions had no other measure.
    if study.measure != ACCURACY:
        training["measure"] = _measure(study.measure)
    for part in PARTS:
        if part in OFF and built[part] <= {OFF[part], "None"}:
            continue
        if part in BY_VALUE:
            # If they are parameters of the space, these are the ends of their ranges.
            training[f"recipe's {part}"] = ", ".join(sorted(built[part]))
        else:
            training[part] = f"{', '.join(sorted(names[part]))} ({_digest(sorted(built[part]))})"
    return {
        "space": {
            name: f"{type(entry.parameter).__name__.lower()} {entry.parameter}" for name, entry in described.items()
        },
        "requirements": dict.fromkeys(sorted(requirements), "required"),
        "training": training,
        "code": _code(study),
        "data": fingerprint(data) if data else {},
        "direction": "maximize" if study.measure.maximize else "minimize",
        "seed": seed,
    }


def _part(recipe: Recipe | Training, part: str) -> Any:
    if isinstance(recipe, Training):
        # The space and its class's code count.
        return type(recipe) if part == "model" else getattr(recipe, part, None)
    if part == "augment":
        return list(recipe.augment)
    if part != "frozen":
        return getattr(recipe, part)
    frozen: dict[str, list[str]] = {}
    for name, parameter in recipe.model.named_parameters():
        if not parameter.requires_grad:
            frozen.setdefault(name.split(".")[0], []).append(name)
    return frozen


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one text for each entry that differs between two fingerprints of a study.

    Sections that are missing in `before`, which may be of an earlier version, are not compared.
    """
    return _differences(before, {key: value for key, value in now.items() if key in before})


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) or isinstance(new, dict):
            changes += _differences(old or {}, new or {}, f"{key} ")
        elif old != new:
            change = "is new" if old is None else "is gone" if new is None else f"was {old}, is now {new}"
            changes.append(f"{prefix}{key} {change}")
    return changes


def _measure(measure: Measure) -> str:
    if measure.metric is not None:
        plain = (bool, int, float, str, type(None))
        options = sorted((key, value) for key, value in vars(measure.metric).items() if isinstance(value, plain))
        return f"{measure} ({_digest([_text(measure.metric), *(f'{key}={value}' for key, value in options)])})"
    if measure in (ACCURACY, LOSS) or measure.function is None or measure is MEASURES.get(measure.column):
        return str(measure)
    return f"{measure} ({_digest([_text(measure.function)])})"


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _name(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, functools.partial):
        return _name(value.func)
    if isinstance(value, list | Mapping):
        return " and ".join(map(str, value) if isinstance(value, Mapping) else map(_name, value)) or "none"
    return str(getattr(value, "__qualname__", None) or type(value).__qualname__)


def _text(value: Any) -> str:
    """Return a text of a part of a recipe, without memory addresses, which differ between runs."""
    if isinstance(value, functools.partial):
        return f"partial({_text(value.func)}, {value.args}, {value.keywords})"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_text(entry)}' for key, entry in value.items())}}}"
    if inspect.isfunction(value):
        return f"{_name(value)} {_source(value)}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return _name(value)
    text = repr(value)
    if is_dataclass(value) and type(value).__module__ in (augmentation.__name__, optim.__name__):
        # An option that is off is left out, as in the texts of earlier versions, which did not have it.
        given = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        options = ", ".join(f"{name}={_text(option)}" for name, option in given.items() if option is not None)
        text = f"{_name(value)}({options})"
    if isinstance(value, nn.Module):
        text += "".join(f" {name} {_shape(tensor)}" for name, tensor in value.state_dict().items())
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _shape(tensor: Any) -> str:
    try:
        return str(tuple(tensor.shape))
    except (AttributeError, RuntimeError):
        # An uninitialised parameter of a lazy module, or state that is not a tensor.
        return ""


def _source(function: Any) -> str:
    """Return the parsed source of a function, such as a lambda in a recipe."""
    path, line = Path(function.__code__.co_filename), function.__code__.co_firstlineno
    if not path.is_file():
        return ""
    tree = ast.parse(path.read_bytes())
    return "".join(ast.dump(node) for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node.lineno == line)


def _code(study: Study) -> dict[str, str]:
    """Return a digest, by name, of each definition in the same file that the recipe and the data set function use.

    Digests are of the parsed code: formatting, comments and docstrings do not matter. The recipe itself is represented
    by the objects it builds, the data set function by its data.
    """
    digests: dict[str, str] = {}
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
            if name in defined and name not in digests and name != function.__name__:
                digests[name] = _digest([ast.dump(node) for node in defined[name]])
                waiting += _names(defined[name])
    return digests


def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """Return the statements of a file that define each of its names, without docstrings and imports."""
    statements: dict[str, list[ast.stmt]] = {}
    for statement in ast.parse(path.read_bytes()).body:
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            statements.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    statements.setdefault(node.id, []).append(statement)
    return statements


def _names(nodes: list[ast.stmt]) -> Iterator[str]:
    return (node.id for statement in nodes for node in ast.walk(statement) if isinstance(node, ast.Name))
