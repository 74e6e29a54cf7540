"""`hpsearch compare`."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from hpsearch.cli.arguments import as_typed, default_workers, output_folder, set_data_folder
from hpsearch.cli.output import frame_table, make_console
from hpsearch.datasets import Dataset, length
from hpsearch.devices import check_device
from hpsearch.errors import HpsearchError
from hpsearch.progress import compare_progress
from hpsearch.results.comparison import short_table
from hpsearch.results.comparison_page import Compared, read_comparison, write_comparison
from hpsearch.search.comparison import Comparison, Pair, budget_of, make_pairs, trained_already
from hpsearch.search.database import check_url
from hpsearch.search.folders import folder_name
from hpsearch.search.pair_processes import make_job, train_pairs
from hpsearch.search.pruners import most_intervals
from hpsearch.search.strategy import Strategy
from hpsearch.study import load_study, users_code


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The options of the command."""

    study: str
    strategies: str
    repeats: int
    epoch_budget: int
    name: str | None
    storage: str
    runs: Path
    data: Path | None
    workers: int | None
    seed: int | None
    device: str
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be compared, with the data loaded."""

    name: str
    pairs: list[Pair]
    comparison: Comparison
    data: Dataset
    load_seconds: float
    lines: list[str]


def compare_strategies(options: CompareOptions) -> int:
    """Train every strategy under every seed, write the comparison; return the exit code.

    Raises HpsearchError; bad input raises before anything is created.
    """
    console = make_console(stderr=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = _load(options)
    pairs, comparison, data = plan.pairs, plan.comparison, plan.data
    study_file, epochs = comparison.study_file, options.epoch_budget
    folder = output_folder(options.out or Path("reports") / folder_name(plan.name))
    before = trained_already(pairs, comparison, data)
    for line in plan.lines:
        console.print(f"hpsearch: {line}", style="yellow", soft_wrap=True)
    left = [pair for pair in pairs if before[pair] < comparison.budget]
    comparison = replace(comparison, workers=min(comparison.workers, max(len(left), 1)))
    with compare_progress(console, plan.name, before, comparison.budget, study_file.study) as watcher:
        finished = train_pairs(left, make_job(comparison, data, load_seconds=plan.load_seconds), watcher)
    missing = {pair.repeat for pair in pairs} - watcher.whole_repeats()
    if whole := [pair for pair in pairs if pair.repeat not in missing]:
        compared = read_comparison(comparison, data, whole, epochs=epochs, missing=len(missing))
        write_comparison(folder, compared, study_file, data, epochs=epochs, command=as_typed())
        _print(compared, folder)
    if not finished:
        console.print(f"hpsearch: interrupted; everything is saved: {as_typed()}", soft_wrap=True)
        return 130
    if watcher.failures:
        raise HpsearchError(
            f"{len(watcher.failures)} of {len(pairs)} pairs failed: run the same command to try them again, or leave "
            f"their strategies out to compare the others. The first failure is {watcher.failures[0]}"
        )
    if watcher.trained_here == 0:
        console.print("hpsearch: nothing was left to train: every pair has used its epochs", soft_wrap=True)
    return 0


def _load(options: CompareOptions) -> _Plan:
    """Load study and data, and check all that can be checked before anything is created. Raises HpsearchError."""
    set_data_folder(options.data)
    check_url(options.storage, create=True)
    study_file = load_study(options.study)
    study, name = study_file.study, options.name or study_file.name
    seed = study.seed if options.seed is None else options.seed
    pairs = make_pairs(options.strategies, study, name=name, repeats=options.repeats, seed=seed)
    comparison = Comparison(
        study_file=study_file,
        storage=options.storage,
        runs=options.runs,
        budget=budget_of(study, options.epoch_budget),
        device=check_device(options.device),
        workers=options.workers or default_workers("cpu"),
    )
    began = time.monotonic()
    with users_code(study_file.path):
        data = study.load_data()
        load_seconds = time.monotonic() - began + study_file.seconds
        intervals = most_intervals(study, length(data.train))
    lines = [f"the data are {data.note}"] if data.note else []
    for strategy in map(Strategy.parse, dict.fromkeys(pair.strategy for pair in pairs)):
        strategy.make_pruner(intervals, seed)
        if (line := strategy.plan(intervals, study.unit)) is not None and line not in lines:
            lines.append(line)
    return _Plan(name=name, pairs=pairs, comparison=comparison, data=data, load_seconds=load_seconds, lines=lines)


def _print(compared: Compared, folder: Path) -> None:
    stdout = make_console()
    stdout.print(frame_table(short_table(compared.strategies, compared.measure)))
    stdout.print(f"\n{compared.conclusion}\n", soft_wrap=not stdout.is_terminal)
    print(f"Written     {folder}/compare.md, .csv and .png, compare_repeats.csv, compare_curves.csv", flush=True)
