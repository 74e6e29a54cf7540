"""The files of a trial, in its folder `runs/<study>/<trial>/`."""

from collections.abc import Iterator
from pathlib import Path

from hpsearch import checkpoint

# The configuration.
PARAMS = "params.json"
# One row for each interval.
HISTORY = "history.csv"
# The weights of the best interval, written when the trial ends.
BEST_WEIGHTS = "best.pt"
# The resume point, and the previous one in case the first is damaged. They are removed once the outcome is stored; a
# failed trial keeps the first.
RESUME_POINT = "last.pt"
PREVIOUS_RESUME_POINT = "last.previous.pt"
# TensorBoard's events. The folder also contains `.claim`, which says who may write to it (`fence`).
EVENTS = "events.out.tfevents.*"


def trial_folder(study_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files."""
    return study_folder / str(number)


def resume_points(study_folder: Path) -> Iterator[Path]:
    """Yield the resume points in the folders of a study's trials."""
    for name in (RESUME_POINT, PREVIOUS_RESUME_POINT):
        yield from study_folder.glob(f"*/{name}")


def remove_resume_points(folder: Path, *, failed: bool = False) -> None:
    """Remove the resume points of a trial that has ended. Raises FilesUnavailable.

    If the trial has `failed`, the last resume point is kept: no other file contains its weights.
    """
    for name in (PREVIOUS_RESUME_POINT,) if failed else (RESUME_POINT, PREVIOUS_RESUME_POINT):
        with checkpoint.accessing(folder / name):
            (folder / name).unlink(missing_ok=True)
