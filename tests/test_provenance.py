import os
import platform
import socket

import psutil
import pytest
import torch

from hpsearch import provenance
from hpsearch.provenance import machine, versions, versions_line


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    # The distribution's version, which has no "+cpu" in it, or has.
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert list(found) == [name for name in ("python", *provenance.PACKAGES) if name in found]
    assert {"optuna", "numpy", "pandas", "scikit-learn"} <= set(found)


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("optuna", "no-such-distribution"))
    assert list(versions()) == ["python", "optuna"]


def test_the_line_has_all_of_them() -> None:
    assert versions_line().split(", ") == [f"{name} {version}" for name, version in versions().items()]


def test_the_machine_is_described_but_not_named() -> None:
    described = machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f", {cores} core" in described
    assert f"{psutil.virtual_memory().total / 2**30:.0f} GiB" in described
    assert described.endswith(f"{platform.system()} {platform.machine()}")
    assert socket.gethostname() not in described.split()
    assert "\n" not in described


def test_the_cores_are_those_this_process_may_use() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no os.sched_setaffinity")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert ", 1 core, " in machine()
    finally:
        os.sched_setaffinity(0, allowed)
