"""What several test modules share: the command line, databases, and studies to look at."""

from pathlib import Path

STUDIES = Path(__file__).parents[1] / "studies"
