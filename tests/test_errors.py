import inspect

import pytest

from hpsearch import errors
from hpsearch.errors import HpsearchError, last_line


def drawn_tree() -> dict[str, str]:
    """Return each class in the drawing with its base."""
    bases: dict[str, str] = {}
    path = ["HpsearchError"]
    for line in str(errors.__doc__).splitlines():
        before, branch, rest = line.rpartition("── ")
        if branch:
            # Three characters of line and one space to a level.
            depth = len(before + branch) // 4
            name = rest.split()[0]
            bases[name] = path[depth - 1]
            path[depth:] = [name]
    return bases


def test_the_drawing_is_the_tree() -> None:
    classes = {name: found for name, found in inspect.getmembers(errors, inspect.isclass) if found is not HpsearchError}
    assert {name: found.__base__.__name__ for name, found in classes.items()} == drawn_tree()


@pytest.mark.parametrize("name", drawn_tree())
def test_bad_input_alone_exits_with_two(name: str) -> None:
    found = getattr(errors, name)
    assert found.exit_code == (2 if issubclass(found, errors.UsageError) else 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("Traceback (most recent call last):\n  ...\nValueError: no\n", "ValueError: no"),
        ("one line", "one line"),
        ("", "unknown error"),
        (None, "unknown error"),
    ],
)
def test_the_last_line_of_a_traceback_is_the_error(error: str | None, expected: str) -> None:
    assert last_line(error) == expected
