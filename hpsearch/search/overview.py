"""Summaries of the studies in a database, from a few queries: no study is loaded as a whole, torch is not imported.

They include studies that minimise or have several objectives, and studies made by other tools.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from hpsearch.errors import UsageError
from hpsearch.measure import Measure
from hpsearch.search.database import mask_passwords
from hpsearch.search.owner import Owner
from hpsearch.search.storage import Storage
from hpsearch.search.study_attrs import measure_from
from hpsearch.search.trial_record import DIVERGED, INFEASIBLE, REQUIRES

_REASON = models.TrialUserAttributeModel
# The conditions of `has_diverged` and `is_infeasible`, in SQL.
_DIVERGED, _INFEASIBLE = (
    select(_REASON.trial_id).where(_REASON.key == "reason", _REASON.value_json == f'"{reason}"')
    for reason in (DIVERGED, INFEASIBLE)
)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Summary of a study. `best` is the best complete trial, or None if there is none or the objectives are several.

    Trials that `diverged` are included in the complete ones in `counts`, and are never the best; `infeasible` ones are
    included in the failed ones.
    """

    name: str
    study_id: int
    directions: Sequence[StudyDirection]
    attrs: dict[str, Any]
    counts: dict[TrialState, int]
    diverged: int
    infeasible: int
    best: FrozenTrial | None

    @property
    def measure(self) -> Measure:
        """Name, direction and bounds of what the study optimises: of its first objective, if it has several."""
        return measure_from(self.attrs, maximize=self.directions[0] == StudyDirection.MAXIMIZE)

    @property
    def one_objective(self) -> bool:
        """Whether trials can be ranked."""
        return len(self.directions) == 1


def open_storage(url: str) -> Storage:
    """Connect to a database for reading. Raises UsageError if it does not exist or cannot be used."""
    return Storage(url, Owner.this_process(), create=False, exclusive=False)


def stored_names(url: str) -> list[str]:
    """Return the names of the studies in a database. Raises UsageError if it cannot be read."""
    return [study.study_name for study in open_storage(url).get_all_studies()]


def overviews(storage: Storage, name: str | None = None) -> list[Overview]:
    """Return the overviews of all studies in a storage, or of the study `name`. Raises UsageError if there is none."""
    studies = storage.get_all_studies()
    where = mask_passwords(storage.engine.url)
    if not studies:
        raise UsageError(f"{where} holds no studies yet: start one with hpsearch run")
    if name is not None:
        known = ", ".join(sorted(study.study_name for study in studies))
        studies = [study for study in studies if study.study_name == name]
        if not studies:
            raise UsageError(f"there is no study {name!r} in {where}: it has {known}")
    counts = _counts(storage)
    diverged = _ended_by(storage, TrialState.COMPLETE, _DIVERGED)
    infeasible = _ended_by(storage, TrialState.FAIL, _INFEASIBLE)
    return [
        Overview(
            name=study.study_name,
            study_id=study._study_id,
            directions=study.directions,
            attrs=study.user_attrs,
            counts=counts[study._study_id],
            diverged=diverged.get(study._study_id, 0),
            infeasible=infeasible.get(study._study_id, 0),
            best=next(iter(best_trials(storage, study._study_id, study.directions, 1)), None),
        )
        for study in studies
    ]


def _counts(storage: Storage) -> dict[int, dict[TrialState, int]]:
    trials = models.TrialModel
    query = select(trials.study_id, trials.state, func.count()).group_by(trials.study_id, trials.state)
    counts: dict[int, dict[TrialState, int]] = defaultdict(dict)
    with Session(storage.engine) as session:
        for study_id, state, count in session.execute(query):
            counts[study_id][state] = count
    return counts


def _ended_by(storage: Storage, state: TrialState, trial_ids: Select[Any]) -> dict[int, int]:
    trials = models.TrialModel
    query = (
        select(trials.study_id, func.count())
        .where(trials.state == state, trials.trial_id.in_(trial_ids))
        .group_by(trials.study_id)
    )
    with Session(storage.engine) as session:
        return dict(session.execute(query).all())


def best_trials(storage: Storage, study_id: int, directions: Sequence[StudyDirection], count: int) -> list[FrozenTrial]:
    """Return the `count` best complete trials, equal ones by number; none if the study has several objectives."""
    if len(directions) != 1:
        return []
    trials, values = models.TrialModel, models.TrialValueModel
    # Optuna stores an infinite value as a type, without a number.
    infinite = case(
        (values.value_type == values.TrialValueType.INF_POS, 1),
        (values.value_type == values.TrialValueType.INF_NEG, -1),
        else_=0,
    )
    keys = (infinite, values.value)
    order = [key if directions[0] == StudyDirection.MINIMIZE else key.desc() for key in keys]
    query = (
        select(trials.trial_id)
        .join(values, values.trial_id == trials.trial_id)
        .where(trials.study_id == study_id, trials.state == TrialState.COMPLETE, values.objective == 0)
        .where(trials.trial_id.not_in(_DIVERGED))
        .order_by(*order, trials.number)
        .limit(count)
    )
    return _trials(storage, query)


def last_failed(storage: Storage, study_id: int, count: int) -> list[FrozenTrial]:
    """Return the last `count` failed trials, ordered by number; infeasible ones are left out."""
    trials = models.TrialModel
    query = (
        select(trials.trial_id)
        .where(trials.study_id == study_id, trials.state == TrialState.FAIL)
        .where(trials.trial_id.not_in(_INFEASIBLE))
        .order_by(trials.number.desc())
        .limit(count)
    )
    return _trials(storage, query)[::-1]


def unmet_requirements(storage: Storage, study_id: int) -> dict[str, int]:
    """Return how many infeasible trials of a study did not meet each requirement."""
    trials, attrs = models.TrialModel, models.TrialUserAttributeModel
    query = (
        select(attrs.value_json, func.count())
        .join(trials, trials.trial_id == attrs.trial_id)
        .where(trials.study_id == study_id, attrs.key == "error", attrs.trial_id.in_(_INFEASIBLE))
        .group_by(attrs.value_json)
    )
    with Session(storage.engine) as session:
        return {str(json.loads(text)).removeprefix(REQUIRES): count for text, count in session.execute(query)}


def _trials(storage: Storage, query: Select[Any]) -> list[FrozenTrial]:
    with Session(storage.engine) as session:
        trial_ids = session.scalars(query).all()
    return [storage.get_trial(int(trial_id)) for trial_id in trial_ids]
