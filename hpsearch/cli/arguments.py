"""The values of the options that several commands share, and the running command as it was typed."""

import os
import shlex
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from hpsearch.datasets import DATA_VARIABLE
from hpsearch.errors import UsageError
from hpsearch.search.database import mask_passwords

# The options that select a study and say where it and its files are.
WHERE = ("study", "name", "storage", "runs", "data")


def as_typed(command: str | None = None, *, only: Collection[str] | None = None, **changes: object) -> str:
    """Return the running command as it was typed, quoted for a shell.

    `changes` sets options, or removes them where it has None or False. Options from the environment and defaults are
    left out. For another `command`, `only` names the options to keep. A storage's password is not shown.
    """
    context = click.get_current_context()
    words = ["hpsearch", command or str(context.info_name)]
    left = dict(changes)
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in left:
            words += _option(name, left.pop(name))
        elif context.get_parameter_source(name) == ParameterSource.COMMANDLINE and (only is None or name in only):
            value = context.params[name]
            if isinstance(parameter, click.Argument):
                words += map(str, value)
            else:
                words += _option(name, mask_passwords(value) if name == "storage" else value)
    for name, value in left.items():
        words += _option(name, value)
    return shlex.join(words)


def _option(name: str, value: object) -> Iterable[str]:
    if value is None or value is False:
        return []
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    return [option, f"{value:g}" if isinstance(value, float) else str(value)]


def set_data_folder(data: Path | None) -> None:
    """Apply `--data` to this process and its workers."""
    if data is not None:
        os.environ[DATA_VARIABLE] = str(data)


def default_workers(device: str) -> int:
    """Return one worker per core this process may use, or per GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.device_count() if device == "cuda" else 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def output_folder(path: Path) -> Path:
    """Return `path` if a folder can be created and written to there. Raises UsageError if not.

    Folders created for the check are removed again, so that a command that fails later leaves no empty ones behind.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        for folder in missing:
            folder.rmdir()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {path} ({error.strerror}): choose another with --out") from error
    return path
