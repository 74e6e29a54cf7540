"""`hpsearch enqueue`."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from hpsearch.cli.arguments import WHERE, as_typed, set_data_folder
from hpsearch.search.database import check_url
from hpsearch.search.enqueue import enqueue, parse_params
from hpsearch.search.storage import FINISHED
from hpsearch.search.stored_study import open_for_run
from hpsearch.study import load_study, users_code


def enqueue_trial(
    *,
    study: str,
    params: Sequence[str],
    name: str | None,
    storage: str,
    runs: Path,
    data: Path | None,
    seed: int | None,
) -> None:
    """Put a trial with the given params into a study's queue. Raises UsageError before anything is created."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    set_data_folder(data)
    check_url(storage, create=True)
    study_file = load_study(study)
    fixed = parse_params(params, study_file.study)
    with users_code(study_file.path):
        dataset = study_file.study.load_data()
    stored = open_for_run(storage, study_file, dataset, name=name or study_file.name, seed=seed, runs=runs)
    number = enqueue(stored, fixed)
    counts = stored.storage.counts(stored.study_id)
    enough = sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING, TrialState.WAITING))
    given = " ".join(f"{key}={value}" for key, value in fixed.items())
    print(f"Trial {number} waits in the queue: {given}; what is not given will be sampled")
    everything = as_typed("run", only=WHERE, n_trials=max(enough, study_file.study.n_trials))
    print(f"Next        {everything}")
    enqueued = as_typed("run", only=WHERE, n_trials=enough, sampler="manual")
    print(f"            {enqueued}  (enqueued trials only)", flush=True)
