"""Where a result comes from: package versions and machine, without its name."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import psutil
import torch

PACKAGES = ("hpsearch", "torch", "torchvision", "optuna", "numpy", "pandas", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_line() -> str:
    """Return `versions` in a line."""
    return ", ".join(f"{name} {version}" for name, version in versions().items())


def machine(device: str = "cpu") -> str:
    """Return processor, cores this process may use, memory, system and, for `device`, the GPU, in a line."""
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
