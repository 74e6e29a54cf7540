"""`hpsearch check`."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from rich.console import Console

from hpsearch import checkpoint
from hpsearch.baseline import baseline_of
from hpsearch.cli.arguments import default_workers, set_data_folder
from hpsearch.cli.output import make_console, plain_table
from hpsearch.datasets import Dataset, Split, length
from hpsearch.errors import UsageError
from hpsearch.measure import ACCURACY
from hpsearch.own_run import OwnRun, start_run
from hpsearch.results.program import check_preprocessing
from hpsearch.space import Choice, Described, counted, draw, grid_points, middle
from hpsearch.study import Study, StudyFile, load_study, users_code
from hpsearch.text import duration, plural, short
from hpsearch.training import Run, evaluate, train
from hpsearch.tryout import check_first_batch, doubts

# The maximum number of grid points listed for a parameter.
MOST_POINTS = 12
# For the time estimate: how many batches are trained, for about how long at most, and how many examples evaluated.
BATCHES, SECONDS, EVALUATED = 50, 3.0, 2000
# How many configurations are drawn to see which share meets the requirements, and for how many seconds at most.
DRAWN, DRAWN_SECONDS = 300, 3.0


def check_study(*, study: str, data: Path | None, workers: int | None) -> None:
    """Print a study's space, grid, data and model sizes, train one batch, and estimate the time.

    Raises StudyFileError, with the user's line, where the recipe or the data set function fails.
    """
    set_data_folder(data)
    study_file = load_study(study)
    definition = study_file.study
    console = make_console()
    with users_code(study_file.path):
        requirements: set[str] = set()
        _print_space(console, definition.explore(lambda space, recipe: requirements.update(space.requirements)))
        if requirements:
            _print_requirements(console, definition)
        n_trials = definition.n_trials
        left_out: Counter[str] = Counter()
        try:
            count = len(grid_points(definition.trace, left_out=lambda message: left_out.update([message])))
            points = f"{count:,} points" + (f"; left out are {counted(left_out)}" if left_out else "")
            n_trials = count if definition.sampler == "grid" else n_trials
        except UsageError as error:
            points = f"none: {error}"
        console.print(f"\ngrid     {points}", soft_wrap=True)
        dataset = definition.load_data()
        _print_data(console, definition, dataset)
        check_preprocessing(dataset)
        check_first_batch(study_file, dataset)
        _try_batch(console, study_file, dataset, n_trials, workers or default_workers("cpu"))


def _print_space(console: Console, space: dict[str, Described]) -> None:
    table = plain_table("parameter", "type", "range", "grid", "only when")
    for name, described in space.items():
        parameter = described.parameter
        conditions = [f"{other} = {' or '.join(map(str, values))}" for other, values in described.conditions.items()]
        table.add_row(
            name,
            type(parameter).__name__.lower(),
            str(parameter),
            "" if isinstance(parameter, Choice) else _grid(parameter.points or ()),
            ", ".join(conditions),
        )
    console.print(table)


def _grid(points: Sequence[float]) -> str:
    if len(points) > MOST_POINTS:
        return f"{points[0]:.3g} {points[1]:.3g} .. {points[-1]:.3g} ({len(points):,} points)"
    return " ".join(f"{point:.3g}" for point in points) or "-"


def _print_requirements(console: Console, study: Study) -> None:
    """Print how many configurations meet the requirements, by what the others do not meet."""
    spaces = list(draw(study.trace, DRAWN, DRAWN_SECONDS))
    unmet = Counter(space.unmet for space in spaces if space.unmet is not None)
    share = 1 - unmet.total() / len(spaces)
    others = f"; {counted(unmet)}" if unmet else ""
    console.print(f"\nrequired {share:.0%} of {len(spaces)} configurations drawn meet it{others}", soft_wrap=True)


def _print_data(console: Console, study: Study, dataset: Dataset) -> None:
    sizes = [f"{length(dataset.train):,} training", f"{length(dataset.validation):,} validation"]
    if dataset.test is not None:
        sizes.append(f"{length(dataset.test):,} test")
    shape = "x".join(map(str, dataset.train.inputs.shape[1:])) if isinstance(dataset.train, Split) else "?"
    what = f"{len(dataset.classes)} classes" if dataset.classes else "targets that are numbers"
    console.print(f"data     {', '.join(sizes)} examples of {shape}, {what}", soft_wrap=True)
    baseline = baseline_of(dataset)
    if baseline is not None and baseline.is_uneven:
        console.print(f"         uneven classes: compare accuracies with {baseline}", soft_wrap=True)
        if study.measure == ACCURACY:
            better = "balanced accuracy, macro F1, AUROC or average precision"
            console.print(f"         Study(measure=...) may fit them better: {better}", soft_wrap=True)
    console.print(f"measure  {', also '.join(map(str, study.measures))}", soft_wrap=True)
    own = None if study.measure == ACCURACY else baseline_of(dataset, study.measure)
    if own is not None:
        console.print(f"         to be better than {own}", soft_wrap=True)
    if dataset.note:
        console.print(f"         {dataset.note}", soft_wrap=True)


def _try_batch(console: Console, study_file: StudyFile, dataset: Dataset, n_trials: int, workers: int) -> None:
    """Train a configuration from the middle of the space for some batches, and print how long a run may take."""
    study = study_file.study
    params = middle(study.trace)
    torch.set_num_threads(1)
    given = " ".join(f"{name}={short(value)}" for name, value in params.items())
    run = start_run(study, params, dataset, seed=0)
    if isinstance(run, OwnRun):
        _print_own(console, run, given)
        return
    doubtful = doubts(run)
    stop_after = _StopAfter(BATCHES, SECONDS)
    list(train(run, stop_after))
    seconds = stop_after.seconds_per_batch
    per_interval = _seconds_around(run, dataset)
    per_trial = seconds * run.total_steps + per_interval * run.intervals
    # Twice, because a run and then its workers import and load what this command has.
    start = 2 * (time.time() - psutil.Process().create_time())
    rounds = -(-n_trials // workers)
    console.print(f"model    {run.parameters:,} parameters, with {given}", soft_wrap=True)
    for line in doubtful:
        console.print(f"         {line}", soft_wrap=True)
    console.print(
        f"batch    {run.batch_size} examples forward, backward and step: {seconds * 1000:.1f} ms; {run.epochs} epochs "
        f"of {run.steps_per_epoch} batches",
        soft_wrap=True,
    )
    console.print(
        f"time     {n_trials} trials on {plural(workers, 'worker')}: about "
        f"{duration(start + per_trial * rounds)} if all are trained to the end ({per_trial:.1f} s each), "
        f"less with every trial pruned or stopped early",
        soft_wrap=True,
    )


def _print_own(console: Console, run: OwnRun, given: str) -> None:
    """Train an interval of a user's own training, and print what it returned."""
    report = next(run.train())
    figures = ", ".join(f"{name} {value:.4g}" for name, value in report.as_row().items() if "_" in name)
    console.print(f"training {type(run.training).__name__}, with {given}", soft_wrap=True)
    console.print(
        f"{run.unit:<8} {report.seconds:.1f} s: {figures}; a trial has {plural(run.intervals, run.unit)}",
        soft_wrap=True,
    )


def _seconds_around(run: Run, dataset: Dataset) -> float:
    """Return how long an interval takes apart from its batches: evaluation, and writing the resume point."""
    began = time.perf_counter()
    split = run.validation_split
    few = split
    if isinstance(split, Split) and length(split) > EVALUATED:
        few = Split(split.inputs[:EVALUATED], split.targets[:EVALUATED])
    evaluate(run.evaluated, run.loss, few, run.measures, precision=run.precision)
    evaluation = (time.perf_counter() - began) * length(split) / length(few)
    run.close()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        # The resume point has the best weights too, and the history is written beside it.
        checkpoint.save(Path(folder) / "last.pt", {"run": run.state_dict(), "best": run.evaluated.state_dict()})
        return evaluation + 1.5 * (time.perf_counter() - began)


class _StopAfter:
    """Stops training after `batches` batches, or after `seconds` but at least four batches, and times them."""

    def __init__(self, batches: int, seconds: float) -> None:
        self._batches, self._seconds = batches, seconds
        self._times: list[float] = []

    def __call__(self) -> bool:
        self._times.append(time.perf_counter())
        done, taken = len(self._times) - 1, self._times[-1] - self._times[0]
        return done >= self._batches or (done >= 4 and taken > self._seconds)

    @property
    def seconds_per_batch(self) -> float:
        """The mean over all batches but the first, which is a warm-up."""
        taken = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        return sum(taken[1:]) / len(taken[1:]) if len(taken) > 1 else sum(taken)
