"""Opening a study in a storage: creating it, recognising it, refusing a changed one."""

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
from hpsearch.datasets import Dataset
from hpsearch.errors import UsageError
from hpsearch.executors.task import LAST, PREVIOUS, remove_resume_points
from hpsearch.provenance import machine, versions_line
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.folders import STUDY_ID, find_folder, folder_name, make_folder, numbered
from hpsearch.search.owner import Owner
from hpsearch.search.pruners import canonical
from hpsearch.search.storage import FINISHED, Storage, shown
from hpsearch.study import StudyFile

FINGERPRINT = "hpsearch:fingerprint"
NOTE = "hpsearch:note"
RUNS = "hpsearch:runs"
# What `optuna.Study.set_metric_names` sets: else the dashboard and the plots say "Objective 0".
METRIC_NAMES = "study:metric_names"
LONGEST_NAME = 512


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
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
        complete = self.optuna_study().get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        whole = (trial for trial in complete if trial.user_attrs.get("reason") != "diverged")
        return max(whole, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    def record_run(self, study_file: StudyFile, *, sampler: str, pruner: str, device: str, workers: int) -> None:
        """Keep with the study how it is run and where, once for all runs that are alike.

        Raises UsageError if it was run with another pruner: trials that were pruned by different rules cannot be
        compared. The sampler may change, as it does for enqueued trials.
        """
        for run in self.runs():
            if canonical(run["pruner"]) != canonical(pruner):
                raise UsageError(
                    f"study {self.name} was run with --pruner {run['pruner']}, not {pruner}: give that again, or start "
                    f"a new study with --fresh or --name NAME"
                )
        self.storage.append_once(
            self.study_id,
            RUNS,
            {
                "study_file": study_file.digest,
                "sampler": sampler,
                "pruner": pruner,
                "device": device,
                "workers": workers,
                "machine": machine(device),
                "versions": versions_line(),
            },
        )

    def runs(self) -> list[dict[str, Any]]:
        """Return what `record_run` kept, the first run first."""
        found: list[dict[str, Any]] = self.storage.get_study_user_attrs(self.study_id).get(RUNS, [])
        return found

    def other_text(self, study_file: StudyFile) -> bool:
        """Whether the study was run with another text of its study file, as far as is known."""
        return any(run["study_file"] != study_file.digest for run in self.runs())

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed left in the study's folder. Raises FilesUnavailable.

        One that is killed after it stored a trial's end leaves its resume point, which nobody needs any more.
        """
        checkpoint.remove_orphans(self.folder, recursive=True)
        left = {path.parent for name in (LAST, PREVIOUS) for path in self.folder.glob(f"*/{name}")}
        if not left:
            return
        for trial in self.optuna_study().get_trials(deepcopy=False):
            if trial.state.is_finished() and (folder := self.folder / str(trial.number)) in left:
                remove_resume_points(folder, failed=trial.state == TrialState.FAIL)

    @cached_property
    def _cached(self) -> optuna.storages.BaseStorage:
        # One cache of finished trials for all Optuna study objects made of this one.
        return optuna.storages.get_storage(self.storage)


def open_for_run(
    url: str, study_file: StudyFile, data: Dataset, *, name: str, seed: int | None, runs: Path, fresh: bool = False
) -> OpenStudy:
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
    attrs = {STUDY_ID: uuid.uuid4().hex, FINGERPRINT: now} | ({NOTE: data.note} if data.note else {})
    if STUDY_ID not in storage.get_study_user_attrs(study_id) and storage.counts(study_id):
        raise UsageError(f"study {name} in {shown(url)} was made by another tool: give another --name or --storage")
    # Else the copy would write to the folder of the study it was copied from.
    storage.separate_copy(study_id, STUDY_ID, attrs[STUDY_ID])
    stored = storage.describe_once(study_id, attrs)
    before = stored[FINGERPRINT]
    if seed is None:
        now["seed"] = before["seed"]
    _refuse_changes(name, url, before, now)
    folder = make_folder(runs, name, stored[STUDY_ID])
    opened = OpenStudy(
        name=name,
        storage=storage,
        study_id=study_id,
        uid=stored[STUDY_ID],
        seed=before["seed"],
        folder=folder,
    )
    opened.remove_leftovers()
    return opened


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
) -> OpenStudy | None:
    """Return the study if it exists and has its `n_trials` finished trials, found out without loading its data.

    Raises UsageError as `open_for_run` does, but for the data set.
    """
    try:
        opened = open_to_read(url, name, runs)
    except UsageError:
        return None
    counts = opened.storage.counts(opened.study_id)
    before = opened.storage.get_study_user_attrs(opened.study_id).get(FINGERPRINT)
    if before is None or sum(counts.get(state, 0) for state in FINISHED) < n_trials:
        return None
    now = describe_study(study_file, None, before["seed"] if seed is None else seed)
    _refuse_changes(name, url, {**before, "data": {}}, now)
    opened.remove_leftovers()
    return opened


def open_to_read(url: str, name: str, runs: Path) -> OpenStudy:
    """Open an existing study to read it. Raises UsageError, naming those there are, if there is none of the name."""
    storage = Storage(url, Owner.this_process(), create=False, exclusive=False)
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name not in studies:
        raise UsageError(f"there is no study {name!r} in {shown(url)}: it has {', '.join(sorted(studies)) or 'none'}")
    attrs = studies[name].user_attrs
    uid = attrs.get(STUDY_ID, "")
    return OpenStudy(
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
