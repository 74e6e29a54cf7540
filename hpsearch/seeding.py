"""Derived seeds, and fixed seeds for the random generators of torch, numpy and Python."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**63) from a hash of all parts, so that similar parts give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed with which a trial is trained."""
    return derive_seed(study_seed, "trial", number)


def set_seed(seed: int, *, cpu_only: bool = True) -> None:
    """Seed the global generators of Python, numpy and torch, the latter for the CPU only or for all devices."""
    # On a CPU the result is the same, but two hundred times as fast: `torch.manual_seed` looks for all devices.
    (torch.default_generator.manual_seed if cpu_only else torch.manual_seed)(seed)
    random.seed(seed)
    # numpy accepts only 32-bit seeds.
    np.random.seed(seed % 2**32)


class seeded:
    """Context manager that sets a fixed seed, and restores the process's random states on exit.

    It seeds the global generators of Python, numpy and torch, the latter for the CPU and for `device`. A generator
    that the user creates, such as `numpy.random.default_rng()`, is not seeded.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self._seed = seed
        self._cpu_only = device is None or device.type == "cpu"
        devices = [device] if device is not None and device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=devices, device_type="cuda")

    def __enter__(self) -> None:
        self._fork.__enter__()
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        set_seed(self._seed, cpu_only=self._cpu_only)

    def __exit__(self, *exception: Any) -> None:
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        self._fork.__exit__(*exception)
