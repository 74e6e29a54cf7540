"""`hpsearch enqueue`."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from hpsearch.cli.running import set_data_folder
from hpsearch.search.enqueueing import enqueue, parse_params
from hpsearch.search.opening import open_for_run
from hpsearch.search.storage import FINISHED, check_url
from hpsearch.study import load_study


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
    dataset = study_file.study.load_data()
    opened = open_for_run(storage, study_file, dataset, name=name or study_file.name, seed=seed, runs=runs)
    number = enqueue(opened, fixed)
    counts = opened.storage.counts(opened.study_id)
    enough = sum(counts.get(state, 0) for state in (*FINISHED, TrialState.RUNNING, TrialState.WAITING))
    given = " ".join(f"{key}={value}" for key, value in fixed.items())
    print(f"Trial {number} waits: {given}; what is not given will be drawn")
    command = f"hpsearch run --study {study}" + (f" --name {opened.name}" if opened.name != study_file.name else "")
    print(f"Next        {command} --n-trials {max(enough, study_file.study.n_trials)}")
    print(f"            {command} --n-trials {enough} --sampler manual  (enqueued trials only)", flush=True)
