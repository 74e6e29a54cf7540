"""Files that are either whole or not there.

Everything hpsearch writes goes to a temporary name, is flushed to the disk and renamed. A checkpoint is what
`torch.save` writes, loads with `weights_only=True`, and carries a digest of its contents, so that a damaged or
truncated one is recognised. This module does not know what is in it.
"""

import errno
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hpsearch.errors import CheckpointError, DiskFull

DIGEST = "sha256"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(
    path: Path,
    content: bytes,
    *,
    durable: bool = True,
    previous: Path | None = None,
    guard: AbstractContextManager[None] | None = None,
) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    If `durable`, that holds through a power cut as well. The old file is kept at `previous`, if given. The new one
    takes its place within `guard`, which may refuse by raising. Raises DiskFull when there is no space; the old file is
    then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk(path.parent), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with guard or nullcontext(), full_disk(path.parent):
            if previous is not None and path.exists():
                path.replace(previous)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Raise DiskFull instead of the OSError that says that there is no space for a file in `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(
                f"no space left on the disk of {folder}: free some and run the same command again"
            ) from error
        raise


def _feed(hasher: "hashlib._Hash", value: Any) -> None:
    """Feed a nested structure to `hasher`: every tensor's type, shape and bytes, everything else as JSON."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().resolve_conj().contiguous()
        hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        hasher.update(tensor.flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        hasher.update(b"{")
        for key, item in value.items():
            hasher.update(f"{key!r}:".encode())
            _feed(hasher, item)
        hasher.update(b"}")
    elif isinstance(value, list | tuple):
        hasher.update(b"[")
        for item in value:
            _feed(hasher, item)
        hasher.update(b"]")
    else:
        hasher.update(json.dumps(value).encode() + b",")


def digest(value: Any) -> str:
    """Return the SHA-256, in hexadecimal, of a nested structure of tensors, dicts, lists and JSON scalars."""
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def save(
    path: Path,
    state: dict[str, Any],
    *,
    previous: Path | None = None,
    guard: AbstractContextManager[None] | None = None,
) -> None:
    """Write `state` (tensors, dicts, lists and JSON scalars) as a checkpoint, as `write_atomically` does."""
    buffer = io.BytesIO()
    torch.save({**state, DIGEST: digest(state)}, buffer)
    write_atomically(path, buffer.getvalue(), previous=previous, guard=guard)


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return what `save` wrote, its tensors on `device`.

    Raises CheckpointError if the file is damaged or truncated, OSError if it cannot be read.
    """
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        expected = state.pop(DIGEST)
        found = digest(state)
    # What a damaged zip or pickle raises is not documented and varies with the byte that is wrong.
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or truncated ({type(error).__name__})") from error
    if found != expected:
        raise CheckpointError(f"{path} is damaged: its contents do not match its digest")
    return state


def load_or_none(path: Path, warn: Callable[[str], None], device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Return the checkpoint at `path`, or None where there is no usable one, saying so if it is damaged."""
    try:
        return load(path, device)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        warn(str(error))
        return None
