"""Opening a study in a storage: creating it, recognising it, refusing a changed one."""

import contextlib
import uuid
from dataclasses import asdict, dataclass
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
from hpsearch.provenance import machine, versions_line
from hpsearch.search.database import shown
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.folders import find_folder, folder_name, make_folder, numbered
from hpsearch.search.owner import Owner
from hpsearch.search.pruners import parse_pruner, same_pruner
from hpsearch.search.storage import FINISHED, Storage
from hpsearch.search.strategy import Strategy
from hpsearch.search.study_attrs import BASELINE, FINGERPRINT, NOTE, RUNS, STUDY_ID
from hpsearch.search.trial_record import ranked
from hpsearch.study import StudyFile

# What `optuna.Study.set_metric_names` sets: else the dashboard and the plots say "Objective 0".
METRIC_NAMES = "study:metric_names"
LONGEST_NAME = 512


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study in a storage. `uid` tells it from others of its name elsewhere; `folder` holds its trials' files."""

    name: str
    storage: Storage
    study_id: int
    uid: str
    seed: int
    folder: Path

    def optuna_study(self, sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> optuna.Study:
        """Return a new Optuna study object, which has not cached any trials yet."""
        return optuna.load_study(study_name=self.name, storage=self._cached, sampler=sampler, pruner=pruner)

    def best_trial(self) -> FrozenTrial | None:
        """Return the complete trial with the highest value, the earliest of equals, or None if none is complete.

        One that diverged is complete, with the worst value, and never the best.
        """
        return next(iter(ranked(self.optuna_study().get_trials(deepcopy=False))), None)

    def baseline(self) -> Baseline | None:
        """Return the accuracy of always giving the same answer, where it is known."""
        attrs = self.user_attrs().get(BASELINE)
        return None if attrs is None else Baseline(**attrs)

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial's files."""
        return trial_folder(self.folder, number)

    def user_attrs(self) -> dict[str, Any]:
        """Return the study's user attributes."""
        return self.storage.get_study_user_attrs(self.study_id)

    def record_run(self, study_file: StudyFile, strategy: Strategy, *, device: str, workers: int) -> None:
        """Keep with the study how it is run and where, once for all runs that are alike.

        Raises UsageError if it was run with another pruner: trials that were pruned by different rules cannot be
        compared. The sampler may change, as it does for enqueued trials.
        """
        for run in self.runs():
            if not same_pruner(parse_pruner(run["pruner"]), strategy.pruner):
                raise UsageError(
                    f"study {self.name} was run with --pruner {run['pruner']}, not {strategy.pruner}: give that again, "
                    f"or start a new study with --fresh or --name NAME"
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
        """Return what `record_run` kept, the first run first."""
        found: list[dict[str, Any]] = self.user_attrs().get(RUNS, [])
        return found

    def other_text(self, study_file: StudyFile) -> bool:
        """Whether the study was run with another text of its study file, as far as is known."""
        return any(run["study_file"] != study_file.digest for run in self.runs())

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed left in the study's folder. Raises FilesUnavailable.

        One that is killed after it stored a trial's end leaves its resume point, which nobody needs any more.
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
        # One cache of finished trials for all Optuna study objects made of this one.
        return optuna.storages.get_storage(self.storage)


def open_for_run(
    url: str, study_file: StudyFile, data: Dataset, *, name: str, seed: int | None, runs: Path, fresh: bool = False
) -> StoredStudy:
    """Open the study `name` to run it, creating database, study and folder where there are none.

    With `fresh`, the first free of `name`, `name.2`, `name.3`, … is created. Without a seed, the stored one holds, or
    the study file's. Raises UsageError if no study can have this name, or the stored one was made from another space,
    data set, direction or seed, and FilesUnavailable if its folder cannot be made.
    """
    check_name(name)
    storage = Storage(url, Owner.this_process())
    existing = {study.study_name: study for study in storage.get_all_studies()}
    if fresh:
        name = next(candidate for candidate in numbered(name) if candidate not in existing)
    if name not in existing:
        # Another supervisor may be faster.
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            created = storage.create_new_study([StudyDirection.MAXIMIZE], name)
            storage.set_study_system_attr(created, METRIC_NAMES, ["validation accuracy"])
    elif existing[name].directions != [StudyDirection.MAXIMIZE]:
        raise UsageError(f"study {name} in {shown(url)} is not a maximisation: give another --name")
    study_id = storage.get_study_id_from_name(name)
    now = describe_study(study_file, data, study_file.study.seed if seed is None else seed)
    attrs: dict[str, Any] = {STUDY_ID: uuid.uuid4().hex, FINGERPRINT: now}
    if data.note:
        attrs[NOTE] = data.note
    if (baseline := baseline_of(data)) is not None:
        attrs[BASELINE] = asdict(baseline)
    if STUDY_ID not in storage.get_study_user_attrs(study_id) and storage.counts(study_id):
        raise UsageError(f"study {name} in {shown(url)} was made by another tool: give another --name or --storage")
    # Else the copy would write to the folder of the study it was copied from.
    storage.separate_copy(study_id, STUDY_ID, attrs[STUDY_ID])
    held = storage.set_attrs_once(study_id, attrs)
    before = held[FINGERPRINT]
    if seed is None:
        now["seed"] = before["seed"]
    _refuse_changes(name, url, before, now)
    folder = make_folder(runs, name, held[STUDY_ID])
    stored = StoredStudy(
        name=name,
        storage=storage,
        study_id=study_id,
        uid=held[STUDY_ID],
        seed=before["seed"],
        folder=folder,
    )
    stored.remove_leftovers()
    return stored


def check_name(name: str) -> str:
    """Return a study's name. Raises UsageError if a database cannot hold it."""
    if not name.isprintable() or len(name) > LONGEST_NAME:
        shown_name = repr(name if len(name) <= 40 else f"{name[:40]}...")
        raise UsageError(
            f"--name {shown_name}: give a study's name of at most {LONGEST_NAME} characters, all of them printable"
        )
    return name


def finished_already(
    url: str, study_file: StudyFile, *, name: str, seed: int | None, runs: Path, n_trials: int
) -> StoredStudy | None:
    """Return the study if it exists and has its `n_trials` finished trials, found out without loading its data.

    Raises UsageError as `open_for_run` does, but for the data set.
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
    """Open an existing study to read it. Raises UsageError, naming those there are, if there is none of the name."""
    storage = Storage(url, Owner.this_process(), create=False, exclusive=False)
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name not in studies:
        raise UsageError(f"there is no study {name!r} in {shown(url)}: it has {', '.join(sorted(studies)) or 'none'}")
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
            f"study {name} in {shown(url)} was made differently: {'; '.join(changes)}. "
            f"Undo the change, or start a new study with --fresh or --name NAME"
        )
