"""The accuracy of always giving the same answer, and where a study is no better than that."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.dummy import DummyClassifier

from hpsearch import Dataset, Split, digits
from hpsearch.baseline import Baseline, baseline_of
from support.in_process import hpsearch_here

UNEVEN = """
import torch
from hpsearch import MLP, SGD, Dataset, Recipe, Split, Study

def data():
    draw = torch.Generator().manual_seed(0)
    splits = []
    for examples in (200, 100, 100):
        targets = (torch.rand(examples, generator=draw) < 0.05).long()
        # Nothing in the inputs tells the classes apart.
        splits.append(Split(torch.rand(examples, 4, generator=draw), targets))
    return Dataset(train=splits[0], validation=splits[1], test=splits[2], classes=("fine", "broken"))

def recipe(space):
    return Recipe(model=MLP(inputs=4, classes=2, hidden=(4,)), optimizer=SGD(lr=space.float("lr", 1e-3, 1e-2)))

study = Study(recipe=recipe, dataset=data, epochs=2, n_trials=2, sampler="random", pruner="none")
"""


def of_accuracy(answer: str, value: float, classes: int) -> Baseline:
    return Baseline(answer=repr(answer), value=value, classes=classes, measure="accuracy", maximize=True)


def test_it_is_scikit_learns_most_frequent() -> None:
    data = digits()
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    dummy = DummyClassifier(strategy="most_frequent").fit(data.train.inputs[:, 0, 0], data.train.targets)
    score = dummy.score(data.validation.inputs[:, 0, 0], data.validation.targets)
    found = baseline_of(data)
    assert found is not None
    assert found.value == pytest.approx(score)
    assert found.answer == repr(data.classes[int(dummy.predict([[0]])[0])])
    assert not found.is_uneven


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 1, 1, 1]),
        torch.tensor([[0], [1], [1], [1]]),
        torch.tensor([-1, 1, 1, 1]),
        torch.tensor([0.0, 1.0, 1.0, 1.0]),
        torch.tensor([[-1.0], [1.0], [1.0], [1.0]]),
        torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8]]),
        torch.tensor([[0, 1], [1, 1]]),
    ],
)
def test_targets_of_every_form(targets: torch.Tensor) -> None:
    split = Split(torch.zeros(len(targets), 3), targets)
    data = Dataset(train=split, validation=split, test=None, classes=("a", "b"))
    assert baseline_of(data) == of_accuracy("b", 0.75, 2)


def test_training_decides_what_is_answered() -> None:
    data = digits()
    assert isinstance(data.validation, Split)
    mostly = torch.tensor([3] * 30 + [4] * 10)
    split = Split(data.validation.inputs[:40], mostly)
    other = Split(split.inputs, torch.tensor([3] * 10 + [4] * 30))
    found = baseline_of(replace(data, train=split, validation=other))
    assert found == of_accuracy("3", 0.25, 10)


def test_numbers_that_name_no_class_have_none() -> None:
    split = Split(torch.zeros(3, 3), torch.tensor([0, 0, 10**13]))
    assert baseline_of(Dataset(train=split, validation=split, test=None, classes=("a", "b"))) is None


class InFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3), 1


def test_a_torch_data_set_is_asked_for_its_targets_only() -> None:
    data = Dataset(train=InFiles(), validation=InFiles(), test=None, classes=("a", "b"))
    assert baseline_of(data) is None
    for split in (data.train, data.validation):
        split.targets = [1, 1, 1, 0]  # type: ignore[union-attr, misc]
    assert baseline_of(data) == of_accuracy("b", 0.75, 2)


def test_a_study_that_is_no_better_says_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    warning = "no better than always answering 'fine', which is right for 0.9"
    assert not hpsearch_here(tmp_path, "check", "--study", "./uneven.py")
    assert "uneven classes: compare accuracies with always answering 'fine'" in capsys.readouterr().out
    assert hpsearch_here(tmp_path, "run", "--study", "./uneven.py", "--workers", "0") == 0
    assert warning in capsys.readouterr().out
    assert hpsearch_here(tmp_path, "report", "--study", "./uneven.py") == 0
    assert f"the best of them is {warning}" in (tmp_path / "reports/uneven/summary.md").read_text()
    hpsearch_here(tmp_path, "export", "--study", "./uneven.py")
    retrain = ("retrain", "best/uneven-1.json", "--study", "./uneven.py", "--seeds", "1", "--workers", "0")
    assert hpsearch_here(tmp_path, *retrain) == 0
    card = (tmp_path / "reports/uneven/retrain/card.md").read_text()
    assert "that is no better than always answering 'fine', which is right for 9" in card


def test_a_study_that_is_better_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--study", "tiny", "--n-trials", "1", "--sampler", "random", "--pruner", "none", "--workers", "0")
    assert hpsearch_here(tmp_path, "run", *options) == 0
    assert "no better" not in capsys.readouterr().out
    assert hpsearch_here(tmp_path, "report", "--study", "tiny") == 0
    page = (tmp_path / "reports/tiny/summary.md").read_text()
    assert "no better" not in page
    assert "always answering" in page
