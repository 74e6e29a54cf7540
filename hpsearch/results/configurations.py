"""Configurations as JSON files, for people to read and `hpsearch retrain` to train; a digest reveals changes."""

import hashlib
import json
import re
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpsearch.checkpoint import write_atomically
from hpsearch.datasets import Dataset
from hpsearch.errors import UsageError
from hpsearch.measure import ACCURACY
from hpsearch.provenance import versions
from hpsearch.results.conditions import parse_conditions, satisfying
from hpsearch.results.results import Results
from hpsearch.results.tables import best_frame
from hpsearch.search.fingerprint import describe_study, differences
from hpsearch.search.study_attrs import FINGERPRINT
from hpsearch.seeding import trial_seed
from hpsearch.space import replay
from hpsearch.study import StudyFile, users_code
from hpsearch.text import brief

FORMAT = "hpsearch configuration 1"
_DIGEST = "digest"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A trial's params with all that is needed to train them again.

    `value` is the trial's best value of the validation `measure`, reached after interval `best_interval`. `space` and
    `data` are of the study's fingerprint, `study_digest` is the SHA-256 of the study file's text.
    """

    study: str
    trial: int
    params: dict[str, Any]
    value: float
    best_interval: int | None
    study_seed: int
    trial_seed: int
    study_file: str
    study_digest: str
    space: dict[str, str]
    data: dict[str, str]
    versions: dict[str, str]
    measure: str = ACCURACY.name

    @property
    def digest(self) -> str:
        """The SHA-256 of all fields."""
        return _digest(self.content())

    def content(self) -> dict[str, Any]:
        """Return what the file holds, without the digest; earlier versions had no other measure than accuracy."""
        content = {"format": FORMAT, **asdict(self)}
        if self.measure == ACCURACY.name:
            del content["measure"]
        return content


def best_configurations(
    results: Results, count: int, left_out: Callable[[str], None] = lambda why: None, where: str | None = None
) -> list[Configuration]:
    """Return the configurations of the best complete trials with different params, at most `count`.

    With `where`, such as "parameters < 50000", only trials that satisfy these conditions (`parse_conditions`). A trial
    whose params another tool chose may not fit the recipe: `left_out` is called with its number and the reason.
    Raises UsageError if no trial is complete, satisfies the conditions and fits, or if the study file's space is not
    the one that was searched.
    """
    stored, study_file = results.stored, results.study_file
    fingerprint = stored.user_attrs().get(FINGERPRINT)
    if fingerprint is None:
        # Another tool made the study, without a record of the space and data that were searched.
        with users_code(study_file.path):
            fingerprint = describe_study(study_file, results.data, stored.seed)
    elif changes := differences({**fingerprint, "data": {}}, describe_study(study_file, None, stored.seed)):
        raise UsageError(
            f"{study_file.path.name} has changed since study {stored.name} was run: {'; '.join(changes)}. Undo the "
            f"change, or run it as a new study (hpsearch run --fresh) and export that"
        )
    by_number = {trial.number: trial for trial in stored.optuna_study().get_trials(deepcopy=False)}
    configurations: list[Configuration] = []
    best = best_frame(results.trials, results.measure, len(results.trials))
    if where is not None and len(best):
        best = satisfying(best, parse_conditions(where, best))
    for number, row in best.iterrows():
        params = by_number[int(str(number))].params
        if any(params == earlier.params for earlier in configurations):
            continue
        if (why := _misfit(study_file, params)) is not None:
            left_out(f"trial {number} is left out: {why}")
            continue
        configurations.append(
            Configuration(
                study=stored.name,
                trial=int(str(number)),
                params=params,
                value=float(row["value"]),
                best_interval=None if pd.isna(row["best_interval"]) else int(row["best_interval"]),
                study_seed=stored.seed,
                trial_seed=trial_seed(stored.seed, int(str(number))),
                study_file=relative_path(study_file.path),
                study_digest=study_file.digest,
                space=fingerprint.get("space", {}),
                data=fingerprint.get("data", {}),
                versions=versions(),
                measure=results.measure.name,
            )
        )
        if len(configurations) == count:
            break
    if not configurations:
        raise UsageError(
            f"study {stored.name} has no complete trial to export yet: hpsearch run --study {study_file.name}"
        )
    return configurations


def _misfit(study_file: StudyFile, params: dict[str, Any]) -> str | None:
    """Return why the recipe cannot have `params`, or None."""
    try:
        replay(study_file.study.trace, params)
    except UsageError as error:
        return str(error)
    return None


def write_configuration(path: Path, configuration: Configuration) -> None:
    """Write a configuration as JSON, with its digest."""
    content = {**configuration.content(), _DIGEST: configuration.digest}
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_configuration(path: Path) -> Configuration:
    """Return what `write_configuration` wrote.

    Raises UsageError if the file is missing, truncated, not a configuration, or was changed after its export.
    """
    remedy = "write it again with hpsearch export"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): give a file that hpsearch export wrote") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is truncated or not JSON ({error}): {remedy}") from error
    fields = typing.get_type_hints(Configuration)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path} is not a configuration of this version of hpsearch: {remedy}")
    expected = content.pop(_DIGEST, None)
    if _digest(content) != expected:
        raise UsageError(f"{path} was changed after its export, its contents do not match its digest: {remedy}")
    content.setdefault("measure", ACCURACY.name)
    if missing := set(fields) ^ (set(content) - {"format"}):
        raise UsageError(f"{path} does not have the right entries ({', '.join(sorted(missing))}): {remedy}")
    for name, hint in fields.items():
        if not _fits(content[name], hint):
            raise UsageError(f"{path}: {name} cannot be {brief(content[name])}: {remedy}")
    return Configuration(**{name: content[name] for name in fields})


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of the type that a field is declared with; `Any` is any scalar."""
    if hint is Any:
        return value is None or isinstance(value, bool | int | float | str)
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(item, typing.get_args(hint)[1]) for item in value.values())
    kind = int | float if hint is float else hint
    return isinstance(value, kind) and not isinstance(value, bool)


def check_unchanged(configuration: Configuration, path: Path, study_file: StudyFile, data: Dataset) -> None:
    """Raise UsageError, naming the changes, if the study file or its data are not those of the configuration."""
    now = describe_study(study_file, data, configuration.study_seed)
    before = {"space": configuration.space, "data": configuration.data}
    changes = differences(before, {name: now[name] for name in before})
    remedy = "run it as a new study (--fresh) and export from that"
    if study_file.digest != configuration.study_digest and not changes:
        changes, remedy = ["its text differs, although its space and data are the same"], "export again"
    if changes:
        raise UsageError(
            f"{study_file.path.name} has changed since {path} was exported: {'; '.join(changes)}. "
            f"Undo the change, or {remedy}"
        )


def file_name(study: str, rank: int) -> str:
    """Return the name of the file for the `rank`-th best configuration of a study."""
    safe = re.sub(r"[^-.@+#=:\w]", "_", study)
    return f"{safe}-{rank}.json"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def relative_path(path: Path) -> str:
    """Return a path relative to the current folder if it is below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
