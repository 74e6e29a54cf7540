"""Compare strategies: each strategy under each seed is a separate study, and all train the same number of epochs.

A pair of a strategy and a seed trains one trial at a time, so that its results do not depend on when it is run. This
module makes the pairs and trains one pair; `hpsearch.search.pair_processes` trains several at once.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from hpsearch.datasets import Dataset
from hpsearch.errors import UsageError
from hpsearch.executors import Outcome, Task
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.observer import Observer
from hpsearch.search.owner import Owner
from hpsearch.search.running import Finished, run
from hpsearch.search.search import Limits, Loaded, Search
from hpsearch.search.storage import Storage
from hpsearch.search.stored_study import StoredStudy, check_name, open_for_run, open_to_read
from hpsearch.search.strategy import Strategy
from hpsearch.search.study_attrs import FINGERPRINT, WALL_SECONDS
from hpsearch.search.trial_record import trained_intervals
from hpsearch.study import Steps, Study, StudyFile
from hpsearch.text import plural
from hpsearch.training import IntervalReport


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A strategy (`SAMPLER[+PRUNER]`) under the seed of one repeat, counted from 1; `name` is that of its study."""

    name: str
    strategy: str
    repeat: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The settings that all pairs share: where they are stored, and the `budget` of intervals that each pair trains.

    Up to `workers` pairs are trained at a time.
    """

    study_file: StudyFile
    storage: str
    runs: Path
    budget: int
    device: str = "cpu"
    workers: int = 1


def make_pairs(text: str, study: Study, *, name: str, repeats: int, seed: int) -> list[Pair]:
    """Return the pairs of the strategies in `text`, such as `random,tpe:n_startup_trials=5,gp+asha`, by repeat.

    Repeat r has the seed `seed` + r - 1. Raises UsageError for a strategy that cannot be run or is named twice, and for
    a name that is not valid for a study.
    """
    # A comma followed by `option=` does not end the strategy.
    strategies = [piece.strip() for piece in re.split(r",(?!\s*\w+=)", text) if piece.strip()]
    if not strategies:
        raise UsageError("--strategies is empty: give for example random,tpe,gp+asha")
    for strategy in strategies:
        parsed = Strategy.parse(strategy)
        if parsed.points(study) == []:
            raise UsageError(f"strategy {strategy}: {parsed.sampler} runs only enqueued trials; leave it out")
        if strategies.count(strategy) > 1:
            raise UsageError(f"strategy {strategy} is named twice in --strategies; --repeats gives it more seeds")
    return [
        Pair(name=check_name(f"{name}@{strategy}#{repeat}"), strategy=strategy, repeat=repeat, seed=seed + repeat - 1)
        for repeat in range(1, repeats + 1)
        for strategy in strategies
    ]


def budget_of(study: Study, epochs: int) -> int:
    """Return the number of intervals in `epochs`. Raises UsageError if it is not a whole number."""
    if isinstance(study.interval, Steps):
        raise UsageError(f"compare counts epochs, but the study's interval is {study.interval}: give it in epochs")
    if uneven := [trained for trained in epochs_of(study) if trained % study.interval]:
        raise UsageError(
            f"compare counts whole intervals, but trials of {uneven[0]} epochs are not a multiple of the study's "
            f"interval, {study.interval}: change one of them"
        )
    if epochs % study.interval:
        raise UsageError(f"--epoch-budget must be a multiple of the study's interval, {study.interval}; got {epochs}")
    return epochs // study.interval


def epochs_of(study: Study) -> list[int]:
    """Return the numbers of epochs that trials can have over the space, in increasing order."""
    epochs: set[int] = set()
    study.explore(lambda space, recipe: epochs.add(recipe.epochs or study.epochs))
    return sorted(epochs)


def trained(stored: StoredStudy) -> tuple[int, float | None]:
    """Return the number of intervals that the trials of a study have trained, and the best value reported."""
    trials = stored.optuna_study().get_trials(deepcopy=False)
    best = stored.measure.best(value for trial in trials for value in trial.intermediate_values.values())
    return sum(map(trained_intervals, trials)), best


def trained_already(pairs: Sequence[Pair], comparison: Comparison, data: Dataset) -> dict[Pair, int]:
    """Return the intervals that each pair trained in earlier runs, creating the database if necessary.

    Raises UsageError if a pair was made from another space or data set, or has trained more intervals than the budget.
    """
    url, runs, unit = comparison.storage, comparison.runs, comparison.study_file.study.unit
    studies = {study.study_name: study for study in Storage(url, Owner.this_process()).get_all_studies()}
    now = describe_study(comparison.study_file, data, 0)
    intervals = dict.fromkeys(pairs, 0)
    for pair in pairs:
        if pair.name not in studies:
            continue
        before = studies[pair.name].user_attrs.get(FINGERPRINT)
        if before is None or differences(before, {**now, "seed": pair.seed}):
            # This raises the error that names the differences.
            open_for_run(url, comparison.study_file, data, name=pair.name, seed=pair.seed, runs=runs)
        intervals[pair], _ = trained(open_to_read(url, pair.name, runs))
        if intervals[pair] > comparison.budget:
            raise UsageError(
                f"{pair.name} has trained {plural(intervals[pair], unit)} already, more than the budget of "
                f"{comparison.budget}: give a larger --epoch-budget or another --name"
            )
    return intervals


def train_pair(
    pair: Pair,
    comparison: Comparison,
    data: Dataset,
    *,
    reported: Callable[[float], None] = lambda value: None,
    message: Callable[[str], None] = lambda text: None,
) -> Finished:
    """Train a pair, continuing an earlier run, until the budget or its grid is used up.

    `reported` is called with the validation measure after each interval, `message` with messages for the user.
    """
    study_file, budget = comparison.study_file, comparison.budget
    strategy = Strategy.parse(pair.strategy)
    points = strategy.points(study_file.study)
    if points is not None:
        # The budget may not suffice for the whole grid; in its own order, whole regions would be left out.
        random.Random(pair.seed).shuffle(points)
    search = Search(
        study_file=study_file,
        strategy=strategy,
        # Each finished trial has trained at least one interval.
        limits=Limits(n_trials=budget, intervals=budget, keep_best=1),
        name=pair.name,
        storage=comparison.storage,
        runs=comparison.runs,
        seed=pair.seed,
        points=points,
        device=comparison.device,
    )
    observer = _Observer(reported, message)
    try:
        return run(search, Loaded.from_data(search, data), observer, processes=comparison.workers)
    finally:
        observer.store_seconds()


class _Observer(Observer):
    """Passes on the new reports, and stores the total seconds of all runs in the study."""

    def __init__(self, reported: Callable[[float], None], message: Callable[[str], None]) -> None:
        self._reported = reported
        self._message = message
        self._stored: StoredStudy | None = None
        self._seconds = 0.0
        self._since = time.monotonic()
        self._known = 0

    def opened(self, stored: StoredStudy, search: Search, loaded: Loaded) -> None:
        self._stored = stored
        self._seconds = stored.user_attrs().get(WALL_SECONDS, 0.0)

    def store_seconds(self) -> None:
        if self._stored is None:
            return
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        self._stored.storage.set_study_user_attr(self._stored.study_id, WALL_SECONDS, self._seconds)

    def started(self, task: Task, intervals_before: int) -> None:
        self._known = intervals_before

    def reported(self, number: int, report: IntervalReport) -> None:
        if report.interval > self._known:
            self._known = report.interval
            self._reported(report.value)

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        self.store_seconds()

    def message(self, text: str) -> None:
        self._message(text)
