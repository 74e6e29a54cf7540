"""Atomic writes: a file is either complete or absent.

hpsearch writes each file under a temporary name, flushes it to the disk and renames it. The temporary file is locked
while it is being written, so that one whose writer died can be recognised and removed. A checkpoint is written by
`torch.save`, can be loaded with `weights_only=True`, and contains a digest of its contents, so that a damaged or
truncated one is recognised. This module does not depend on what a checkpoint contains.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from hpsearch.errors import CheckpointError, FilesUnavailable

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
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part of either.

    If `durable`, this also holds across a power failure. The old file is kept at `previous`, if given. The new file is
    renamed within the context manager `guard`, which may prevent it by raising. Raises FilesUnavailable if the disk is
    full or the folder is not writable; the old file is then unchanged.
    """
    with accessing(path), _temporary(path, content, durable) as temporary, guard or contextlib.nullcontext():
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)


def create_exclusively(path: Path, content: bytes) -> bool:
    """Write `content` to `path` unless the file exists; return whether it was written.

    If several processes call this at once, exactly one of them writes the file.
    Raises FilesUnavailable as `write_atomically` does.
    """
    with accessing(path), _temporary(path, content, durable=True) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:
            # The file system has no hard links; exclusive creation still lets only one process write the file.
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True


@contextlib.contextmanager
def accessing(path: Path) -> Iterator[None]:
    """Raise FilesUnavailable, with a message of one line, for any OSError while `path` is written or read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise FilesUnavailable(
                f"no space left on the disk of {path.parent}: free some and run the same command again"
            ) from error
        raise FilesUnavailable(
            f"cannot access {path} ({error.strerror or error}): make it readable and writable, then run the same "
            f"command again"
        ) from error


def remove_orphans(folder: Path, name: str = "*", *, recursive: bool = False) -> None:
    """Remove the temporary files in `folder` whose writers died; only those of files whose names match `name`."""
    pattern = f".{name}.*.tmp"
    for temporary in folder.rglob(pattern) if recursive else folder.glob(pattern):
        # A file that cannot be opened or locked may still have a running writer.
        with contextlib.suppress(OSError), temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, durable: bool) -> Iterator[Path]:
    """Write `content` to a locked file beside `path`, which is removed on exit unless it was renamed."""
    remove_orphans(path.parent, glob.escape(path.name))
    with _locked_file(path) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _locked_file(path: Path) -> BinaryIO:
    while True:
        file = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp").open("xb")
        # Some file systems have no locks; there, orphans are not removed either.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Another process may have removed it as an orphan before it was locked.
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()


def _update(hasher: "hashlib._Hash", value: Any) -> None:
    """Update `hasher` with a nested structure: the type, shape and bytes of each tensor, all else as JSON."""
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
            _update(hasher, item)
        hasher.update(b"}")
    elif isinstance(value, list | tuple):
        hasher.update(b"[")
        for item in value:
            _update(hasher, item)
        hasher.update(b"]")
    elif isinstance(value, bytes):
        hasher.update(f"{len(value)}:".encode() + value)
    else:
        hasher.update(json.dumps(value).encode() + b",")


def digest(value: Any) -> str:
    """Return the SHA-256 digest, in hexadecimal, of nested tensors, dicts, lists, bytes and JSON scalars."""
    hasher = hashlib.sha256()
    _update(hasher, value)
    return hasher.hexdigest()


def save(
    path: Path,
    state: dict[str, Any],
    *,
    previous: Path | None = None,
    guard: AbstractContextManager[None] | None = None,
) -> None:
    """Write `state` (tensors, dicts, lists, bytes and JSON scalars) as a checkpoint; see `write_atomically`."""
    buffer = io.BytesIO()
    torch.save({**state, DIGEST: digest(state)}, buffer)
    write_atomically(path, buffer.getvalue(), previous=previous, guard=guard)


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the state that `save` wrote, with its tensors on `device`.

    Raises CheckpointError if the file is damaged or truncated, OSError if it cannot be read.
    """
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        expected = state.pop(DIGEST)
        actual = digest(state)
    # The exceptions for a damaged zip file or pickle are not documented and depend on the damaged byte.
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or truncated ({type(error).__name__})") from error
    if actual != expected:
        raise CheckpointError(f"{path} is damaged: its contents do not match its digest")
    return state


def load_or_none(path: Path, warn: Callable[[str], None], device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Return the checkpoint at `path`, or None if it is missing or damaged; call `warn` if it is damaged."""
    try:
        return load(path, device)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        warn(str(error))
        return None
