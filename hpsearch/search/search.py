"""The definition of a search: a study, a strategy, limits and where all of it is stored."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpsearch.datasets import Dataset, length
from hpsearch.defaults import default_runs, default_storage
from hpsearch.devices import check_device
from hpsearch.errors import UsageError
from hpsearch.search.database import check_url
from hpsearch.search.pruners import most_intervals
from hpsearch.search.stored_study import StoredStudy, finished_already
from hpsearch.search.strategy import Strategy
from hpsearch.space import Params
from hpsearch.study import StudyFile, check_count, load_study, users_code
from hpsearch.text import brief
from hpsearch.tryout import check_first_batch


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a run.

    A run ends when `n_trials` trials of the study are finished, or after `timeout` seconds. If its worker dies, or it
    takes longer than `trial_timeout` seconds, a trial is retried up to `max_retries` times. All trials of the study
    together train at most `intervals` intervals; a trial still running then goes back into the queue. The database may
    be unavailable for `outage` seconds. With `keep_best`, only the weights of that many best trials are kept.
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
    """A study to be run, with its strategy, limits and storage.

    `name` is the name of the study in the database `storage`; its files are in the folder `runs`. Without a `seed`, the
    stored one is used, or that of the study file. With `fresh`, a new study is created even if one of the same name
    exists. New trials get the `points` in order; if `points` is None, the strategy draws them. `left_out` counts the
    grid points that do not meet a requirement. Without `workers`, trials are trained in this process, one at a time.
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
    left_out: Mapping[str, int] = field(default_factory=dict)
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
        """Return a search of a study file, given by name or path. Settings not given are the study's, or defaults.

        `n_trials` is the number of trials to be finished, by default all points of a grid. Raises UsageError for
        settings that are not valid.
        """
        for setting, value, least in (("n_trials", n_trials, 1), ("workers", workers, 0), ("seed", seed, 0)):
            if value is not None:
                check_count(setting, value, least)
        if not isinstance(study, str | StudyFile):
            raise UsageError(f"a study is given by its name or path, or as a loaded StudyFile; got {brief(study)}")
        device = check_device(device)
        storage = storage or default_storage()
        check_url(storage, create=True)
        study_file = load_study(study) if isinstance(study, str) else study
        definition = study_file.study
        strategy = Strategy.of(sampler or definition.sampler, pruner or definition.pruner)
        left_out: Counter[str] = Counter()
        with users_code(study_file.path):
            points = strategy.points(definition, lambda message: left_out.update([message]))
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
            left_out=left_out,
            device=device,
            workers=workers,
        )

    def finished_already(self) -> StoredStudy | None:
        """Return the stored study if all its trials are finished, or None; no data are loaded.

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
    """The data of a study, the `seconds` it took to load them, and the largest number of `intervals` of a trial."""

    data: Dataset
    intervals: int
    seconds: float

    @classmethod
    def of(cls, search: Search) -> "Loaded":
        """Load the data of a search, and check the study on one batch of them.

        Raises UsageError or StudyFileError if that fails, or the pruner's options do not fit the number of intervals.
        """
        study_file, start = search.study_file, time.monotonic()
        with users_code(study_file.path):
            data = study_file.study.load_data()
            seconds = time.monotonic() - start
            loaded = cls.from_data(search, data, seconds)
        check_first_batch(study_file, data, device=search.device)
        return loaded

    @classmethod
    def from_data(cls, search: Search, data: Dataset, seconds: float = 0.0) -> "Loaded":
        """Use data that are already loaded. Raises UsageError if the pruner's options do not fit."""
        intervals = most_intervals(search.study_file.study, length(data.train))
        search.strategy.make_pruner(intervals, 0)
        return cls(data=data, intervals=intervals, seconds=seconds)
