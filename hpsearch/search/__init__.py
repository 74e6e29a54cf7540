"""The search, based on Optuna: samplers, pruners, the stored study, and the supervisor that runs it.

Names are imported on first use, so that code which only reads a database need not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpsearch.search.running import run
    from hpsearch.search.search import Search

__all__ = ["Search", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hpsearch.search' has no attribute {name!r}")
    from hpsearch.search import running

    return getattr(running, name)
