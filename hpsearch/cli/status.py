"""`hpsearch status`. It does not import torch, which would take most of the time."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hpsearch.cli.output import make_console, plain_table
from hpsearch.errors import last_line
from hpsearch.text import short

if TYPE_CHECKING:
    from hpsearch.search.overview import Overview
    from hpsearch.search.storage import Storage

# How many trials `hpsearch status --study` shows.
BEST_TRIALS, FAILED_TRIALS = 10, 3


def show_status(*, study: str | None, storage: str, runs: Path) -> None:
    """Print a line for every study in the storage, or one study with its best trials."""
    from optuna.trial import TrialState

    from hpsearch.search.overview import open_storage, overviews

    console = make_console()
    stored = open_storage(storage)
    studies = overviews(stored, study)
    # Few spaces have requirements, and a terminal has few columns.
    shown = any(one.infeasible for one in studies)
    names = ("complete", "pruned", "diverged", *(["infeasible"] if shown else []), "failed", "running", "waiting")
    table = plain_table("study", *names, "best", "trial")
    for one in studies:
        table.add_row(
            one.name,
            str(one.counts.get(TrialState.COMPLETE, 0) - one.diverged),
            str(one.counts.get(TrialState.PRUNED, 0)),
            str(one.diverged),
            *([str(one.infeasible)] if shown else []),
            str(one.counts.get(TrialState.FAIL, 0) - one.infeasible),
            *(str(one.counts.get(state, 0)) for state in (TrialState.RUNNING, TrialState.WAITING)),
            _best_value(one),
            str(one.best.number) if one.best else "-",
        )
    console.print(table)
    if study is not None:
        _show_trials(console, stored, studies[0], runs)


def _show_trials(console: Console, storage: "Storage", study: "Overview", runs: Path) -> None:
    from hpsearch.search.folders import find_folder, folder_name
    from hpsearch.search.overview import best_trials, last_failed, unmet_requirements
    from hpsearch.search.study_attrs import STUDY_ID, unit_of
    from hpsearch.search.trial_record import TrialRecord
    from hpsearch.space import counted

    unit, measure = unit_of(study.attrs), study.measure
    best = best_trials(storage, study.study_id, study.directions, BEST_TRIALS)
    if best:
        table = plain_table("best trials", measure.label, unit, "ended by", "seconds", "params")
        for trial in best:
            record = TrialRecord.of(trial, maximize=measure.maximize)
            table.add_row(
                str(trial.number),
                "-" if trial.value is None else measure.format(trial.value),
                _or_dash(record.best_interval),
                _or_dash(record.reason),
                "-" if record.seconds is None else f"{record.seconds:.1f}",
                " ".join(f"{name}={short(value)}" for name, value in trial.params.items()),
            )
        console.print()
        console.print(table)
    if len(study.directions) > 1:
        console.print(
            f"study {study.name} has {len(study.directions)} objectives, so there is no single best trial: "
            f"hpsearch dashboard shows them",
            soft_wrap=True,
        )
    if STUDY_ID in study.attrs:
        folder = find_folder(runs, study.name, study.attrs[STUDY_ID]) or runs / folder_name(study.name)
        console.print(f"\nfiles in {folder}/", soft_wrap=True)
    if study.infeasible:
        console.print(f"infeasible: {counted(unmet_requirements(storage, study.study_id))}", soft_wrap=True)
    for trial in last_failed(storage, study.study_id, FAILED_TRIALS):
        record = TrialRecord.of(trial, maximize=measure.maximize)
        console.print(f"trial {trial.number} failed: {last_line(record.error)}", soft_wrap=True)


def _best_value(study: "Overview") -> str:
    from hpsearch.search.study_attrs import STUDY_ID

    if study.best is None or study.best.value is None:
        return "-"
    value = study.measure.format(study.best.value)
    # What another tool's values are is not known.
    return value if STUDY_ID not in study.attrs else f"{study.measure.name} {value}"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
