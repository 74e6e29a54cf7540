"""`hpsearch retrain`."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from hpsearch.cli.arguments import as_typed, default_workers, output_folder, set_data_folder
from hpsearch.cli.output import frame_table, make_console
from hpsearch.datasets import Dataset, length
from hpsearch.devices import check_device
from hpsearch.errors import HpsearchError, UsageError
from hpsearch.executors import Executor, make_executor
from hpsearch.own_run import OwnRun
from hpsearch.progress import RetrainProgress
from hpsearch.results import markdown
from hpsearch.results.configurations import (
    Configuration,
    check_unchanged,
    read_configuration,
)
from hpsearch.results.model_card import FinalModel, write_model
from hpsearch.results.program import Program, check_onnx, check_preprocessing, export_onnx, export_program
from hpsearch.results.retrain import (
    Evaluation,
    answers_of,
    candidates_frame,
    confirm,
    evaluate_once,
    evaluate_training,
    luck,
    train_final_model,
)
from hpsearch.search.folders import folder_name
from hpsearch.search.pruners import most_intervals
from hpsearch.study import Study, StudyFile, load_study, users_code
from hpsearch.study_files import digest, find_study, studies_folder
from hpsearch.text import brief
from hpsearch.training import Run


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The options of the command."""

    configurations: Sequence[Path]
    study: str | None
    seeds: int
    runs: Path
    data: Path | None
    workers: int | None
    device: str
    out: Path | None
    onnx: bool


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The candidates, and what is needed to train them."""

    candidates: Sequence[Configuration]
    study_file: StudyFile
    data: Dataset
    load_seconds: float
    device: str
    onnx: bool


def retrain(options: RetrainOptions) -> int:
    """Confirm the candidates, train the best one, test it once, write it; return the exit code."""
    console = make_console(stderr=True)
    set_data_folder(options.data)
    if options.onnx:
        check_onnx()
    job = _load(options, console)
    candidates = job.candidates
    folder = output_folder(options.out or Path("reports") / folder_name(candidates[0].study) / "retrain")
    intervals = most_intervals(job.study_file.study, length(job.data.train))
    progress = RetrainProgress(console, len(candidates) * options.seeds, intervals, job.study_file.study)
    try:
        with closing(_executor(options, job)) as executor, progress:
            confirmed = confirm(
                candidates,
                options.seeds,
                executor,
                options.runs / folder_name(f"{candidates[0].study}.retrain"),
                device=job.device,
                reported=progress.reported,
                ended=progress.ended,
            )
    except KeyboardInterrupt:
        console.print(f"hpsearch: interrupted; all progress is saved: {as_typed()}", soft_wrap=True)
        return 130
    measure = job.study_file.study.measure
    ranking = candidates_frame(candidates, confirmed, measure)
    best = ranking.iloc[0]
    make_console().print(frame_table(_ranking_table(ranking, options.configurations, job.study_file.study)))
    figures = (float(best["searched"]), float(best["mean"]), float(best["sd"]))
    print(f"\n{luck(*figures, int(best['seeds']), measure)}", flush=True)
    with progress:
        final = _train_and_test(job, ranking, confirmed, progress)
    write_model(folder, final)
    evaluation = final.evaluation
    exported = {"model.pt2": final.program} | ({"model.onnx": final.onnx} if final.onnx else {})
    figure = "confusion.png" if evaluation.confusion is not None else None
    figure = "residuals.png" if evaluation.numbers is not None else figure
    programs = [name for name, program in exported.items() if program.error is None]
    files = ["card.md", "model.pt", *programs, *([figure] if figure else [])]
    print(
        f"\nTest        {measure.name} {evaluation.format(evaluation.value)} on {evaluation.examples:,} examples"
        f"{f' ({evaluation.bounds})' * evaluation.has_interval}\n"
        f"Written     {folder}/{', '.join(files)} and tables",
        flush=True,
    )
    for name, program in exported.items():
        # Without a model, nothing was to be exported.
        if program.error is not None and final.run.evaluated is not None:
            raise HpsearchError(f"everything is written except {name}: {program.error}")
    return 0


def _train_and_test(job: _Job, ranking: pd.DataFrame, confirmed: pd.DataFrame, progress: RetrainProgress) -> FinalModel:
    """Train the best candidate on training and validation data, and test it once."""
    best = ranking.iloc[0]
    winner = job.candidates[int(best["candidate"]) - 1]
    run = train_final_model(
        job.study_file.study,
        winner,
        job.data,
        int(best["intervals"]),
        device=job.device,
        reported=progress.finally_reported,
    )
    assert job.data.test is not None
    # Before the test set is used: if the export raises, the test set must not have been used yet.
    answers = answers_of(job.study_file.study, job.data)
    if run.evaluated is None:
        program = Program(error="this training has no torch module as its `model`")
        onnx = None
    else:
        program = export_program(
            run.evaluated, job.data, answers, study=winner.study, trial=winner.trial, params=winner.params
        )
        onnx = export_onnx(program, run.evaluated, job.data, answers) if job.onnx else None
    return FinalModel(
        configuration=winner,
        run=run,
        data=job.data,
        candidates=ranking,
        confirmed=confirmed,
        evaluation=_tested(job, run),
        program=program,
        onnx=onnx,
        command=as_typed(),
        device=job.device,
    )


def _tested(job: _Job, run: Run | OwnRun) -> Evaluation:
    study = job.study_file.study
    if isinstance(run, OwnRun):
        return evaluate_training(study, run, job.data)
    return evaluate_once(study, run.evaluated, run.loss, job.data, run.batch_size)


def _load(options: RetrainOptions, console: Console) -> _Job:
    """Read the candidates and load their study file and data. Raises UsageError."""
    paths = options.configurations
    candidates = [read_configuration(path) for path in paths]
    _check_together(paths, candidates)
    device = check_device(options.device)
    path = find_study(options.study) if options.study is not None else _study_path(paths[0], candidates[0])
    console.print(f"hpsearch: running the study file {path}", soft_wrap=True)
    study_file = load_study(str(path.absolute()))
    began = time.monotonic()
    with users_code(study_file.path):
        data = study_file.study.load_data()
        check_preprocessing(data)
    load_seconds = study_file.seconds + time.monotonic() - began
    for path, candidate in zip(paths, candidates, strict=True):
        check_unchanged(candidate, path, study_file, data)
    if data.test is None:
        raise UsageError(f"the data set of {study_file.path.name} has no test split to evaluate the final model on")
    return _Job(
        candidates=candidates,
        study_file=study_file,
        data=data,
        load_seconds=load_seconds,
        device=device,
        onnx=options.onnx,
    )


def _executor(options: RetrainOptions, job: _Job) -> Executor:
    workers = default_workers(job.device) if options.workers is None else options.workers
    trainings = len(job.candidates) * options.seeds
    return make_executor(job.study_file, job.data, min(workers, trainings), job.load_seconds)


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

    A configuration may come from an untrusted source, so it does not decide what code is run: the file is the one of
    that name in the user's own folder, and must have the same text. Raises UsageError if there is none.
    """
    file = studies_folder() / Path(configuration.study_file).name
    if not file.is_file():
        raise UsageError(
            f"{path} is of the study file {brief(configuration.study_file)}, but there is no {file}: give --study FILE"
        )
    if digest(file.read_bytes()) != configuration.study_digest:
        raise UsageError(
            f"{file} does not have the text that {path} was exported from: undo the change, export again, or give "
            f"--study {file} to see what has changed"
        )
    return file


def _ranking_table(ranking: pd.DataFrame, paths: Sequence[Path], study: Study) -> pd.DataFrame:
    measure = study.measure
    return pd.DataFrame(
        {
            "candidate": [str(paths[candidate - 1]) for candidate in ranking["candidate"]],
            f"searched {measure.name}": [measure.format(value) for value in ranking["searched"]],
            "confirmed": [
                markdown.measured(mean, sd, measure) for mean, sd in zip(ranking["mean"], ranking["sd"], strict=True)
            ],
            "seeds": ranking["seeds"],
            "failed": ranking["failed"],
            f"best {study.unit}": [f"{interval:.0f}" for interval in ranking["intervals"]],
        }
    )
