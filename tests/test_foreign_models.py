"""Models and data as tutorials and libraries write them, each from `check` to `retrain`."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch import Dataset, HpsearchError, Study, UsageError, checkpoint
from hpsearch.executors.task import Task, work
from hpsearch.results.results import open_results
from hpsearch.study import load_study
from hpsearch.training import evaluate
from support.command_line import hpsearch
from support.in_process import hpsearch_here

FOREIGN = Path(__file__).parent / "foreign"
STUDY = str(FOREIGN / "study.py")
sys.path.append(str(FOREIGN))

from nets import NETS  # noqa: E402


@pytest.fixture(params=NETS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HPSEARCH_TEST_NET", request.param)
    found: str = request.param
    return found


class Control:
    """An executor that lets a trial go on."""

    def stop(self) -> bool:
        return False

    def verdict(self) -> Any:
        return "continue"

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def trained(study: Study, data: Dataset, folder: Path, *, abandoned_after: int | None = None) -> list[dict[str, Any]]:
    """Train a task, or abandon it in the interval after; return its reports."""
    task = Task(number=0, params={"width": 2, "lr": 0.05}, seed=11, folder=folder, identity="foreign/0")
    training = work(task, study, data, Control())
    reports = []
    outcome = None
    while outcome is None and len(reports) != abandoned_after:
        try:
            report = next(training)
        except StopIteration as end:
            outcome = end.value
        else:
            reports.append({key: value for key, value in asdict(report).items() if key != "seconds"})
    training.close()
    assert outcome is None or outcome.reason == "budget", outcome.error
    return reports


def test_from_check_to_retrain(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = NETS[name]
    assert hpsearch_here(tmp_path, "check", "--study", STUDY) == 0
    assert hpsearch_here(tmp_path, "run", "--study", STUDY, "--workers", "0") == 0
    results = open_results(STUDY, storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs")
    assert list(results.trials["state"]) == ["complete", "complete"]
    if name != "augmented":
        # The weights are those that were evaluated.
        accuracy = evaluate(results.model(results.best), net.loss(), results.data.validation)["accuracy"]
        assert accuracy == results.trials["value"].max()
    assert_resumes(tmp_path)
    assert hpsearch_here(tmp_path, "export", "--study", STUDY, "--out", str(tmp_path / "best")) == 0
    retrain = ["retrain", "best/study-1.json", "--study", STUDY, "--seeds", "1", "--workers", "0"]
    if net.exports:
        assert hpsearch_here(tmp_path, *retrain) == 0
    else:
        with pytest.raises(
            HpsearchError, match=r"everything is written except model\.pt2: the model cannot be exported"
        ):
            hpsearch_here(tmp_path, *retrain)
    written = json.loads((tmp_path / "reports/study/retrain/result.json").read_text())
    assert written["test_examples"] == 9
    assert (tmp_path / "reports/study/retrain/model.pt2").exists() is net.exports


def assert_resumes(folder: Path) -> None:
    """A trial that is cut off after any interval ends as one that never was."""
    study = load_study(STUDY).study
    data = study.load_data().without_test()
    expected = trained(study, data, folder / "whole")
    best = checkpoint.load(folder / "whole/best.pt")
    assert len(expected) == 3
    part = folder / "in parts"
    for done in (1, 2):
        # What was reported is reported again.
        assert trained(study, data, part, abandoned_after=done) == expected[:done]
        torch.rand(7)
    assert trained(study, data, part) == expected
    again = checkpoint.load(part / "best.pt")
    assert checkpoint.digest(again["model"]) == checkpoint.digest(best["model"])


def rows(folder: Path) -> list[list[dict[str, str]]]:
    """Return the history of both trials, without the time they took."""
    found = []
    for number in (0, 1):
        with (folder / f"runs/study/{number}/history.csv").open(newline="") as file:
            found.append([{key: text for key, text in row.items() if key != "seconds"} for row in csv.DictReader(file)])
    return found


@pytest.mark.parametrize("name", ["view after convolutions", "augmented", "batch norm"])
def test_a_killed_worker_on_the_command_line(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        death = folder / "death"
        if folder.name == "undisturbed":
            death.touch()
        done = hpsearch(
            *("run", "--study", STUDY, "--workers", "1"),
            cwd=folder,
            HPSEARCH_TEST_NET=name,
            HPSEARCH_TEST_DEATH=str(death),
        )
        assert done.returncode == 0, done.stderr
        assert ("SIGKILL" in done.stderr) is (folder.name == "killed")
        assert death.exists()
    assert [len(trial) for trial in rows(folders[1])] == [3, 3]
    assert rows(folders[1]) == rows(folders[0])


DICTS = """
import torch
from hpsearch import MLP, SGD, Dataset, Recipe, Split, Study

examples = [({{"words": torch.zeros(4), "mask": torch.ones(4)}}, 1)] * 8
split = {split}


def dataset():
    return Dataset(train=split, validation=split, test=None, classes=("a", "b"))


def recipe(space):
    return Recipe(model=MLP(inputs=4), optimizer=SGD(lr=space.float("lr", 0.1, 1)))


study = Study(recipe=recipe, dataset=dataset)
"""


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("examples", "TypeError: MLP.forward() got an unexpected keyword argument 'words'"),
        ("Split(examples[0][0], torch.ones(8).long())", "dataset: train.inputs is a dict; it must be one tensor"),
        ('[{"image": torch.zeros(4), "label": 1}] * 8', "dataset: example 0 is a dict of 2; it must be a pair"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_dicts_are_refused_in_one_line(command: str, split: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "dicts.py").write_text(DICTS.format(split=split))
    with pytest.raises(UsageError) as raised:
        hpsearch_here(tmp_path, command, "--study", "dicts.py")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "hpsearch.db").exists()
    assert not (tmp_path / "runs").exists()
