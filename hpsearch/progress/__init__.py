"""What commands show while they work. All of it goes to stderr; stdout is for results."""

from hpsearch.progress.compare import compare_progress
from hpsearch.progress.retrain import RetrainProgress
from hpsearch.progress.run import run_progress

__all__ = ["RetrainProgress", "compare_progress", "run_progress"]
