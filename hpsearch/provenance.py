"""The package versions and the machine that a result was computed with; the machine's name is left out."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import psutil
import torch

PACKAGES = ("hpsearch", "torch", "torchvision", "optuna", "numpy", "pandas", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    versions_by_name = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions_by_name


def versions_line() -> str:
    """Return `versions` in one line."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def machine(device: str = "cpu") -> str:
    """Return the processor, usable cores, memory, system and, if `device` is one, the GPU, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [
        f"{_processor()}, {cores} core{'s' * (cores != 1)}",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"{platform.system()} {platform.machine()}",
    ]
    if torch.device(device).type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(parts)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or sys.platform
