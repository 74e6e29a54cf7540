"""`hpsearch check`: a study tried out without being run."""

import time
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console

from hpsearch.cli.arguments import default_workers, set_data_folder
from hpsearch.cli.showing import plain_table
from hpsearch.datasets import Dataset, Split, length
from hpsearch.errors import UsageError
from hpsearch.space import Choice, Described, describe, grid_points, middle
from hpsearch.study import StudyFile, load_study, users_code
from hpsearch.training import Run, train
from hpsearch.tryout import check_first_batch


def check_study(*, study: str, data: Path | None, workers: int | None) -> None:
    """Print a study's space, grid, data and model sizes, train one batch, and estimate the time.

    Raises StudyFileError, with the user's line, where the recipe or the data set function fails.
    """
    set_data_folder(data)
    study_file = load_study(study)
    definition = study_file.study
    console = Console(highlight=False)
    with users_code(study_file.path):
        _print_space(console, describe(definition.trace))
        n_trials = definition.n_trials
        try:
            found = len(grid_points(definition.trace))
            points = f"{found:,} points"
            n_trials = found if definition.sampler == "grid" else n_trials
        except UsageError as error:
            points = f"none: {error}"
        console.print(f"\ngrid     {points}", soft_wrap=True, markup=False)
        dataset = definition.load_data()
        _print_data(console, dataset)
        check_first_batch(study_file, dataset)
        _try_batch(console, study_file, dataset, n_trials, workers or default_workers("cpu"))


def _print_space(console: Console, space: dict[str, Described]) -> None:
    table = plain_table("parameter", "type", "range", "grid", "only when")
    for name, found in space.items():
        parameter = found.parameter
        points = parameter.points
        conditions = [f"{other} = {' or '.join(map(str, values))}" for other, values in found.conditions.items()]
        table.add_row(
            name,
            type(parameter).__name__.lower(),
            str(parameter),
            "" if isinstance(parameter, Choice) else " ".join(f"{point:.3g}" for point in points or ()) or "-",
            ", ".join(conditions),
        )
    console.print(table)


def _print_data(console: Console, dataset: Dataset) -> None:
    sizes = [f"{length(dataset.train):,} training", f"{length(dataset.validation):,} validation"]
    if dataset.test is not None:
        sizes.append(f"{length(dataset.test):,} test")
    shape = "x".join(map(str, dataset.train.inputs.shape[1:])) if isinstance(dataset.train, Split) else "?"
    console.print(f"data     {', '.join(sizes)} examples of {shape}, {len(dataset.classes)} classes", soft_wrap=True)
    if dataset.note:
        console.print(f"         {dataset.note}", soft_wrap=True)


def _try_batch(console: Console, study_file: StudyFile, dataset: Dataset, n_trials: int, workers: int) -> None:
    """Train one real batch of a configuration from the middle of the space, and say how long a run may take."""
    study = study_file.study
    params = middle(study.trace)
    torch.set_num_threads(1)
    run = Run(study, params, dataset, seed=0)
    stop_after = _StopAfter(4)
    list(train(run, stop_after))
    seconds = stop_after.seconds_per_batch
    whole = seconds * run.total_steps * n_trials / workers
    console.print(f"model    {run.parameters:,} parameters, with {_shown(params)}", soft_wrap=True, markup=False)
    console.print(
        f"batch    {run.batch_size} examples forward, backward and step: {seconds * 1000:.1f} ms; {run.epochs} epochs "
        f"of {run.steps_per_epoch} batches",
        soft_wrap=True,
    )
    console.print(
        f"time     {n_trials} trials on {workers} worker{'s' * (workers != 1)}: at most about "
        f"{timedelta(seconds=max(1, round(whole)))}, less with every trial pruned or stopped early",
        soft_wrap=True,
    )


def _shown(params: dict[str, object]) -> str:
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


class _StopAfter:
    """Stops training at its `batches`-th batch and tells how long the ones after the first took."""

    def __init__(self, batches: int) -> None:
        self._left = batches
        self._times: list[float] = []

    def __call__(self) -> bool:
        self._times.append(time.perf_counter())
        self._left -= 1
        return self._left < 0

    @property
    def seconds_per_batch(self) -> float:
        """The mean over all batches but the first, which warms up."""
        taken = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        return sum(taken[1:]) / len(taken[1:]) if len(taken) > 1 else sum(taken)
