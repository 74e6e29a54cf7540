"""Runs a study file of the course at a reduced size, in this process, through the shared supervisor."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from hpsearch.datasets import length
from hpsearch.executors import InlineExecutor
from hpsearch.progress import observer_for
from hpsearch.results import Results
from hpsearch.search.opening import open_for_run
from hpsearch.search.supervisor import Limits, Supervisor
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
    data = study_file.study.load_data()
    url = f"sqlite:///{folder / 'course.db'}"
    opened = open_for_run(url, study_file, data, name=study_file.name, seed=seed, runs=folder / "runs")
    supervisor = Supervisor(
        opened,
        study_file.study,
        InlineExecutor(study_file.study, data),
        observer_for(Console(file=io.StringIO()), opened.name, study_file.study.epochs),
        Limits(n_trials=len(points)),
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
        examples=length(data.train),
        grid=points,
    )
    assert supervisor.run() == "done"
    return Results(study_file, opened)
