"""The torch devices of this machine."""

import torch

from hpsearch.errors import UsageError


def check_device(device: str) -> str:
    """Return the torch device that `--device` names. Raises UsageError if this machine does not have it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: give cpu, cuda, cuda:N, mps or auto") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }.get(kind, False)
    if not available:
        raise UsageError(f"device {device}: this machine has none; cpu always works")
    return device
