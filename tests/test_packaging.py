"""What is distributed: with the source distribution alone a user can run hpsearch's own tests; the wheel is typed."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("hpsearch", "studies", "tests")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository to build from: building leaves files behind."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pip install 'setuptools>=77' builds the distribution")
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / file, folder)
    return folder


def build(kind: str, source: Path, folder: Path) -> Path:
    """Return the distribution (`sdist` or `wheel`) built into `folder`."""
    code = f"import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=source, check=True, capture_output=True, timeout=120)
    (made,) = folder.iterdir()
    return made


def test_the_source_distribution_has_all_that_its_tests_need(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", source, tmp_path)) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    there = {str(path.relative_to(source)) for part in PARTS for path in (source / part).rglob("*.py")}
    assert there | {"constraints.txt", "pyproject.toml", "LICENSE", "hpsearch/py.typed"} <= packed


def test_the_wheel_is_the_package_with_its_types_and_its_licence(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", source, tmp_path)) as archive:
        packed = set(archive.namelist())
    package = {name for name in packed if not name.partition("/")[0].endswith(".dist-info")}
    modules = {str(path.relative_to(source)) for path in (source / "hpsearch").rglob("*.py")}
    assert package == modules | {"hpsearch/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)
