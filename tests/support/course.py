"""Runs a study file of the course at a reduced size, in this process."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hpsearch.progress import run_progress
from hpsearch.results import Results
from hpsearch.search.running import run as run_search
from hpsearch.search.search import Loaded, Search
from hpsearch.space import Params, grid_points
from hpsearch.study import StudyFile, load_study

COURSE = Path(__file__).parents[2] / "studies"


def load(name: str, **changes: Any) -> StudyFile:
    """Return a study file of `studies/`, some fields of its study changed."""
    study_file = load_study(str(COURSE / f"{name}.py"))
    return replace(study_file, study=replace(study_file.study, **changes))


def grid_of(study_file: StudyFile, **fixed: Any) -> list[Params]:
    """Return the grid points of a study at which each parameter in `fixed`, where it has it, has that value."""
    points = grid_points(study_file.study.trace)
    return [point for point in points if all(point.get(name, value) == value for name, value in fixed.items())]


def run(study_file: StudyFile, points: Sequence[Params], folder: Path, seed: int = 0) -> Results:
    """Train one trial at each of `points` and return what came of them."""
    search = Search.of(
        study_file,
        sampler="random",
        pruner="none",
        n_trials=len(points),
        storage=f"sqlite:///{folder / 'course.db'}",
        runs=folder / "runs",
        seed=seed,
    )
    finished = run_search(
        replace(search, points=points),
        Loaded.from_data(search, study_file.study.load_data()),
        run_progress(Console(file=io.StringIO())),
    )
    assert finished.end == "done"
    return Results(study_file, finished.stored)
