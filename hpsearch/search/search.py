"""What is to be run: a study, a strategy, and how far."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.datasets import Dataset, length
from hpsearch.defaults import default_runs, default_storage
from hpsearch.search.database import check_url
from hpsearch.search.pruners import most_intervals
from hpsearch.search.stored_study import StoredStudy, finished_already
from hpsearch.search.strategy import Strategy
from hpsearch.space import Params
from hpsearch.study import StudyFile, load_study, users_code
from hpsearch.tryout import check_first_batch


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a run goes: finished trials in the study, retries after a death, seconds of a trial and of the run.

    `intervals` is the most that all trials of the study train together; the trial running when they are used up goes
    back into the queue. `outage` is how many seconds the database may be away. With `keep_best`, the weights of so many
    trials are kept, the best ones.
    """

    n_trials: int
    intervals: int | None = None
    max_retries: int = 2
    trial_timeout: float | None = None
    timeout: float | None = None
    keep_best: int | None = None
    outage: float = 90.0


@dataclass(frozen=True, kw_only=True)
class Search:
    """A study to be run, and how.

    `name` is the study's in the database `storage`, with its files in the folder `runs`. Without a `seed` the stored
    one holds, or the study file's; with `fresh`, a new study is started beside one of the same name. New trials get the
    `points` in their order where they are given, and are drawn by the strategy where they are None. Without `workers`
    trials are trained in this process, one at a time.
    """

    study_file: StudyFile
    strategy: Strategy
    limits: Limits
    name: str
    storage: str
    runs: Path
    seed: int | None = None
    fresh: bool = False
    points: Sequence[Params] | None = None
    device: str = "cpu"
    workers: int = 0

    @classmethod
    def of(
        cls,
        study: str | StudyFile,
        *,
        sampler: str | None = None,
        pruner: str | None = None,
        n_trials: int | None = None,
        name: str | None = None,
        storage: str | None = None,
        runs: str | Path | None = None,
        seed: int | None = None,
        fresh: bool = False,
        device: str = "cpu",
        workers: int = 0,
    ) -> "Search":
        """Return the search of a study file, given by name or path; what is left out is the study's, or the default.

        `n_trials` are the trials to be finished, by default all points of a grid. Raises UsageError for what cannot be.
        """
        storage = storage or default_storage()
        check_url(storage, create=True)
        study_file = load_study(study) if isinstance(study, str) else study
        definition = study_file.study
        strategy = Strategy.of(sampler or definition.sampler, pruner or definition.pruner)
        with users_code(study_file.path):
            points = strategy.points(definition)
        return cls(
            study_file=study_file,
            strategy=strategy,
            limits=Limits(n_trials=n_trials or (len(points) if points else definition.n_trials)),
            name=name or study_file.name,
            storage=storage,
            runs=Path(runs or default_runs()),
            seed=seed,
            fresh=fresh,
            points=points,
            device=device,
            workers=workers,
        )

    def finished_already(self) -> StoredStudy | None:
        """Return the stored study if nothing is left to do, found out without loading data.

        Raises UsageError if it was made from another study file or seed.
        """
        if self.fresh:
            return None
        return finished_already(
            self.storage,
            self.study_file,
            name=self.name,
            seed=self.seed,
            runs=self.runs,
            n_trials=self.limits.n_trials,
        )


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A study's data, which took `seconds` to load, and the most `intervals` that a trial on them can have."""

    data: Dataset
    intervals: int
    seconds: float

    @classmethod
    def of(cls, search: Search) -> "Loaded":
        """Load the data of a search, and train one batch of them.

        Raises UsageError or StudyFileError if that fails, or the pruner's options do not fit the number of intervals.
        """
        study_file, began = search.study_file, time.monotonic()
        with users_code(study_file.path):
            data = study_file.study.load_data()
            seconds = time.monotonic() - began
            loaded = cls.from_data(search, data, seconds)
        check_first_batch(study_file, data, device=search.device)
        return loaded

    @classmethod
    def from_data(cls, search: Search, data: Dataset, seconds: float = 0.0) -> "Loaded":
        """Take data that are there already. Raises UsageError if the pruner's options do not fit."""
        intervals = most_intervals(search.study_file.study, length(data.train))
        search.strategy.make_pruner(intervals, 0)
        return cls(data=data, intervals=intervals, seconds=seconds)
