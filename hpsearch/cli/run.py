"""`hpsearch run`."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console

from hpsearch.cli.arguments import WHERE, as_typed, default_workers, set_data_folder
from hpsearch.cli.output import make_console
from hpsearch.executors.trial_files import BEST_WEIGHTS
from hpsearch.progress import run_progress
from hpsearch.search import Search, run
from hpsearch.search.database import mask_passwords
from hpsearch.search.search import Loaded
from hpsearch.search.stored_study import StoredStudy
from hpsearch.search.trial_record import TrialRecord
from hpsearch.study import StudyFile
from hpsearch.text import plural, short


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of the command."""

    study: str
    n_trials: int | None
    name: str | None
    storage: str
    runs: Path
    data: Path | None
    sampler: str | None
    pruner: str | None
    workers: int | None
    seed: int | None
    device: str
    fresh: bool
    timeout: float | None
    trial_timeout: float | None
    max_retries: int
    keep_best: int | None
    outage: float


def run_study(options: RunOptions) -> int:
    """Run a study; return the exit code. Raises HpsearchError; bad input raises before anything is created."""
    console = make_console(stderr=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    set_data_folder(options.data)
    search = _search(options)
    if (stored := search.finished_already()) is not None:
        console.print(
            f"hpsearch: nothing is left to do: study {stored.name} has {_finished(stored)}; a larger --n-trials adds "
            f"more",
            soft_wrap=True,
        )
        print_best(stored, search.study_file)
        return 0
    # On a terminal only, and erased afterwards: bad input prints a single line.
    with console.status(f"loading the data of {search.study_file.name}") if console.is_terminal else nullcontext():
        loaded = Loaded.of(search)
    with run_progress(console) as progress:
        finished = run(search, loaded, progress)
    stored = finished.stored
    # If the run did not end by itself, the database may be unreachable.
    best, trained = (stored.best_trial(), _seconds_trained(stored)) if finished.end == "done" else (None, None)
    console.print(progress.last_line(best, trained), soft_wrap=True)
    if finished.end != "done":
        # The number last reported to the observer: the database may be unreachable.
        _print_interrupted(console, search, stored, finished.end, progress.states.get(TrialState.WAITING, 0))
        return 130 if finished.end == "interrupted" else 0
    if progress.finished_here == 0:
        points = search.points
        spent = f"all {len(points)} grid points have been tried" if points else f"it has {_finished(stored)}"
        console.print(f"hpsearch: nothing is left to do: {spent}", soft_wrap=True)
    print_best(stored, search.study_file)
    return 0


def _search(options: RunOptions) -> Search:
    """Return the search that the options ask for."""
    search = Search.of(
        options.study,
        sampler=options.sampler,
        pruner=options.pruner,
        n_trials=options.n_trials,
        name=options.name,
        storage=options.storage,
        runs=options.runs,
        seed=options.seed,
        fresh=options.fresh,
        device=options.device,
    )
    limits = replace(
        search.limits,
        max_retries=options.max_retries,
        trial_timeout=options.trial_timeout,
        timeout=options.timeout,
        keep_best=options.keep_best,
        outage=options.outage,
    )
    workers = default_workers(search.device) if options.workers is None else options.workers
    return replace(search, limits=limits, workers=min(workers, limits.n_trials))


def _print_interrupted(console: Console, search: Search, stored: StoredStudy, end: str, waiting: int) -> None:
    what = "interrupted" if end == "interrupted" else f"the time limit of {search.limits.timeout:g} s is reached"
    name = stored.name if stored.name != search.study_file.name else None
    console.print(
        f"hpsearch: {what}; everything is saved in {mask_passwords(stored.storage.engine.url)} and {stored.folder}; "
        f"{plural(waiting, 'unfinished trial')} will continue from the last {search.study_file.study.unit}: "
        f"{as_typed(n_trials=search.limits.n_trials, name=name, fresh=False)}",
        soft_wrap=True,
    )


def _finished(stored: StoredStudy) -> str:
    return plural(stored.finished(), "finished trial")


def _seconds_trained(stored: StoredStudy) -> float:
    trials = stored.optuna_study().get_trials(deepcopy=False)
    records = (TrialRecord.of(trial, maximize=stored.measure.maximize) for trial in trials)
    return float(sum(record.seconds for record in records if record.seconds is not None))


def print_best(stored: StoredStudy, study_file: StudyFile) -> None:
    """Print the best trial, its params, where its weights are, and what to type next."""
    best = stored.best_trial()
    if best is None:
        print("No trial is complete yet.", flush=True)
        return
    measure = stored.measure
    interval = TrialRecord.of(best, maximize=measure.maximize).best_interval
    after = "" if interval is None else f" after {study_file.study.unit} {interval}"
    print(f"Best trial  {best.number}: {measure.label} {measure.format(best.value or 0.0)}{after}")
    baseline = stored.baseline()
    if baseline is not None and baseline.beats(best.value or 0.0):
        print(f"            no better than {baseline}")
    width = max(map(len, best.params), default=0)
    for name, value in best.params.items():
        print(f"            {name:<{width}}  {short(value)}")
    weights = stored.trial_folder(best.number) / BEST_WEIGHTS
    print(f"Weights     {weights if weights.exists() else f'{weights} (no longer there)'}")
    print(f"Next        {as_typed('status', only=('storage', 'runs'), study=stored.name)}")
    given = stored.name if stored.name != study_file.name else None
    print(f"            {as_typed('report', only=WHERE, name=given)}")
    print(f"            {as_typed('export', only=[option for option in WHERE if option != 'data'], name=given)}")
    print(f"            {as_typed('dashboard', only=('storage',))}")
    sys.stdout.flush()
