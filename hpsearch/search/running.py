"""Run a search; the command line, comparisons, notebooks and tests all use this function.

from hpsearch.search import Search, run

finished = run(Search.of("lenet", n_trials=20))
finished.stored.best_trial().params
"""

import contextlib
from dataclasses import dataclass

from hpsearch.executors import Executor, make_executor
from hpsearch.search.observer import Observer
from hpsearch.search.search import Loaded, Search
from hpsearch.search.stored_study import StoredStudy, open_for_run
from hpsearch.search.supervisor import End, Supervisor


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A study after a run, and why the run ended."""

    stored: StoredStudy
    end: End


def run(
    search: Search,
    loaded: Loaded | None = None,
    observer: Observer | None = None,
    *,
    executor: Executor | None = None,
    processes: int | None = None,
) -> Finished:
    """Run a search until its limits are reached, its time is over, or it is interrupted with Ctrl-C.

    `observer` receives the progress. An `executor`, if given, replaces that of the search and is closed at the end. If
    other runs train at the same time, `processes` is the number of them all, which is recorded with the study.

    Raises UsageError if the stored study was made differently; TooManyFailures, CannotContinue or StorageUnavailable if
    the run cannot continue; and FilesUnavailable if the study's folder cannot be used. Nothing trained is lost.
    """
    loaded = loaded or Loaded.of(search)
    observer = observer or Observer()
    study_file = search.study_file
    stored = open_for_run(
        search.storage,
        study_file,
        loaded.data,
        name=search.name,
        seed=search.seed,
        runs=search.runs,
        fresh=search.fresh,
    )
    workers = search.workers if processes is None else processes
    stored.record_run(study_file, search.strategy, device=search.device, workers=workers)
    observer.opened(stored, search, loaded)
    if executor is None:
        executor = make_executor(study_file, loaded.data, search.workers, study_file.seconds + loaded.seconds)
    with contextlib.closing(executor):
        supervisor = Supervisor(stored, search, loaded, executor, observer)
        return Finished(stored=stored, end=supervisor.run())
