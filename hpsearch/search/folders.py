"""Where a study's files are: one folder for each study, inside `runs` and marked with the study it belongs to.

A folder has the name of its study, or one made of it where that cannot be a folder's. Where another study's files are
there already, as of another database, the folder is the first free of `name.2`, `name.3`, ...
"""

import glob
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

# The file in a study's folder that says which study it is.
MARKER = "study.json"
LONGEST_BYTES = 200
# What would lead out of the folder or hide in it, what terminals act on, and what has no UTF-8.
_UNSAFE = re.compile(r"^\.|[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def folder_name(study: str) -> str:
    """Return a study's name where a folder can have it, else the name with what is unsafe as `%2F`, or shortened."""
    name = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in _encoded(found[0])), study)
    if len(_encoded(name)) > LONGEST_BYTES:
        digest = hashlib.sha256(_encoded(study)).hexdigest()[:16]
        name = f"{_encoded(name)[: LONGEST_BYTES - 17].decode(errors='ignore')}-{digest}"
    return name or "%"


def make_folder(runs: Path, study: str, uid: str) -> Path:
    """Return the folder under `runs` of the study with the id `uid`, made and marked if there is none.

    Processes that ask for one study at the same time get the same folder. Raises FilesUnavailable if it cannot be made.
    """
    # Who only looks for folders need not wait for torch.
    from hpsearch import checkpoint

    if (found := find_folder(runs, study, uid)) is not None:
        return found
    content = json.dumps({"study": study, "id": uid}).encode()
    for name in numbered(folder_name(study)):
        folder = runs / name
        with checkpoint.accessing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if all(path.match(f".{MARKER}.*.tmp") for path in folder.iterdir()):
                checkpoint.create_exclusively(folder / MARKER, content)
        if _marked(folder) == uid:
            return folder
    raise AssertionError("the numbers do not end")


def find_folder(runs: Path, study: str, uid: str) -> Path | None:
    """Return the folder under `runs` that is marked with `uid`, or None."""
    markers = sorted(runs.glob(f"{glob.escape(folder_name(study))}*/{MARKER}"))
    return next((marker.parent for marker in markers if _marked(marker.parent) == uid), None)


def numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name.2`, `name.3`, ..."""
    yield name
    number = 2
    while True:
        yield f"{name}.{number}"
        number += 1


def _marked(folder: Path) -> str | None:
    """Return the id of the study whose files are in `folder`, or None."""
    try:
        uid: str = json.loads((folder / MARKER).read_text())["id"]
        return uid
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
