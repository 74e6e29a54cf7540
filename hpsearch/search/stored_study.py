"""Open a study in a storage: create it, or check that it has not changed."""

import contextlib
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpsearch import checkpoint
from hpsearch.baseline import Baseline, baseline_of
from hpsearch.datasets import Dataset
from hpsearch.errors import UsageError
from hpsearch.executors.trial_files import remove_resume_points, resume_points, trial_folder
from hpsearch.measure import Measure
from hpsearch.provenance import machine, versions_line
from hpsearch.search.database import mask_passwords
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.folders import find_folder, folder_name, make_folder, numbered
from hpsearch.search.overview import open_storage
from hpsearch.search.owner import Owner
from hpsearch.search.pruners import parse_pruner, same_pruner
from hpsearch.search.storage import FINISHED, Storage
from hpsearch.search.strategy import Strategy
from hpsearch.search.study_attrs import (
    BASELINE,
    FINGERPRINT,
    MEASURE,
    NOTE,
    RUNS,
    STUDY_ID,
    measure_attr,
    measure_from,
)
from hpsearch.search.trial_record import ranked
from hpsearch.study import StudyFile

# The attribute of `optuna.Study.set_metric_names`; without it, dashboard and plots show "Objective 0".
METRIC_NAMES = "study:metric_names"
LONGEST_NAME = 512


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study in a storage. `uid` is unique across databases; `folder` contains the files of its trials."""

    name: str
    storage: Storage
    study_id: int
    uid: str
    seed: int
    folder: Path

    def optuna_study(self, sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> optuna.Study:
        """Return a new Optuna study object, which has no trials cached."""
        return optuna.load_study(study_name=self.name, storage=self._cached, sampler=sampler, pruner=pruner)

    def best_trial(self) -> FrozenTrial | None:
        """Return the complete trial with the best value, the earliest of equal ones, or None if there is none.

        A trial that diverged is complete, with the worst value, but it is never returned.
        """
        return next(iter(ranked(self.optuna_study().get_trials(deepcopy=False), self.measure)), None)

    def baseline(self) -> Baseline | None:
        """Return the baseline, or None if it is not stored."""
        attrs = self.user_attrs().get(BASELINE)
        return None if attrs is None else Baseline.from_dict(attrs)

    @cached_property
    def measure(self) -> Measure:
        """Name, direction and bounds of what the study optimises: of its first objective, if it has several."""
        directions = self.storage.get_study_directions(self.study_id)
        return measure_from(self.user_attrs(), maximize=directions[0] == StudyDirection.MAXIMIZE)

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's files."""
        return trial_folder(self.folder, number)

    def user_attrs(self) -> dict[str, Any]:
        """Return the study's user attributes."""
        return self.storage.get_study_user_attrs(self.study_id)

    def record_run(self, study_file: StudyFile, strategy: Strategy, *, device: str, workers: int) -> None:
        """Store with the study how and where it is run, once for identical runs.

        Raises UsageError if it was run with another pruner: trials that were pruned by different rules cannot be
        compared. The sampler may change, as it does for enqueued trials.
        """
        for run in self.runs():
            if not same_pruner(parse_pruner(run["pruner"]), strategy.pruner):
                raise UsageError(
                    f"study {self.name} was run with --pruner {run['pruner']}, not {strategy.pruner}: give the "
                    f"same one again, or start a new study with --fresh or --name NAME"
                )
        self.storage.append_once(
            self.study_id,
            RUNS,
            {
                "study_file": study_file.digest,
                "sampler": str(strategy.sampler),
                "pruner": str(strategy.pruner),
                "device": device,
                "workers": workers,
                "machine": machine(device),
                "versions": versions_line(),
            },
        )

    def finished(self) -> int:
        """Return how many trials are finished: complete or pruned."""
        counts = self.storage.counts(self.study_id)
        return sum(counts.get(state, 0) for state in FINISHED)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that `record_run` stored, in their order."""
        runs: list[dict[str, Any]] = self.user_attrs().get(RUNS, [])
        return runs

    def other_text(self, study_file: StudyFile) -> bool:
        """Whether the study was run with a different version of its study file, as far as recorded."""
        return any(run["study_file"] != study_file.digest for run in self.runs())

    def remove_leftovers(self) -> None:
        """Remove files that killed processes left in the study's folder. Raises FilesUnavailable.

        These include resume points of trials whose outcome is already stored.
        """
        checkpoint.remove_orphans(self.folder, recursive=True)
        left = {path.parent for path in resume_points(self.folder)}
        if not left:
            return
        for trial in self.optuna_study().get_trials(deepcopy=False):
            if trial.state.is_finished() and (folder := self.trial_folder(trial.number)) in left:
                remove_resume_points(folder, failed=trial.state == TrialState.FAIL)

    @cached_property
    def _cached(self) -> optuna.storages.BaseStorage:
        # All Optuna study objects created by this one share a cache of finished trials.
        return optuna.storages.get_storage(self.storage)


def open_for_run(
    url: str, study_file: StudyFile, data: Dataset, *, name: str, seed: int | None, runs: Path, fresh: bool = False
) -> StoredStudy:
    """Open the study `name` to run it, creating database, study and folder if necessary.

    With `fresh`, the first free name of `name`, `name.2`, `name.3`, ... is created. Without a seed, the stored one is
    used, or that of the study file. Raises UsageError if the name is not valid, or the stored study was made from
    another space, data set, direction or seed, and FilesUnavailable if its folder cannot be created.
    """
    check_name(name)
    storage = Storage(url, Owner.this_process())
    existing = {study.study_name: study for study in storage.get_all_studies()}
    measure = study_file.study.measure
    direction = StudyDirection.MAXIMIZE if measure.maximize else StudyDirection.MINIMIZE
    if fresh:
        name = next(candidate for candidate in numbered(name) if candidate not in existing)
    if name not in existing:
        # Another supervisor may create it first.
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            created = storage.create_new_study([direction], name)
            storage.set_study_system_attr(created, METRIC_NAMES, [measure.label])
    elif existing[name].directions != [direction]:
        verb = "maximise" if measure.maximize else "minimise"
        raise UsageError(
            f"study {name} in {mask_passwords(url)} does not {verb} its objective, as the measure "
            f"{measure.name} needs: give another --name, or start a new study with --fresh"
        )
    study_id = storage.get_study_id_from_name(name)
    now = describe_study(study_file, data, study_file.study.seed if seed is None else seed)
    attrs: dict[str, Any] = {STUDY_ID: uuid.uuid4().hex, FINGERPRINT: now, MEASURE: measure_attr(measure)}
    if data.note:
        attrs[NOTE] = data.note
    if (baseline := baseline_of(data, measure)) is not None:
        attrs[BASELINE] = baseline.as_dict()
    if STUDY_ID not in storage.get_study_user_attrs(study_id) and storage.counts(study_id):
        raise UsageError(
            f"study {name} in {mask_passwords(url)} was made by another tool: give another --name or --storage"
        )
    # Otherwise a copy would write to the folder of the original study.
    storage.separate_copy(study_id, STUDY_ID, attrs[STUDY_ID])
    stored_attrs = storage.set_attrs_once(study_id, attrs)
    before = stored_attrs[FINGERPRINT]
    if seed is None:
        now["seed"] = before["seed"]
    _refuse_changes(name, url, before, now)
    folder = make_folder(runs, name, stored_attrs[STUDY_ID])
    stored = StoredStudy(
        name=name,
        storage=storage,
        study_id=study_id,
        uid=stored_attrs[STUDY_ID],
        seed=before["seed"],
        folder=folder,
    )
    stored.remove_leftovers()
    return stored


def check_name(name: str) -> str:
    """Return the name of a study. Raises UsageError if it is not valid."""
    if not name.isprintable() or len(name) > LONGEST_NAME:
        quoted = repr(name if len(name) <= 40 else f"{name[:40]}...")
        raise UsageError(
            f"--name {quoted}: give a study name of at most {LONGEST_NAME} characters, all of them printable"
        )
    return name


def finished_already(
    url: str, study_file: StudyFile, *, name: str, seed: int | None, runs: Path, n_trials: int
) -> StoredStudy | None:
    """Return the study if it has `n_trials` finished trials, else None; its data are not loaded.

    Raises UsageError as `open_for_run` does, except for another data set.
    """
    try:
        stored = open_to_read(url, name, runs)
    except UsageError:
        return None
    before = stored.user_attrs().get(FINGERPRINT)
    if before is None or stored.finished() < n_trials:
        return None
    now = describe_study(study_file, None, before["seed"] if seed is None else seed)
    _refuse_changes(name, url, {**before, "data": {}}, now)
    stored.remove_leftovers()
    return stored


def open_to_read(url: str, name: str, runs: Path) -> StoredStudy:
    """Open an existing study for reading. Raises UsageError, listing the existing studies, if there is none `name`."""
    storage = open_storage(url)
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name not in studies:
        raise UsageError(
            f"there is no study {name!r} in {mask_passwords(url)}: it has {', '.join(sorted(studies)) or 'none'}"
        )
    attrs = studies[name].user_attrs
    uid = attrs.get(STUDY_ID, "")
    return StoredStudy(
        name=name,
        storage=storage,
        study_id=studies[name]._study_id,
        uid=uid,
        seed=attrs.get(FINGERPRINT, {}).get("seed", 0),
        folder=find_folder(runs, name, uid) or runs / folder_name(name),
    )


def _refuse_changes(name: str, url: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    if changes := differences(before, now):
        raise UsageError(
            f"study {name} in {mask_passwords(url)} was made differently: {'; '.join(changes)}. "
            f"Undo the change, or start a new study with --fresh or --name NAME"
        )
