"""The files of a trial, in a folder of its own: `runs/<study>/<trial>/`."""

from collections.abc import Iterator
from pathlib import Path

from hpsearch import checkpoint

# The configuration.
PARAMS = "params.json"
# One row an interval.
HISTORY = "history.csv"
# The weights of the best interval, written when the trial ends.
BEST_WEIGHTS = "best.pt"
# What training goes on from, and the one before it in case it is damaged. Removed once the trial's end is stored; a
# failed trial keeps the first.
RESUME_POINT = "last.pt"
PREVIOUS_RESUME_POINT = "last.previous.pt"
# Besides: TensorBoard's events, and `.claim`, which says who may write here (`fence`).
EVENTS = "events.out.tfevents.*"


def trial_folder(study_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files."""
    return study_folder / str(number)


def resume_points(study_folder: Path) -> Iterator[Path]:
    """Yield the resume points in the folders of a study's trials."""
    for name in (RESUME_POINT, PREVIOUS_RESUME_POINT):
        yield from study_folder.glob(f"*/{name}")


def remove_resume_points(folder: Path, *, failed: bool = False) -> None:
    """Remove what a trial that has ended does not need any more. Raises FilesUnavailable.

    What a failed trial had learned is in its resume point alone, which is kept.
    """
    for name in (PREVIOUS_RESUME_POINT,) if failed else (RESUME_POINT, PREVIOUS_RESUME_POINT):
        with checkpoint.accessing(folder / name):
            (folder / name).unlink(missing_ok=True)
