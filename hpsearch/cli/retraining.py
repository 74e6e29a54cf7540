"""`hpsearch export` and `hpsearch retrain`."""

import shlex
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hpsearch.cli.arguments import as_typed, check_device, default_workers, output_folder, set_data_folder
from hpsearch.cli.output import frame_table, make_console
from hpsearch.datasets import length
from hpsearch.errors import HpsearchError, UsageError, last_line
from hpsearch.executors import Executor, InlineExecutor, LocalExecutor, Outcome, time_to_load
from hpsearch.results import markdown
from hpsearch.results.card import export_program, write_model
from hpsearch.results.export import (
    Configuration,
    best_configurations,
    check_unchanged,
    file_name,
    read_configuration,
    shown_path,
    write_configuration,
)
from hpsearch.results.retrain import candidates_frame, confirm, evaluate_once, luck, train_finally
from hpsearch.results.study import open_results
from hpsearch.search.folders import folder_name
from hpsearch.search.pruners import most_intervals
from hpsearch.study import load_study, users_code
from hpsearch.study_files import digest, find_study, studies_folder
from hpsearch.text import brief, duration
from hpsearch.training import EpochReport


def export_best(*, study: str, name: str | None, top: int, storage: str, runs: Path, out: Path) -> None:
    """Write the best configurations of a study as JSON files."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = open_results(study, name=name, storage=storage, runs=runs)
    console = make_console(stderr=True)
    found = best_configurations(results, top, lambda why: console.print(f"hpsearch: {why}", soft_wrap=True))
    if results.opened.other_text(results.study_file):
        console.print(
            f"hpsearch: {results.study_file.path.name} was changed since trials of {results.opened.name} were run; its "
            f"space is the same, and what else was changed is exported as it is now",
            soft_wrap=True,
        )
    folder = output_folder(out)
    paths = [folder / file_name(configuration.study, rank) for rank, configuration in enumerate(found, start=1)]
    folder.mkdir(parents=True, exist_ok=True)
    for path, configuration in zip(paths, found, strict=True):
        write_configuration(path, configuration)
        print(f"{path}  trial {configuration.trial}, validation accuracy {configuration.value:.4f}")
    if len(found) < top:
        console.print(
            f"hpsearch: the study has only {len(found)} different complete configuration{'s' * (len(found) != 1)}",
            soft_wrap=True,
        )
    file = results.study_file.path
    # Only a file in the studies folder is found again by its name.
    named = [] if file.parent == studies_folder().resolve() else ["--study", shown_path(file)]
    print(f"Next        {shlex.join(['hpsearch', 'retrain', *map(str, paths), *named])}", flush=True)


def retrain(
    *,
    configurations: Sequence[Path],
    study: str | None,
    seeds: int,
    runs: Path,
    data: Path | None,
    workers: int | None,
    device: str,
    out: Path | None,
) -> int:
    """Confirm the candidates, train the best one finally, test it once, write it; return the exit code."""
    console = make_console(stderr=True)
    set_data_folder(data)
    candidates = [read_configuration(path) for path in configurations]
    _check_together(configurations, candidates)
    device = check_device(device)
    began = time.monotonic()
    path = find_study(study) if study is not None else _study_path(configurations[0], candidates[0])
    console.print(f"hpsearch: running the study file {path}", soft_wrap=True)
    study_file = load_study(str(path.absolute()))
    with users_code(study_file.path):
        dataset = study_file.study.load_data()
        intervals = most_intervals(study_file.study, length(dataset.train))
    load_seconds = time.monotonic() - began
    for path, candidate in zip(configurations, candidates, strict=True):
        check_unchanged(candidate, path, study_file, dataset)
    if dataset.test is None:
        raise UsageError(f"the data set of {study_file.path.name} has no test split to evaluate the final model on")
    folder = output_folder(out or Path("reports") / folder_name(candidates[0].study) / "retrain")

    workers = min(default_workers(device) if workers is None else workers, len(candidates) * seeds)
    executor: Executor = (
        LocalExecutor(study_file, dataset, workers=workers, load_timeout=time_to_load(load_seconds))
        if workers
        else InlineExecutor(study_file.study, dataset)
    )
    progress = _Progress(console, len(candidates) * seeds, intervals)
    try:
        with closing(executor), progress:
            confirmed = confirm(
                candidates,
                seeds,
                executor,
                runs / folder_name(f"{candidates[0].study}.retrain"),
                device=device,
                reported=progress.reported,
                ended=progress.ended,
            )
    except KeyboardInterrupt:
        console.print(f"hpsearch: interrupted; what is trained is kept: {as_typed()}", soft_wrap=True)
        return 130
    ranking = candidates_frame(candidates, confirmed)
    best = ranking.iloc[0]
    winner = candidates[int(best["candidate"]) - 1]
    make_console().print(frame_table(_shown(ranking, configurations)))
    print(f"\n{luck(float(best['searched']), float(best['mean']), float(best['sd']), int(best['seeds']))}", flush=True)

    with progress:
        run = train_finally(
            study_file.study, winner, dataset, int(best["intervals"]), device=device, reported=progress.finally_reported
        )
    # Before the test set is used, which is not to be used again when this fails.
    program = export_program(run.model, dataset.test)
    evaluation = evaluate_once(run.model, dataset)
    write_model(
        folder,
        winner,
        run,
        dataset,
        candidates=ranking,
        confirmed=confirmed,
        evaluation=evaluation,
        program=program,
        command=as_typed(),
        device=device,
    )
    print(
        f"\nTest        {evaluation.accuracy:.2%} of {evaluation.examples:,} examples "
        f"(95 % interval {evaluation.low:.2%} to {evaluation.high:.2%})\n"
        f"Written     {folder}/card.md, model.pt,{' model.pt2,' * (program.error is None)} confusion.png and tables",
        flush=True,
    )
    if program.error is not None:
        raise HpsearchError(f"all is written but the exported program: {program.error}")
    return 0


def _check_together(paths: Sequence[Path], candidates: Sequence[Configuration]) -> None:
    """Raise UsageError if candidates cannot be compared, or one is given twice."""
    first = candidates[0]
    for path, candidate in zip(paths[1:], candidates[1:], strict=True):
        if (candidate.study_file, candidate.study_digest, candidate.data) != (
            first.study_file,
            first.study_digest,
            first.data,
        ):
            raise UsageError(
                f"{paths[0]} and {path} come from different studies ({first.study_file}, {candidate.study_file}) or "
                f"data: retrain them one at a time"
            )
    for index, candidate in enumerate(candidates):
        if candidate in candidates[:index]:
            raise UsageError(f"{paths[index]} is the same as {paths[candidates.index(candidate)]}: give it once")


def _study_path(path: Path, configuration: Configuration) -> Path:
    """Return the file in the studies folder that a configuration was exported from.

    A configuration may come from elsewhere, and so does not decide what is run: the file is the one of that name in
    the user's own folder, and has the same text. Raises UsageError if there is none.
    """
    found = studies_folder() / Path(configuration.study_file).name
    if not found.is_file():
        raise UsageError(
            f"{path} is of the study file {brief(configuration.study_file)}, and there is no {found}: give --study FILE"
        )
    if digest(found.read_bytes()) != configuration.study_digest:
        raise UsageError(
            f"{found} does not have the text that {path} was exported from: undo the change, export again, or have "
            f"--study {found} say what has changed"
        )
    return found


def _shown(ranking: pd.DataFrame, paths: Sequence[Path]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "candidate": [str(paths[candidate - 1]) for candidate in ranking["candidate"]],
            "searched": [f"{value:.4f}" for value in ranking["searched"]],
            "confirmed": [markdown.mean_sd(mean, sd) for mean, sd in zip(ranking["mean"], ranking["sd"], strict=True)],
            "seeds": ranking["seeds"],
            "failed": ranking["failed"],
            "best interval": [f"{interval:.0f}" for interval in ranking["intervals"]],
        }
    )


class _Progress:
    """One line a finished training; on a terminal a bar with the time left, in a pipe a line an interval at the end."""

    def __init__(self, console: Console, trainings: int, intervals: int) -> None:
        self._console = console
        self._trainings, self._intervals = trainings, intervals
        self._done = 0
        self._running: dict[tuple[int, int], float] = {}
        self._began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("confirming", total=trainings)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def reported(self, candidate: int, seed: int, report: EpochReport) -> None:
        self._running[candidate, seed] = min(report.interval / self._intervals, 1.0)
        self._update()

    def ended(self, candidate: int, seed: int, outcome: Outcome) -> None:
        self._done += 1
        self._running.pop((candidate, seed), None)
        self._update()
        if outcome.error is None:
            said = f"best validation accuracy {outcome.best_value:.4f}"
        else:
            said = f"{outcome.reason}: {last_line(outcome.error)}"
        left = (time.monotonic() - self._began) / self._done * (self._trainings - self._done)
        count = f"{self._done}/{self._trainings}" + (f", {duration(left)} left" if left else "")
        self._console.print(f"candidate {candidate}, seed {seed}: {said}  ({count})", soft_wrap=True)

    def finally_reported(self, report: EpochReport, intervals: int) -> None:
        description = f"final training, {report.interval} of {intervals}"
        self._bar.update(self._task, description=description, total=intervals, completed=report.interval)
        if report.interval == intervals or not self._console.is_terminal:
            self._console.print(
                f"final: interval {report.interval}/{intervals}, training accuracy {report.train_accuracy:.4f}",
                soft_wrap=True,
            )

    def _update(self) -> None:
        self._bar.update(self._task, completed=self._done + sum(self._running.values()))
