"""Study files by name or path. They are not run, and neither torch nor Optuna is imported."""

import ast
import difflib
import hashlib
import os
from pathlib import Path

from hpsearch.errors import StudyFileError

STUDIES_VARIABLE = "HPSEARCH_STUDIES"


def studies_folder() -> Path:
    """Return the folder in which studies are found by name: `$HPSEARCH_STUDIES`, else `studies/` here."""
    return Path(os.environ.get(STUDIES_VARIABLE, "studies"))


def digest(content: bytes) -> str:
    """Return the SHA-256 of a study file's content, which identifies its text."""
    return hashlib.sha256(content).hexdigest()


def study_names() -> list[str]:
    """Return the names of the studies in the folder."""
    return sorted(path.stem for path in studies_folder().glob("[!_]*.py"))


def list_studies() -> dict[str, str]:
    """Return the names of the studies in the folder with their docstrings' first lines."""
    first_lines = {}
    for name in study_names():
        try:
            doc = ast.get_docstring(ast.parse((studies_folder() / f"{name}.py").read_text(encoding="utf-8"))) or ""
        except (SyntaxError, ValueError):
            doc = "(cannot be read as Python)"
        first_lines[name] = doc.partition("\n")[0]
    return first_lines


def find_study(name_or_path: str) -> Path:
    """Return the file of a study given by name or path. Raises StudyFileError, suggesting the nearest name."""
    if name_or_path.endswith(".py") or "/" in name_or_path or os.sep in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise StudyFileError(f"there is no study file {path}")
        return path
    folder = studies_folder()
    path = folder / f"{name_or_path}.py"
    if path.is_file():
        return path
    known = study_names()
    near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]}?"
    elif known:
        hint = f"it has {', '.join(known)}"
    else:
        hint = f"it has no study files; give a path such as ./{name_or_path}.py, or set {STUDIES_VARIABLE}"
    raise StudyFileError(f"there is no study {name_or_path!r} in {folder}/: {hint}")
