"""A plain Optuna objective that uses the same components as a run, for notebooks and `study.optimize`.

    objective = make_objective(study, data, "runs/notebook")
    made = optuna.create_study(study_name="notebook", storage="sqlite:///hpsearch.db", direction="maximize")
    made.optimize(objective, n_trials=20)

If the study's name is that of the folder, as here, `open_results(..., name="notebook")` and `hpsearch report` find it.
It has no workers, retries or queue: trials are trained in the calling process, one at a time, each from the start.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import optuna

from hpsearch.datasets import Dataset
from hpsearch.errors import HpsearchError, UsageError
from hpsearch.executors import Died, Ended, InlineExecutor, Outcome, Reported, Task
from hpsearch.executors.trial_files import remove_resume_points, trial_folder
from hpsearch.search.study_attrs import MEASURE, measure_attr
from hpsearch.search.trial_record import REQUIRES, attrs_of, final_value
from hpsearch.search.trial_space import TrialSpace
from hpsearch.seeding import trial_seed
from hpsearch.study import Study


def make_objective(
    study: Study, data: Dataset, folder: str | Path, *, seed: int = 0, device: str = "cpu"
) -> Callable[[optuna.Trial], float]:
    """Return a function of an Optuna trial that trains it and returns the best value of the study's measure.

    It reports the measure of the validation examples after each interval, raises `optuna.TrialPruned` if Optuna prunes
    the trial or its params do not meet a requirement of the recipe, and writes best weights and history to
    `folder/<trial number>`, replacing files of another study. For a trial that diverges, it returns the worst value.
    The function raises UsageError for an Optuna study of another direction or with several objectives, and
    HpsearchError with the traceback if training fails.
    """
    folder = Path(folder)

    def objective(trial: optuna.Trial) -> float:
        direction = "maximize" if study.measure.maximize else "minimize"
        if trial.study.directions != [optuna.study.StudyDirection[direction.upper()]]:
            raise UsageError(
                f"study {trial.study.study_name}: the objective is {study.measure.name}: create the study with "
                f'direction="{direction}"'
            )
        if MEASURE not in trial.study.user_attrs:
            trial.study.set_user_attr(MEASURE, measure_attr(study.measure))
        space = TrialSpace(trial)
        try:
            study.trace(space)
        except Exception:
            if space.unmet is None:
                raise
        if space.unmet is not None:
            _store(trial, Outcome(reason="infeasible", error=f"{REQUIRES}{space.unmet}"))
            raise optuna.TrialPruned(f"{REQUIRES}{space.unmet}")
        task = Task(
            number=trial.number,
            params=space.params,
            seed=trial_seed(seed, trial.number),
            folder=trial_folder(folder, trial.number),
            identity=f"{trial.study.study_name}/{trial.number}",
            device=device,
        )
        # Another study with the same name may have left files of this number.
        remove_resume_points(task.folder)
        with contextlib.closing(InlineExecutor(study, data)) as executor:
            executor.submit(task)
            outcome = _train(executor, trial)
        _store(trial, outcome)
        if outcome.reason == "failed":
            raise HpsearchError(outcome.error or "the training failed")
        remove_resume_points(task.folder)
        if outcome.reason == "pruned":
            raise optuna.TrialPruned(outcome.reason)
        value = final_value(outcome, {}, study.measure.worst)
        assert value is not None
        return value

    return objective


def _store(trial: optuna.Trial, outcome: Outcome) -> None:
    for name, value in attrs_of(outcome).items():
        trial.set_user_attr(name, value)


def _train(executor: InlineExecutor, trial: optuna.Trial) -> Outcome:
    while True:
        for event in executor.events(0.0):
            if isinstance(event, Reported):
                trial.report(event.report.value, event.report.interval)
                executor.reply(trial.number, "prune" if trial.should_prune() else "continue")
            elif isinstance(event, Ended):
                return event.outcome
            elif isinstance(event, Died):
                raise HpsearchError(event.why)
