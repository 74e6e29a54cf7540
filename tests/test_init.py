"""What can be imported from `hpsearch`: all that `__all__` names, documented, and all that README and studies use."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpsearch

ROOT = Path(__file__).parents[1]


def names_imported_by_checkers() -> dict[str, str]:
    """Return the names below `if TYPE_CHECKING`, each with its module."""
    tree = ast.parse(Path(hpsearch.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_all_names_every_export_once_in_order() -> None:
    assert len(set(hpsearch.__all__)) == len(hpsearch.__all__)
    assert set(hpsearch.__all__) == set(hpsearch._MODULE)
    # As ruff sorts them: constants, classes, functions.
    assert hpsearch.__all__ == sorted(
        hpsearch.__all__, key=lambda name: (not name.isupper() and 1 + (not name[0].isupper()), name)
    )


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    assert names_imported_by_checkers() == hpsearch._MODULE


@pytest.mark.parametrize("name", hpsearch.__all__)
def test_every_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    found = getattr(hpsearch, name)
    assert found is getattr(importlib.import_module(hpsearch._MODULE[name]), name)
    # A class inherits no docstring here, and a dataclass without one gets its signature.
    documented = found.__doc__ if not isinstance(found, type) else vars(found).get("__doc__")
    assert documented
    assert not documented.startswith(f"{name}(")


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="'hpsearch' has no attribute 'Studdy'"):
        _ = hpsearch.Studdy


def python_written_for_users() -> Iterator[tuple[str, str]]:
    """Give the README's examples and the study files, each with where it is."""
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        yield "README.md", example
    for folder in ("studies", "tests/studies", "tests/foreign"):
        for path in (ROOT / folder).glob("*.py"):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_what_the_readme_and_the_studies_import_is_in_all() -> None:
    used = {
        (alias.name, where)
        for where, text in python_written_for_users()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "hpsearch"
        for alias in node.names
    }
    assert {name for name, where in used if where == "README.md"} >= {"Recipe", "Space", "Study"}
    assert not sorted((name, where) for name, where in used if name not in hpsearch.__all__)
