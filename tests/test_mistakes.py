"""Mistakes with data and measures: each is one line that names what is wrong and what to do, before anything is run."""

from pathlib import Path

import pytest

from support.in_process import exit_code_here

STUDY = '''"""A study."""
import pathlib
from dataclasses import replace
import pandas as pd
import torch
from torch import nn
from hpsearch import *
{top}

class Own(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return {item}

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield 1
    def __len__(self):
        return 1

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)
    def forward(self, x):
        return self.layer(x), x

def empty():
    pathlib.Path("empty").mkdir(exist_ok=True)
    return "empty"

def damaged():
    for number in range(40):
        folder = pathlib.Path("bad", "ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{{number}}.jpg").write_bytes(b"no image")
    return "bad"

def of(examples, classes=("a", "b", "c"), **more):
    return Dataset(train=examples, validation=examples, test=None, classes=classes, **more)

def recipe(space):
    lr = space.float("lr", 0.01, 0.1)
    return Recipe(model={net}, optimizer=SGD(lr=lr), loss={loss}, batch_size={batch}{more})

def dataset():
    x = {x}
    y = {y}
    return {data}

study = Study(recipe=recipe, dataset=dataset, epochs=1, n_trials=1{study})
'''
SOUND = {
    "top": "",
    "item": "(self.x[i], int(self.y[i]))",
    "net": "nn.Sequential(nn.Flatten(), nn.Linear(8, 3))",
    "loss": "CrossEntropy()",
    "batch": "8",
    "more": "",
    "x": "torch.randn(40, 8)",
    "y": "torch.arange(40) % 3",
    "data": "of(Split(x, y))",
    "study": "",
}
# What is changed in the study, and a part of the line.
MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "direction is a text": (
        {"study": ', measure=Measure(name="m", maximize="no", function=lambda o, t: 0.0)'},
        "maximize must be True or False, got 'no'",
    ),
    "unknown measure": (
        {"study": ', measure="accurracy"'},
        "there is no measure 'accurracy': give one of accuracy, loss",
    ),
    "class missing in validation": (
        {"study": ', measure="AUROC"', "data": "replace(of(Split(x, y)), validation=Split(x, y * 0))"},
        "measure 'AUROC' needs every class among the validation examples, and 'b' is not",
    ),
    "float labels": (
        {"y": "(torch.arange(40) % 3).float()"},
        "train.targets are numbers such as 2: give Study(measure='MSE')",
    ),
    "int labels for MSE": (
        {
            "net": "nn.Linear(8, 1)",
            "loss": "MSE()",
            "y": "torch.arange(40)",
            "data": "of(Split(x, y), classes=())",
            "study": ', measure="MSE"',
        },
        "measure 'MSE' is of numbers, and train.targets are int64",
    ),
    "nan targets": (
        {
            "net": "nn.Linear(8, 1)",
            "loss": "MSE()",
            "y": 'torch.full((40,), float("nan"))',
            "data": "of(Split(x, y), classes=())",
            "study": ', measure="MSE"',
        },
        "train.targets hold nan",
    ),
    "nan inputs": (
        {"x": 'torch.full((40, 8), float("nan"))'},
        "the data set's inputs hold nan, and so the loss is nan",
    ),
    "multi labels": (
        {"y": "(torch.rand(40, 3) > 0.3).float()"},
        "several of 3 labels for an example: give measure=MultilabelF1Score(num_labels=3)",
    ),
    "F1 of three": ({"study": ', measure="F1"'}, "'F1' is of two classes, and there are 3: give measure='macro F1'"),
    "top-5 of three": ({"study": ', measure="top-5 accuracy"'}, "'top-5 accuracy' is always 1 with 3 classes"),
    "target -1 of MSE": (
        {
            "net": "nn.Linear(8, 1)",
            "loss": "MSE()",
            "y": "torch.randn(40)",
            "data": "of(Split(x, y), classes=())",
            "study": ', measure="MSE", early_stopping=EarlyStopping(target=-1)',
        },
        "target is a value of MSE in [0, inf), got -1",
    ),
    "target 99 of accuracy": (
        {"study": ", early_stopping=EarlyStopping(target=99)"},
        "target is a value of accuracy in (0, 1], got 99",
    ),
    "measure twice": ({"study": ', measure="accuracy", also=["accuracy"]'}, "measure accuracy is given twice"),
    "own returns vector": (
        {"study": ', measure=Measure(name="m", maximize=True, function=lambda o, t: o.mean(0))'},
        "a measure must be one number, got 3 of them",
    ),
    "own raises": (
        {"study": ', measure=Measure(name="m", maximize=True, function=lambda o, t: o[:, 7].mean())'},
        "the measure m fails on outputs (8, 3) of float32 and targets (8,) of int64: IndexError",
    ),
    "a class": (
        {
            "top": "import_torchvision()\nfrom torchmetrics.classification import BinaryAUROC",
            "study": ", measure=BinaryAUROC",
        },
        "must be a name, a metric of torchmetrics such as BinaryAUROC(), or a Measure, got <class",
    ),
    "num_classes": (
        {
            "top": "import_torchvision()\nfrom torchmetrics.classification import MulticlassAUROC",
            "study": ", measure=MulticlassAUROC(num_classes=7)",
        },
        "the measure MulticlassAUROC fails on outputs (8, 3)",
    ),
    "binary of three": (
        {
            "top": "import_torchvision()\nfrom torchmetrics.classification import BinaryAUROC",
            "study": ", measure=BinaryAUROC()",
        },
        "a measure of two classes does not fit 3 outputs: use a Multiclass one",
    ),
    "channels last": (
        {
            "net": "nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))",
            "x": "torch.randn(40, 8, 8, 3)",
        },
        "images are (N, channels, height, width): inputs.permute(0, 3, 1, 2)",
    ),
    "uint8 images": (
        {
            "net": "nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))",
            "x": "torch.zeros(40, 3, 8, 8, dtype=torch.uint8)",
        },
        "inputs.float() / 255 makes numbers of pixels",
    ),
    "float64 inputs": ({"x": "torch.randn(40, 8).double()"}, "inputs.float() makes them float32"),
    "empty folder": ({"data": "images(empty())"}, "empty has no class folders: images are expected in empty/CLASS/"),
    "no folder": ({"data": 'images("nowhere")'}, "there is no nowhere, neither in"),
    "corrupt jpeg": ({"data": "images(damaged())"}, "bad/a/0.jpg is no image or damaged"),
    "batch norm of one": (
        {"net": "nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))", "batch": "1"},
        "batch norm needs more than one example in a batch to train on: batch_size is 1",
    ),
    "numpy": ({"data": "of(Split(x.numpy(), y.numpy()))"}, "dataset: train.inputs is a ndarray; it must be one tensor"),
    "unequal lengths": ({"data": "of(Split(x, y[:30]))"}, "dataset: train has 40 inputs but 30 targets"),
    "labels from 1": (
        {"y": "torch.arange(40) % 3 + 1"},
        "targets go up to 3, but the model has 3 outputs, for classes from 0 to 2",
    ),
    "fewer class names": (
        {"data": 'of(Split(x, y), classes=("a", "b"))'},
        "targets go up to 2, but the data set names 2 classes",
    ),
    "string labels": (
        {"data": "of(Own(x, y))", "item": '(self.x[i], "abc"[self.y[i]])'},
        "dataset: example 0 has a str as its target",
    ),
    "returns a tuple": ({"data": "(x, y)"}, "dataset must return a hpsearch.Dataset, got tuple"),
    "empty validation": (
        {"data": "replace(of(Split(x, y)), validation=Split(x[:0], y[:0]))"},
        "dataset: validation is empty",
    ),
    "outputs a tuple": ({"net": "Two()"}, "the model must return one tensor of outputs, got a tuple"),
    "sigmoid BCELoss": (
        {"net": "nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())", "loss": "nn.BCELoss()", "y": "torch.arange(40) % 2"},
        "nn.BCELoss is for models that end in a sigmoid",
    ),
    "sigmoid": (
        {
            "net": "nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())",
            "loss": "BinaryCrossEntropy()",
            "y": "torch.arange(40) % 2",
        },
        "the model ends in a sigmoid, whose output is always above 0",
    ),
    "no reduction": (
        {"loss": 'nn.CrossEntropyLoss(reduction="none")'},
        "the loss is not a single number: average it over the batch",
    ),
    "loss class": (
        {"loss": "nn.CrossEntropyLoss"},
        "loss must be an instance, such as CrossEntropyLoss(), got the class",
    ),
    "broadcast MSELoss": (
        {
            "net": "nn.Linear(8, 1)",
            "loss": "nn.MSELoss()",
            "y": "torch.randn(40)",
            "data": "of(Split(x, y), classes=())",
            "study": ', measure="MSE"',
        },
        "the loss would compare every output with every target",
    ),
    "ragged": ({"data": "of(Own(x, y))", "item": "(torch.zeros(i + 1), 0)"}, "give the data set a collate function"),
    "collate returns one": (
        {"data": "of(Own(x, y), collate=lambda examples: torch.zeros(8, 8))"},
        "collate must return a pair (inputs, targets), got a Tensor",
    ),
    "collate raises": (
        {"data": "of(Own(x, y), collate=lambda examples: 1 / 0)"},
        "the collate function fails: ZeroDivisionError",
    ),
    "iterable": ({"data": "of(Stream())"}, "train is an IterableDataset, which cannot be shuffled and resumed"),
    "no csv": ({"data": 'table("rows.csv", target="y")'}, "there is no rows.csv, neither in"),
    "no column": (
        {"data": 'table(pd.DataFrame({"x": range(40), "y": [0, 1] * 20}), target="z")'},
        "the DataFrame has no column 'z': it has x, y",
    ),
    "wrong size": (
        {"net": "nn.Sequential(nn.Flatten(), nn.Linear(9, 3))"},
        "the model fails on inputs (8, 8) of float32",
    ),
    "too few outputs": (
        {"net": "nn.Sequential(nn.Flatten(), nn.Linear(8, 2))"},
        "targets go up to 2, but the model has 2 outputs",
    ),
    "example fails": (
        {"data": "of(Own(x, y))", "item": "(self.x[i + 10**6], 0)"},
        "dataset: example 0 cannot be read: IndexError",
    ),
    "lists": ({"data": "of((x, y))"}, "it must be a pair (input, target)"),
    "groups unknown": (
        {"more": ', groups={"head": {"lr": 0.1}}'},
        "groups: no parameter of the model is named 'head'; it has 1.weight, 1.bias",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_says_what_is_wrong(mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, part = MISTAKES[mistake]
    (tmp_path / "mine.py").write_text(STUDY.format(**SOUND | changes))
    assert exit_code_here(tmp_path, "check", "--study", "mine.py") == 2
    written = capsys.readouterr().err
    assert part in written
    assert written.startswith("hpsearch: ")
    assert written.count("\n") == 1
    assert not list(tmp_path.glob("*.db"))


def test_the_sound_study_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise each of them could fail for another reason."""
    (tmp_path / "mine.py").write_text(STUDY.format(**SOUND))
    assert exit_code_here(tmp_path, "check", "--study", "mine.py") == 0
    assert capsys.readouterr().err == ""


def test_a_softmax_before_cross_entropy_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"net": "nn.Sequential(nn.Linear(8, 3), nn.Softmax(dim=1))"}
    (tmp_path / "mine.py").write_text(STUDY.format(**SOUND | changes))
    assert exit_code_here(tmp_path, "check", "--study", "mine.py") == 0
    assert "leave the softmax out of the model" in capsys.readouterr().out
