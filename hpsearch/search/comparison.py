"""Strategies side by side: each strategy under each seed is a study of its own, and all train equally many epochs.

A pair of a strategy and a seed trains one trial at a time, so that it is the same study whenever it is run. This
module says which pairs there are and trains one; `hpsearch.search.pairs` trains several at once.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from hpsearch.datasets import Dataset, length
from hpsearch.errors import UsageError
from hpsearch.executors import InlineExecutor, Outcome, Task
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.opening import FINGERPRINT, OpenStudy, check_name, open_for_run, open_to_read
from hpsearch.search.owner import Owner
from hpsearch.search.pruners import make_pruner, most_intervals
from hpsearch.search.samplers import fixed_points, make_sampler
from hpsearch.search.storage import Storage
from hpsearch.search.supervisor import End, Limits, Observer, Supervisor, trained_intervals
from hpsearch.space import Space, describe
from hpsearch.study import Recipe, Steps, Study, StudyFile
from hpsearch.training import EpochReport

WALL_SECONDS = "hpsearch:wall_seconds"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A strategy (`SAMPLER[+PRUNER]`) under the seed of one repeat, counted from 1; `name` is its study's."""

    name: str
    strategy: str
    repeat: int
    seed: int

    @property
    def sampler(self) -> str:
        """The sampler and its options."""
        return self.strategy.partition("+")[0]

    @property
    def pruner(self) -> str:
        """The pruner and its options."""
        return self.strategy.partition("+")[2] or "none"


def make_pairs(text: str, study: Study, *, name: str, repeats: int, seed: int) -> list[Pair]:
    """Return the pairs of the strategies in `text`, such as `random,tpe:n_startup_trials=5,gp+asha`, repeat by repeat.

    Repeat r has the seed `seed` + r - 1. Raises UsageError for a strategy that cannot be run or is named twice, and for
    a name that no study can have.
    """
    # A piece that is an option only belongs to the strategy before it.
    strategies = [piece.strip() for piece in re.split(r",(?!\s*\w+=)", text) if piece.strip()]
    if not strategies:
        raise UsageError("--strategies names none: give for example random,tpe,gp+asha")
    for strategy in strategies:
        pair = Pair(name=name, strategy=strategy, repeat=1, seed=seed)
        make_sampler(pair.sampler, seed)
        make_pruner(pair.pruner)
        if fixed_points(pair.sampler, study) == []:
            raise UsageError(f"strategy {strategy}: {pair.sampler} has no trials of its own; leave it out")
        if strategies.count(strategy) > 1:
            raise UsageError(f"strategy {strategy} is named twice in --strategies; --repeats gives it more seeds")
    return [
        Pair(name=check_name(f"{name}@{strategy}#{repeat}"), strategy=strategy, repeat=repeat, seed=seed + repeat - 1)
        for repeat in range(1, repeats + 1)
        for strategy in strategies
    ]


def budget_of(study: Study, epochs: int) -> int:
    """Return how many intervals `epochs` are. Raises UsageError where they are not whole ones."""
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
    """Return the numbers of epochs that trials can have, over the space, the smallest first."""
    found = set()

    def recipe(space: Space) -> Recipe:
        drawn = study.trace(space)
        found.add(drawn.epochs or study.epochs)
        return drawn

    describe(recipe)
    return sorted(found)


def trained(opened: OpenStudy) -> tuple[int, float]:
    """Return how many intervals the trials of a study have trained, and the best validation accuracy after any."""
    trials = opened.optuna_study().get_trials(deepcopy=False)
    best = max((accuracy for trial in trials for accuracy in trial.intermediate_values.values()), default=0.0)
    return sum(map(trained_intervals, trials)), best


def trained_already(
    pairs: Sequence[Pair], url: str, study_file: StudyFile, data: Dataset, runs: Path, budget: int
) -> dict[Pair, int]:
    """Return the intervals that each pair trained in earlier runs, creating the database where there is none.

    Raises UsageError if a pair was made from another space or data set, or trained more than `budget` intervals.
    """
    studies = {study.study_name: study for study in Storage(url, Owner.this_process()).get_all_studies()}
    now = describe_study(study_file, data, 0)
    found = dict.fromkeys(pairs, 0)
    for pair in pairs:
        if pair.name not in studies:
            continue
        before = studies[pair.name].user_attrs.get(FINGERPRINT)
        if before is None or differences(before, {**now, "seed": pair.seed}):
            # This has the words for what is different.
            open_for_run(url, study_file, data, name=pair.name, seed=pair.seed, runs=runs)
        found[pair], _ = trained(open_to_read(url, pair.name, runs))
        if found[pair] > budget:
            raise UsageError(
                f"{pair.name} has trained {found[pair]} intervals already, more than the budget of {budget}: "
                f"give a larger --epoch-budget or another --name"
            )
    return found


def train_pair(
    pair: Pair,
    opened: OpenStudy,
    study: Study,
    data: Dataset,
    budget: int,
    *,
    device: str = "cpu",
    reported: Callable[[float], None] = lambda accuracy: None,
    message: Callable[[str], None] = lambda text: None,
) -> End:
    """Train a pair, from where it stands, until `budget` intervals or its grid are used up; return why it ended.

    `reported` is told the validation accuracy after each interval, `message` what the user should know.
    """
    grid = fixed_points(pair.sampler, study)
    if grid is not None:
        # The budget may end before the grid does, whose own order would leave whole regions out.
        random.Random(pair.seed).shuffle(grid)
    observer = _Observer(opened, reported, message)
    executor = InlineExecutor(study, data)
    try:
        return Supervisor(
            opened,
            study,
            executor,
            observer,
            # Every finished trial has trained at least one interval.
            Limits(n_trials=budget, intervals=budget, keep_best=1),
            sampler=make_sampler(pair.sampler, pair.seed, study),
            pruner=make_pruner(pair.pruner, most_intervals(study, length(data.train)), pair.seed),
            examples=length(data.train),
            grid=grid,
            device=device,
        ).run()
    finally:
        executor.close()
        observer.store_seconds()


class _Observer(Observer):
    """Passes on what is new, and keeps in the study how many seconds its runs have taken together."""

    def __init__(self, opened: OpenStudy, reported: Callable[[float], None], message: Callable[[str], None]) -> None:
        self._opened = opened
        self._reported = reported
        self._message = message
        self._seconds = opened.storage.get_study_user_attrs(opened.study_id).get(WALL_SECONDS, 0.0)
        self._since = time.monotonic()
        self._known = 0

    def store_seconds(self) -> None:
        now = time.monotonic()
        self._seconds += now - self._since
        self._since = now
        self._opened.storage.set_study_user_attr(self._opened.study_id, WALL_SECONDS, self._seconds)

    def counts(self, counts: dict[TrialState, int], limit: int) -> None:
        pass

    def started(self, task: Task, intervals_before: int) -> None:
        self._known = intervals_before

    def reported(self, number: int, report: EpochReport) -> None:
        if report.interval > self._known:
            self._known = report.interval
            self._reported(report.validation_accuracy)

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        self.store_seconds()

    def released(self, number: int) -> None:
        pass

    def message(self, text: str) -> None:
        self._message(text)

    def tick(self) -> None:
        pass
