"""A small finished study, made straight through Optuna where nothing has to be trained."""

import math
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from hpsearch.search.stored_study import StoredStudy, open_for_run
from hpsearch.study import load_study
from support import STUDIES

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
    "momentum": FloatDistribution(0.0, 0.9),
    "hidden": IntDistribution(8, 32, step=8),
    "dropout": FloatDistribution(0.0, 0.5),
}
STATES = {
    "budget": TrialState.COMPLETE,
    "patience": TrialState.COMPLETE,
    "target": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    None: TrialState.WAITING,
}


def make_study(
    folder: Path, reasons: list[str | None], name: str = "tiny", study: Path = STUDIES / "tiny.py"
) -> StoredStudy:
    """Make a study of a file like `tiny.py` whose trials ended for these reasons (None: waiting) at made-up values."""
    study_file = load_study(str(study))
    url = f"sqlite:///{folder}/hpsearch.db"
    data = study_file.study.load_data()
    stored = open_for_run(url, study_file, data, name=name, seed=0, runs=folder / "runs")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(0)
    # What is made up here need not survive a power cut.
    stored.storage.engine.dispose()
    event.listen(stored.storage.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
    stored.optuna_study().add_trials([_trial(draw, number, reason) for number, reason in enumerate(reasons)])
    return stored


def _trial(draw: random.Random, number: int, reason: str | None) -> FrozenTrial:
    params: dict[str, Any] = {"lr": 10 ** draw.uniform(-3, 0), "optimizer": draw.choice(["sgd", "adam"])}
    if params["optimizer"] == "sgd":
        params["momentum"] = draw.uniform(0, 0.9)
    params |= {"hidden": draw.choice([8, 16, 24, 32]), "dropout": draw.uniform(0, 0.5)}
    intervals = {"budget": 8, "failed": 0, None: 2}.get(reason, draw.randint(2, 7))
    top = max(0.1, 0.97 - 0.1 * (math.log10(params["lr"]) + 1.7) ** 2 + draw.gauss(0, 0.01))
    reports = {
        step: max(0.0, min(1.0, top * (1 - 0.8 * math.exp(-step / 2)) + draw.gauss(0, 0.01)))
        for step in range(1, intervals + 1)
    }
    state = STATES[reason]
    best = max(reports, key=lambda step: reports[step], default=None)
    attrs: dict[str, object] = {}
    if reason is not None:
        attrs = {
            "reason": reason,
            "best_value": None if best is None else reports[best],
            "best_interval": best,
            "intervals": intervals,
            "seconds": 0.25 * intervals,
            "parameters": 1000,
        }
    if reason == "failed":
        attrs["error"] = "Traceback (most recent call last):\n  ...\nValueError: the user's model is broken"
    value = (
        None if best is None or not state.is_finished() else reports[best if state.name == "COMPLETE" else intervals]
    )
    if reason == "diverged":
        value = 0.0
    trial = create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: SPACE[name] for name in params},
        intermediate_values=reports,
        user_attrs=attrs,
    )
    trial.datetime_start = datetime(2026, 1, 1) + timedelta(seconds=number)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=1.5) if state.is_finished() else None
    return trial
