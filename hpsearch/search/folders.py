"""Find or create the folder of a study's files, inside `runs` and marked with the id of the study.

The folder has the name of the study, or a name derived from it if that is not a valid folder name. If the folder of
another study, for example from another database, has this name, it is the first free of `name.2`, `name.3`, ...
"""

import glob
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

# The file in a study's folder that contains the id of the study.
MARKER = "study.json"
LONGEST_BYTES = 200
# Path separators and leading dots, control characters, and surrogates, which have no UTF-8 encoding.
_UNSAFE = re.compile(r"^\.|[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def folder_name(study: str) -> str:
    """Return the folder name of a study: its name, unsafe characters written like `%2F`, shortened if too long."""
    name = _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in _encoded(match[0])), study)
    if len(_encoded(name)) > LONGEST_BYTES:
        digest = hashlib.sha256(_encoded(study)).hexdigest()[:16]
        name = f"{_encoded(name)[: LONGEST_BYTES - 17].decode(errors='ignore')}-{digest}"
    return name or "%"


def make_folder(runs: Path, study: str, uid: str) -> Path:
    """Return the folder under `runs` of the study with the id `uid`; create and mark it if there is none.

    Several processes that call this at once for one study get the same folder. Raises FilesUnavailable if it cannot be
    created.
    """
    # Imported here because it imports torch, which code that only looks for folders does not need.
    from hpsearch import checkpoint

    if (existing := find_folder(runs, study, uid)) is not None:
        return existing
    content = json.dumps({"study": study, "id": uid}).encode()
    for name in numbered(folder_name(study)):
        folder = runs / name
        with checkpoint.accessing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if all(path.match(f".{MARKER}.*.tmp") for path in folder.iterdir()):
                checkpoint.create_exclusively(folder / MARKER, content)
        if _marked_id(folder) == uid:
            return folder
    raise AssertionError("unreachable")


def find_folder(runs: Path, study: str, uid: str) -> Path | None:
    """Return the folder under `runs` that is marked with `uid`, or None."""
    markers = sorted(runs.glob(f"{glob.escape(folder_name(study))}*/{MARKER}"))
    return next((marker.parent for marker in markers if _marked_id(marker.parent) == uid), None)


def numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name.2`, `name.3`, ..."""
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1


def _marked_id(folder: Path) -> str | None:
    """Return the id of the study whose files are in `folder`, or None."""
    try:
        uid: str = json.loads((folder / MARKER).read_text())["id"]
        return uid
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
