"""One study's results in Python: the frames, models and data that the reports use.

results = open_results("lenet")
results.trials.sort_values("value")
model = results.model(results.best)
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.study import StudyDirection
from torch import nn

from hpsearch import checkpoint
from hpsearch.datasets import Dataset
from hpsearch.defaults import default_runs, default_storage
from hpsearch.errors import CheckpointError, UsageError
from hpsearch.executors.trial_files import BEST_WEIGHTS
from hpsearch.measure import Measure
from hpsearch.own_run import OwnRun
from hpsearch.own_training import Training
from hpsearch.results.tables import history_frame, trials_frame
from hpsearch.search.stored_study import StoredStudy, open_to_read
from hpsearch.search.study_attrs import MEASURE
from hpsearch.seeding import trial_seed
from hpsearch.study import Recipe, StudyFile, load_study
from hpsearch.training import load_weights


class Results:
    """A study in a storage together with its study file."""

    def __init__(self, study_file: StudyFile, stored: StoredStudy) -> None:
        self.study_file = study_file
        self.stored = stored
        self.study = study_file.study

    @property
    def measure(self) -> Measure:
        """What the study optimises."""
        measure: Measure = self.study.measure
        return measure

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial (see `trials_frame`)."""
        return trials_frame(self.stored)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per interval (see `history_frame`)."""
        # The measure of the study file: another tool's study does not say what its values are.
        return history_frame(self.stored, self.measure)

    @cached_property
    def data(self) -> Dataset:
        """The study's data set, test split included."""
        return self.study.load_data()

    @property
    def best(self) -> int:
        """The number of the complete trial with the best value, the earliest of equals.

        Raises UsageError when no trial is complete.
        """
        trial = self.stored.best_trial()
        if trial is None:
            raise UsageError(f"study {self.stored.name} has no complete trial yet: hpsearch run finishes some")
        return trial.number

    def model(self, number: int) -> nn.Module:
        """Return a trial's model with its best weights, on the CPU, in evaluation mode.

        Raises UsageError if there is no such trial or its weights are gone or damaged, or the recipe returns a
        `Training`, which `training` gives.
        """
        recipe, state = self._best_of(number)
        if not isinstance(recipe, Recipe):
            raise UsageError(f"trial {number} is of a Training: results.training({number}) gives it")
        load_weights(recipe.model, state)
        return recipe.model.eval()

    def training(self, number: int) -> Training:
        """Return a trial's own `Training`, started on the CPU, in its best state. Raises UsageError as `model` does."""
        recipe, state = self._best_of(number)
        if not isinstance(recipe, Training):
            raise UsageError(f"trial {number} is of a Recipe: results.model({number}) gives its model")
        params = self.stored.optuna_study().get_trials(deepcopy=False)[number].params
        seed = trial_seed(self.stored.seed, number)
        training = OwnRun(self.study, params, self.data.without_test(), seed=seed).training
        training.load_state_dict(state)
        return training

    def _best_of(self, number: int) -> tuple[Recipe | Training, dict[str, Any]]:
        """Return what the recipe gives at a trial's params, and the best state."""
        path = self.stored.trial_folder(number) / BEST_WEIGHTS
        if number not in self.trials.index:
            raise UsageError(f"study {self.stored.name} has no trial {number}")
        try:
            state = checkpoint.load(path)
        except FileNotFoundError as error:
            raise UsageError(f"trial {number} has no weights at {path} (--keep-best removes them)") from error
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        return self.study.replay(state["params"]), state["model"]


def open_results(
    study: str, *, name: str | None = None, storage: str | None = None, runs: str | Path | None = None
) -> Results:
    """Open the results of a study file (by name or path), stored as `name` (by default the file's).

    `storage` and `runs` default to what the commands take: `$HPSEARCH_STORAGE` or `sqlite:///hpsearch.db`, and
    `$HPSEARCH_RUNS` or `runs`. Raises UsageError if there is no such file, storage, or study in it, and for a study
    of another direction than the study file's measure, or with several objectives.
    """
    study_file = load_study(study)
    storage = storage or default_storage()
    runs = Path(runs or default_runs())
    stored = open_to_read(storage, name or study_file.name, runs)
    measure, directions = study_file.study.measure, stored.storage.get_study_directions(stored.study_id)
    if directions != [StudyDirection.MAXIMIZE if measure.maximize else StudyDirection.MINIMIZE]:
        verb = "maximises" if directions[0] == StudyDirection.MAXIMIZE else "minimises"
        what = verb if len(directions) == 1 else f"has {len(directions)} objectives"
        raise UsageError(
            f"study {stored.name} {what}, and the measure of {study_file.path.name} is {measure}: give another --name "
            f"or study file; hpsearch dashboard shows it"
        )
    # What another tool's study is about is not known.
    if MEASURE in stored.user_attrs() and stored.measure.name != measure.name:
        raise UsageError(
            f"study {stored.name} is of {stored.measure}, and the measure of {study_file.path.name} is {measure}: undo "
            f"the change, or give the --name of another study"
        )
    return Results(study_file, stored)
