"""The command line. `hpsearch --help` imports neither torch nor pandas nor Optuna."""

from hpsearch.cli.app import main

__all__ = ["main"]
