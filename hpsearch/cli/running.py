"""`hpsearch run`."""

import sys
import time
from contextlib import closing
from pathlib import Path

import optuna

from hpsearch.cli.arguments import WHERE, as_typed, check_device, default_workers, set_data_folder
from hpsearch.cli.output import make_console
from hpsearch.datasets import length
from hpsearch.executors import Executor, InlineExecutor, LocalExecutor, time_to_load
from hpsearch.executors.task import BEST
from hpsearch.progress import observer_for
from hpsearch.results import markdown
from hpsearch.search.opening import OpenStudy, finished_already, open_for_run
from hpsearch.search.overview import facts_of
from hpsearch.search.pruners import make_pruner, most_intervals, rung_plan
from hpsearch.search.samplers import fixed_points, make_sampler
from hpsearch.search.storage import FINISHED, check_url, shown
from hpsearch.search.supervisor import Limits, Supervisor
from hpsearch.study import StudyFile, load_study, users_code
from hpsearch.text import short
from hpsearch.tryout import check_first_batch


def run_study(
    *,
    study: str,
    n_trials: int | None,
    name: str | None,
    storage: str,
    runs: Path,
    data: Path | None,
    sampler: str | None,
    pruner: str | None,
    workers: int | None,
    seed: int | None,
    device: str,
    fresh: bool,
    timeout: float | None,
    trial_timeout: float | None,
    max_retries: int,
    keep_best: int | None,
    outage: float,
) -> int:
    """Run a study; return the exit code. Raises HpsearchError; bad input is found before anything is created."""
    console = make_console(stderr=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    set_data_folder(data)
    check_url(storage, create=True)
    began = time.monotonic()
    study_file = load_study(study)
    definition = study_file.study
    sampler = sampler or definition.sampler
    make_sampler(sampler, 0)
    pruner = pruner or definition.pruner
    make_pruner(pruner)
    with users_code(study_file.path):
        grid = fixed_points(sampler, definition)
    device = check_device(device)
    name = name or study_file.name
    n_trials = n_trials or (len(grid) if grid else definition.n_trials)
    finished = finished_already(storage, study_file, name=name, seed=seed, runs=runs, n_trials=n_trials)
    if finished is not None and not fresh:
        console.print(
            f"hpsearch: nothing is left to do: study {name} has {_finished(finished)}; a larger --n-trials adds more",
            soft_wrap=True,
        )
        print_best(finished, study_file)
        return 0
    # Shown on a terminal only, and gone afterwards: bad input is answered by one line.
    with console.status(f"loading the data of {study_file.name}"):
        with users_code(study_file.path):
            dataset = definition.load_data()
            load_seconds = time.monotonic() - began
            intervals = most_intervals(definition, length(dataset.train))
        make_pruner(pruner, intervals)
        check_first_batch(study_file, dataset, device=device)
    opened = open_for_run(storage, study_file, dataset, name=name, seed=seed, runs=runs, fresh=fresh)
    workers = default_workers(device) if workers is None else workers
    opened.record_run(study_file, sampler=sampler, pruner=pruner, device=device, workers=workers)
    limits = Limits(
        n_trials=n_trials,
        max_retries=max_retries,
        trial_timeout=trial_timeout,
        timeout=timeout,
        keep_best=keep_best,
        outage=outage,
    )
    if dataset.note:
        console.print(f"hpsearch: the data are {dataset.note}", style="yellow", soft_wrap=True)
    executor: Executor
    if workers == 0:
        executor = InlineExecutor(definition, dataset)
    else:
        console.print(f"hpsearch: starting {markdown.count(min(workers, limits.n_trials), 'worker')}", soft_wrap=True)
        executor = LocalExecutor(
            study_file, dataset, workers=min(workers, limits.n_trials), load_timeout=time_to_load(load_seconds)
        )
    with closing(executor), observer_for(console, opened.name, intervals) as observer:
        if (best := opened.best_trial()) is not None:
            observer.best_so_far(best.value or 0.0, best.number)
        if (plan := rung_plan(pruner, intervals)) is not None:
            observer.message(plan)
        end = Supervisor(
            opened,
            definition,
            executor,
            observer,
            limits,
            sampler=make_sampler(sampler, opened.seed, definition),
            pruner=make_pruner(pruner, intervals, opened.seed),
            examples=length(dataset.train),
            grid=grid,
            device=device,
        ).run()
    # One that did not end by itself may have lost its database.
    best, trained = (opened.best_trial(), _seconds_trained(opened)) if end == "done" else (None, None)
    console.print(observer.last_line(best, trained), soft_wrap=True)
    name_again = opened.name if opened.name != study_file.name else None
    command = as_typed(n_trials=limits.n_trials, name=name_again, fresh=False)
    if end != "done":
        what = "interrupted" if end == "interrupted" else f"the time of {timeout:g} s is over"
        # As the observer last heard: the database may be away.
        waiting = observer.states.get(optuna.trial.TrialState.WAITING, 0)
        console.print(
            f"hpsearch: {what}; everything is saved in {shown(opened.storage.engine.url)} and "
            f"{opened.folder}; {waiting} unfinished trial{'s' * (waiting != 1)} will go on from the last interval: "
            f"{command}",
            soft_wrap=True,
        )
        return 130 if end == "interrupted" else 0
    if observer.finished_here == 0:
        spent = f"all {len(grid)} grid points have been tried" if grid else f"it has {_finished(opened)}"
        console.print(f"hpsearch: nothing is left to do: {spent}", soft_wrap=True)
    print_best(opened, study_file)
    return 0


def _finished(opened: OpenStudy) -> str:
    counts = opened.storage.counts(opened.study_id)
    return markdown.count(sum(counts.get(state, 0) for state in FINISHED), "finished trial")


def _seconds_trained(opened: OpenStudy) -> float:
    found = (facts_of(trial)["seconds"] for trial in opened.optuna_study().get_trials(deepcopy=False))
    return float(sum(seconds for seconds in found if seconds is not None))


def print_best(opened: OpenStudy, study_file: StudyFile) -> None:
    """Print the best trial, its params, where its weights are, and what to type next."""
    best = opened.best_trial()
    if best is None:
        print("No trial is complete yet.", flush=True)
        return
    interval = facts_of(best)["best_interval"]
    after = "" if interval is None else f" after interval {interval}"
    print(f"Best trial  {best.number}: validation accuracy {best.value:.4f}{after}")
    width = max(map(len, best.params), default=0)
    for name, value in best.params.items():
        print(f"            {name:<{width}}  {short(value)}")
    weights = opened.folder / str(best.number) / BEST
    print(f"Weights     {weights if weights.exists() else f'{weights} (not there any more)'}")
    print(f"Next        {as_typed('status', only=('storage', 'runs'), study=opened.name)}")
    stored = opened.name if opened.name != study_file.name else None
    print(f"            {as_typed('report', only=WHERE, name=stored)}")
    print(f"            {as_typed('export', only=[option for option in WHERE if option != 'data'], name=stored)}")
    print(f"            {as_typed('dashboard', only=('storage',))}")
    sys.stdout.flush()
