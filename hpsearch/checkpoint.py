"""Files that are either whole or not there.

Everything hpsearch writes goes to a temporary name, is flushed to the disk and renamed. The temporary file is locked
while it is being written, so that one whose writer died is recognised and removed. A checkpoint is what `torch.save`
writes, loads with `weights_only=True`, and carries a digest of its contents, so that a damaged or
truncated one is recognised. This module does not know what is in it.
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
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    If `durable`, that holds through a power cut as well. The old file is kept at `previous`, if given. The new one
    takes its place within `guard`, which may refuse by raising. Raises FilesUnavailable when the disk is full or the
    folder not writable; the old file is then untouched.
    """
    with accessing(path), _temporary(path, content, durable) as temporary, guard or contextlib.nullcontext():
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)


def create_exclusively(path: Path, content: bytes) -> bool:
    """Write `content` to `path` unless there is a file; return whether it was written. Of several processes one does.

    Raises FilesUnavailable as `write_atomically` does.
    """
    with accessing(path), _temporary(path, content, durable=True) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links: the file is still created by one process only.
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True


@contextlib.contextmanager
def accessing(path: Path) -> Iterator[None]:
    """Raise FilesUnavailable, one line, for whatever the system refuses while `path` is written or read."""
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
    """Remove the temporary files in `folder` whose writers died; only those for files whose names match `name`."""
    pattern = f".{name}.*.tmp"
    for temporary in folder.rglob(pattern) if recursive else folder.glob(pattern):
        # Where it cannot be stored or locked, its writer is alive, or may be.
        with contextlib.suppress(OSError), temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, durable: bool) -> Iterator[Path]:
    """Write `content` to a locked file beside `path`, which is removed in the end unless it was renamed."""
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
        # Not every file system has locks; where there are none, no orphan is removed either.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Before it was locked, it may have been removed as an orphan.
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()


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
