"""The source distribution: with it alone a user can run hpsearch's own tests."""

import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("hpsearch", "studies", "tests")


def test_the_source_distribution_has_all_that_its_tests_need(tmp_path: Path) -> None:
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pip install 'setuptools>=77' builds the distribution")
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    build = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path / "dist")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (made,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(made) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    there = {str(path.relative_to(tmp_path)) for part in PARTS for path in (tmp_path / part).rglob("*.py")}
    assert there | {"constraints.txt", "pyproject.toml"} <= packed
