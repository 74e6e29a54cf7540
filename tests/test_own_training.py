"""Trainings of a user's own have pruning, exact resume, best state, executors and reports as the built-in loop has."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpsearch import Dataset, Measure, Space, Steps, Study, Training, UsageError, checkpoint, digits
from hpsearch.executors.task import Task, work
from hpsearch.own_run import OwnRun, start_run
from hpsearch.results.results import open_results
from hpsearch.search import Search, run
from hpsearch.study import load_study
from support import STUDIES
from support.in_process import exit_code_here, hpsearch_here

OWN = str(STUDIES / "own.py")
GAN = str(STUDIES / "gan.py")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits().without_test()


class Control:
    """Stops a task after some checks, as Ctrl-C does."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.checks, self.stop_after = 0, stop_after

    def stop(self) -> bool:
        self.checks += 1
        return self.stop_after is not None and self.checks > self.stop_after

    def verdict(self) -> Any:
        return "continue" if self.stop_after is None or self.checks <= self.stop_after else "interrupt"

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def train_task(folder: Path, study: Study, params: dict[str, Any], data: Dataset, stop_after: int | None) -> Any:
    task = Task(number=0, params=params, seed=5, folder=folder, identity="own/0")
    steps = work(task, study, data, Control(stop_after))
    rows = []
    while True:
        try:
            rows.append(next(steps).as_row())
        except StopIteration as ended:
            return rows, ended.value


def best_answers(folder: Path, study: Study, params: dict[str, Any], data: Dataset) -> np.ndarray:
    """Return what the best state of a trial answers."""
    training: Any = study.replay(params)
    training.start(data, seed=0, device="cpu")
    training.load_state_dict(checkpoint.load(folder / "best.pt")["model"])
    if params.get("kind"):
        return np.asarray(training.model.predict_proba(training.inputs))
    return np.asarray(training.generator(torch.ones(3, 2)).detach())


@pytest.mark.parametrize(
    ("file", "params"),
    [
        (OWN, {"kind": "linear", "alpha": 0.001}),
        (OWN, {"kind": "boosting", "alpha": 0.5}),
        (GAN, {"alpha": 0.01}),
    ],
)
def test_an_interrupted_training_goes_on_bit_for_bit(
    tmp_path: Path, data: Dataset, file: str, params: dict[str, Any]
) -> None:
    study = load_study(file).study
    whole, outcome = train_task(tmp_path / "whole", study, params, data, None)
    for stop_after in (1, 3, 4):
        folder = tmp_path / str(stop_after)
        _, first = train_task(folder, study, params, data, stop_after)
        assert first.reason == "interrupted"
        rows, last = train_task(folder, study, params, data, None)
        timeless = [[{**row, "seconds": 0.0} for row in both] for both in (rows, whole)]
        assert timeless[0] == timeless[1]
        assert replace(last, seconds=0.0) == replace(outcome, seconds=0.0)
        # A pickle of the same object may have other bytes.
        answers = [best_answers(path, study, params, data) for path in (folder, tmp_path / "whole")]
        assert np.array_equal(*answers)


def test_the_best_state_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    finished = run(Search.of(OWN, storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs"))
    results = open_results(OWN, storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs")
    trials = finished.stored.optuna_study().get_trials()
    assert {trial.user_attrs["reason"] for trial in trials} == {"budget", "pruned"}
    for trial in trials:
        training = results.training(trial.number)
        measures = training.evaluate(results.data.validation)
        assert measures["accuracy"] == trial.user_attrs["best_value"] == max(trial.intermediate_values.values())
    history = results.history
    assert {"train_accuracy", "validation_accuracy", "validation_loss"} <= set(history)
    assert "learning_rate" not in history
    with pytest.raises(UsageError, match=r"is of a Training: results\.training"):
        results.model(0)


def test_every_executor_gives_the_same(tmp_path: Path) -> None:
    found = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        search = Search.of(GAN, storage=f"sqlite:///{folder}/hpsearch.db", runs=folder / "runs", workers=workers)
        trials = run(search).stored.optuna_study().get_trials()
        found.append([(trial.params, trial.value, trial.intermediate_values) for trial in trials])
    assert found[0] == found[1]
    assert all(len(reports) == 3 for _, _, reports in found[0])


def test_the_commands_take_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["check"], ["run", "--workers", "0"], ["report"], ["export", "--top", "1"], ["status"]):
        assert (
            hpsearch_here(tmp_path, command[0], "--study", GAN if command != ["status"] else "gan", *command[1:]) == 0
        )
    out = capsys.readouterr().out
    assert "training Gan" in out
    assert "validation distance" in out
    page = (tmp_path / "reports/gan/summary.md").read_text()
    assert "| measure | distance, minimised |" in page


class Counting(Training):
    """Counts what is called."""

    epochs = 5
    answer: Any = None

    def start(self, data: Dataset, *, seed: int, device: str) -> None:
        self.calls: list[str] = [f"start on {device}"]
        assert data.test is None

    def train_epoch(self) -> Mapping[str, float] | None:
        self.calls.append("train")
        return None

    def evaluate(self, examples: Any) -> Mapping[str, float]:
        self.calls.append("evaluate")
        return {"accuracy": 0.5} if self.answer is None else self.answer

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def counting(answer: Any = None, **settings: Any) -> Study:
    def recipe(space: Space) -> Training:
        training = Counting()
        training.answer = answer
        return training

    return Study(recipe=recipe, dataset=digits, **settings)


def test_epochs_and_intervals(data: Dataset) -> None:
    """The training's own number of epochs counts; the last interval may be shorter."""
    started = start_run(counting(epochs=99, interval=2), {}, data, seed=0)
    assert isinstance(started, OwnRun)
    reports = list(started.train())
    assert [(report.interval, report.epoch) for report in reports] == [(1, 2.0), (2, 4.0), (3, 5.0)]
    assert isinstance(started.training, Counting)
    rounds = [["train"] * count + ["evaluate"] for count in (2, 2, 1)]
    assert started.training.calls == ["start on cpu", *itertools.chain(*rounds)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"f1": 0.5}, "evaluate must return the study's measure, 'accuracy'; it returned f1"),
        ({}, "it returned nothing"),
        (0.5, "evaluate must return a dict of measures by name, got 0.5"),
        ({"accuracy": "high"}, "evaluate must return numbers by name, got 'accuracy': 'high'"),
        ({"accuracy": float("nan"), "loss": 0.1}, "evaluate returned nan as accuracy, although the loss is finite"),
    ],
)
def test_what_evaluate_must_return(data: Dataset, answer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next(start_run(counting(answer), {}, data, seed=0).train())


def test_a_training_that_diverges(data: Dataset) -> None:
    for answer in ({"accuracy": float("nan")}, {"accuracy": 0.1, "loss": float("inf")}):
        assert next(start_run(counting(answer), {}, data, seed=0).train()).diverged


def test_steps_are_not_for_it(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a Training counts epochs, but the study's interval is 10 steps"):
        start_run(counting(interval=Steps(10)), {}, data, seed=0)


def test_a_recipe_must_return_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.py").write_text(
        "from hpsearch import Study, digits\nstudy = Study(recipe=lambda space: 3, dataset=digits)\n"
    )
    assert exit_code_here(tmp_path, "run", "--study", "wrong.py") == 2
    assert "the recipe must return a hpsearch.Recipe or Training, got int" in capsys.readouterr().err


def test_a_measure_of_a_training_needs_no_function() -> None:
    """It is the training that computes it."""
    assert counting(measure=Measure(name="distance", maximize=False)).measure.name == "distance"


def test_it_is_retrained_with_a_model_that_is_no_torch_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["run", "--study", OWN, "--n-trials", "2", "--workers", "0"],
        ["export", "--study", OWN, "--top", "1"],
        ["retrain", "best/own-1.json", "--study", OWN, "--seeds", "1", "--workers", "0"],
    ):
        assert hpsearch_here(tmp_path, *command) == 0
    assert "Test        accuracy" in capsys.readouterr().out
    card = (tmp_path / "reports/own/retrain/card.md").read_text()
    assert "this training has no torch module as its `model`" in card
    assert not (tmp_path / "reports/own/retrain/model.pt2").exists()
