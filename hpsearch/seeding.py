"""Seeds, and random draws from a fixed one: torch's, numpy's and Python's own."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**63) that depends on every part and looks random for neighbouring ones."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed that a trial is trained with."""
    return derive_seed(study_seed, "trial", number)


class seeded:
    """Draw from a fixed seed inside the `with`, and leave the process's random states as they were.

    Of torch's generators these are the CPU's and that of `device`. A generator of the user's own, such as
    `numpy.random.default_rng()`, is not seeded.
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
        # The same for a CPU, but two hundred times as fast: `torch.manual_seed` looks for every kind of device.
        (torch.default_generator.manual_seed if self._cpu_only else torch.manual_seed)(self._seed)
        random.seed(self._seed)
        # numpy takes 32 bits.
        np.random.seed(self._seed % 2**32)

    def __exit__(self, *exception: Any) -> None:
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        self._fork.__exit__(*exception)
