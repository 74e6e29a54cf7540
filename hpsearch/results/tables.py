"""A stored study as pandas frames: one row per trial, one row per interval."""

import contextlib
import gc
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpsearch.executors.trial_files import HISTORY
from hpsearch.measure import Measure
from hpsearch.search.stored_study import StoredStudy
from hpsearch.search.trial_record import DIVERGED, INFEASIBLE, RECORDED, TrialRecord, has_diverged, is_infeasible

# None as the value of a choice, in a frame; as None it would be a missing value.
CHOSEN_NONE = "None"
# The number of best trials in a report.
BEST_TRIALS = 10
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trials_frame(stored: StoredStudy) -> pd.DataFrame:
    """Return one row per trial, indexed by number: state, value, how and when it ended, and `params.*`.

    A parameter that a trial does not have is missing; a choice whose value is None is the text "None" (`CHOSEN_NONE`).
    A trial that diverged is stored as complete, with the worst value, and one that did not meet a requirement as
    failed; here their states are `diverged` and `infeasible`.
    """
    with _without_collection():
        trials = stored.optuna_study().get_trials(deepcopy=False)
    rows = [_trial_row(trial, stored.measure.maximize) for trial in trials]
    params = list(dict.fromkeys(f"params.{name}" for trial in trials for name in trial.params))
    columns = ["number", "state", "value", *RECORDED, "started", "ended", *params]
    return pd.DataFrame(rows, columns=columns).set_index("number")


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the garbage collector, which would traverse the thousands of trials being loaded again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _trial_row(trial: FrozenTrial, maximize: bool) -> dict[str, object]:
    return {
        "number": trial.number,
        "state": _state(trial),
        "value": trial.value,
        **asdict(TrialRecord.of(trial, maximize=maximize)),
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        **{f"params.{name}": CHOSEN_NONE if value is None else value for name, value in trial.params.items()},
    }


def _state(trial: FrozenTrial) -> str:
    return DIVERGED if has_diverged(trial) else INFEASIBLE if is_infeasible(trial) else STATES[trial.state]


def best_frame(trials: pd.DataFrame, measure: Measure, count: int = BEST_TRIALS) -> pd.DataFrame:
    """Return the `count` best complete trials, the earliest of equals first."""
    complete = trials[trials["state"] == "complete"]
    return complete.sort_values("value", ascending=not measure.maximize, kind="stable").head(count)


def history_frame(stored: StoredStudy, measure: Measure) -> pd.DataFrame:
    """Return one row per reported interval: trial number, interval, validation measure (from the database).

    The other columns of the trials' `history.csv` (epoch, step, losses, training measure, further measures, learning
    rate, seconds) are joined to it, and missing if a file is missing.
    """
    column = f"validation_{measure.column}"
    trials = stored.optuna_study().get_trials(deepcopy=False)
    rows = [
        (trial.number, interval, value)
        for trial in trials
        for interval, value in sorted(trial.intermediate_values.items())
    ]
    reports = pd.DataFrame(rows, columns=["number", "interval", column])
    rest = _history_files({trial.number: stored.trial_folder(trial.number) for trial in trials})
    return reports.merge(rest.drop(columns=column, errors="ignore"), on=["number", "interval"], how="left")


def _history_files(folders: Mapping[int, Path]) -> pd.DataFrame:
    """Return the rows of all trials' `history.csv`, with the trials' numbers; parsed at once for speed."""
    lines: dict[str, list[str]] = {}
    for number, folder in folders.items():
        try:
            header, *rows = (folder / HISTORY).read_text().splitlines()
        except (OSError, ValueError):
            continue
        lines.setdefault(header, []).extend(f"{number},{row}" for row in rows)
    frames = [
        pd.read_csv(io.StringIO("\n".join([f"number,{header}", *rows]))) for header, rows in lines.items() if rows
    ]
    return (
        pd.concat(frames)
        if frames
        else pd.DataFrame({"number": pd.Series(dtype=int), "interval": pd.Series(dtype=int)})
    )


def distributions(stored: StoredStudy) -> dict[str, BaseDistribution]:
    """Return the distribution of every parameter that a trial of the study has, in the order of their appearance."""
    trials = stored.optuna_study().get_trials(deepcopy=False)
    return {name: distribution for trial in trials for name, distribution in trial.distributions.items()}
