"""A plain Optuna objective made of the same pieces as a run, for notebooks and `study.optimize`.

    objective = make_objective(study, data, Path("runs/notebook"))
    optuna.create_study(direction="maximize").optimize(objective, n_trials=20)

It has no workers, retries or queue; trials train in the calling process, one after the other.
"""

from collections.abc import Callable
from pathlib import Path

import optuna

from hpsearch.datasets import Dataset
from hpsearch.errors import HpsearchError
from hpsearch.executors import Ended, InlineExecutor, Reported, Task
from hpsearch.search.space import TrialSpace
from hpsearch.study import Study
from hpsearch.training import derive_seed


def make_objective(
    study: Study, data: Dataset, folder: Path, *, seed: int = 0, device: str = "cpu"
) -> Callable[[optuna.Trial], float]:
    """Return a function of an Optuna trial that trains it and returns its best validation accuracy.

    It reports the validation accuracy of every interval, raises `optuna.TrialPruned` when Optuna says so, and leaves
    best weights and history in `folder/<trial number>`. Raises HpsearchError with the traceback if training fails.
    """

    def objective(trial: optuna.Trial) -> float:
        space = TrialSpace(trial)
        study.trace(space)
        executor = InlineExecutor(study, data)
        executor.submit(
            Task(
                number=trial.number,
                params=space.params,
                seed=derive_seed(seed, "trial", trial.number),
                folder=folder / str(trial.number),
                identity=f"{trial.study.study_name}/{trial.number}",
                device=device,
            )
        )
        while True:
            for event in executor.events(0.0):
                if isinstance(event, Reported):
                    trial.report(event.report.validation_accuracy, event.report.interval)
                    executor.reply(trial.number, "prune" if trial.should_prune() else "continue")
                elif isinstance(event, Ended):
                    outcome = event.outcome
                    trial.set_user_attr("reason", outcome.reason)
                    if outcome.reason == "failed" or outcome.best_value is None:
                        raise HpsearchError(outcome.error or outcome.reason)
                    if outcome.reason in ("pruned", "diverged"):
                        raise optuna.TrialPruned(outcome.reason)
                    return outcome.best_value

    return objective
