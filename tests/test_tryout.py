"""A study that cannot work is refused before it is run, by one line that says why; one configuration is not enough."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpsearch import MLP, MSE, SGD, BinaryCrossEntropy, CrossEntropy, Dataset, Recipe, Split, Study, UsageError, tryout
from hpsearch.errors import StudyFileError
from hpsearch.study import StudyFile, load_study
from hpsearch.training import Run
from hpsearch.tryout import check_first_batch, doubts, try_batch
from support.command_line import hpsearch
from support.in_process import hpsearch_here

STUDY = """
import torch
from torch import nn
from torch.nn import functional
from hpsearch import MLP, SGD, CrossEntropy, Dataset, EarlyStopping, Recipe, Split, Study


class Net(nn.Module):
    def __init__(self, width, outputs={outputs}):
        super().__init__()
        self.hidden = nn.Linear(4, width)
        self.head = nn.Linear({head}, outputs)

    def forward(self, x):
        x = self.hidden(x).relu()
        return self.head(x)


def loss(outputs, targets):
    return {loss}


def dataset():
    split = Split(torch.randn(40, 4), torch.arange(40){targets})
    return Dataset(train=split, validation=split, test=None, classes=tuple("abcde"))


def recipe(space):
    width = space.int("width", 2, 6)
    return Recipe(model=Net(width), optimizer=SGD(lr=space.float("lr", 0.01, 1.0)), loss=loss, batch_size=8)


study = Study(recipe=recipe, dataset=dataset, epochs=1, n_trials=2)
"""
SOUND = {"outputs": "5", "head": "width", "loss": "functional.cross_entropy(outputs, targets)", "targets": " % 5"}
BROKEN = {
    "targets out of range": (
        {"targets": " // 4"},
        ["20: 'return functional.cross_entropy", "targets go up to 9, but the model has 5 outputs, for classes from 0"],
    ),
    "a target out of range in a late batch": (
        {"targets": ".clamp(max=0) + 5 * (torch.arange(40) == 39)"},
        ["go up to 5"],
    ),
    "too few outputs": ({"outputs": "3"}, ["targets go up to 4, but the model has 3 outputs"]),
    "a layer of the wrong size": (
        {"head": "99"},
        [
            "16: 'return self.head(x)'",
            "the model fails on inputs (8, 4) of float32",
            "RuntimeError",
            "(in the first batch, ",
        ],
    ),
    "a loss that is no number": (
        {"loss": "functional.cross_entropy(outputs, targets, reduction='none')"},
        ["the loss is not a single number: average it over the batch"],
    ),
    "targets of the wrong shape": (
        {"targets": "[:, None].expand(-1, 3)"},
        ["outputs of shape (8, 5) do not fit targets of shape (8, 3)"],
    ),
}


def written(folder: Path, **changes: str) -> StudyFile:
    path = folder / "mine.py"
    path.write_text(STUDY.format(**SOUND | changes))
    return load_study(str(path))


def test_targets_of_the_wrong_type_are_refused_with_one_of_them(tmp_path: Path) -> None:
    study_file = written(tmp_path, targets=" / 1.0")
    with pytest.raises(UsageError, match=r"train\.targets are numbers such as 2: .* class numbers are integers"):
        study_file.study.load_data()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_study_is_refused_with_its_cause(case: str, tmp_path: Path) -> None:
    changes, parts = BROKEN[case]
    study_file = written(tmp_path, **changes)
    with pytest.raises(StudyFileError) as raised:
        check_first_batch(study_file, study_file.study.load_data())
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'mine.py'}:")
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_only_configurations_that_meet_the_requirements_are_tried(tmp_path: Path) -> None:
    study_file = written(tmp_path, head="99")
    text = study_file.path.read_text()
    asked = 'width = space.int("width", 2, 6)\n'
    study_file.path.write_text(text.replace(asked, f'{asked}    space.require(width == 5, "a width of five")\n'))
    required = load_study(str(study_file.path))
    with pytest.raises(StudyFileError, match=r"the model fails on inputs .* \(in the first batch, with width=5 lr="):
        check_first_batch(required, required.study.load_data())
    study_file.path.write_text(text.replace(asked, f'{asked}    space.require(width == 9, "a width of nine")\n'))
    impossible = load_study(str(study_file.path))
    check_first_batch(impossible, impossible.study.load_data())


def test_a_sound_study_passes_without_an_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_file = written(tmp_path)
    data = study_file.study.load_data()
    check_first_batch(study_file, data)
    # What torch's optimisers import takes a second.
    monkeypatch.setattr("hpsearch.optim.SGD.__call__", lambda *arguments: pytest.fail("an optimiser was made"))
    try_batch(study_file.study, {"width": 3, "lr": 0.1}, data)


def test_run_and_check_refuse_it_and_create_nothing(tmp_path: Path) -> None:
    written(tmp_path, outputs="3")
    done = hpsearch("run", "--study", "mine.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "targets go up to 4, but the model has 3 outputs" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["mine.py"]
    with pytest.raises(UsageError, match="targets go up to 4, but the model has 3 outputs"):
        hpsearch_here(tmp_path, "check", "--study", "mine.py")


def study_file_of(recipe: Callable[[Any], Recipe], data: Dataset) -> StudyFile:
    study = Study(recipe=recipe, dataset=lambda: data)
    return StudyFile(name="mine", path=Path(__file__), digest="", study=study)


def recipe_that(behaves: Callable[[float], None]) -> Callable[[Any], Recipe]:
    def recipe(space: Any) -> Recipe:
        lr = space.float("lr", 0.25, 1.0)

        class Net(MLP):
            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                behaves(lr)
                return super().forward(inputs)

        return Recipe(model=Net(inputs=64, hidden=(4,)), optimizer=SGD(lr=lr))

    return recipe


class TestOneConfigurationIsNotTheStudy:
    @pytest.mark.parametrize("works", [0.25, 0.625, 1.0])
    def test_one_that_works_is_enough(self, works: float, few_digits: Dataset) -> None:
        def behaves(lr: float) -> None:
            if lr != works:
                raise ValueError("not this one")

        check_first_batch(study_file_of(recipe_that(behaves), few_digits), few_digits)

    def test_failures_that_differ_are_left_to_the_trials(self, few_digits: Dataset) -> None:
        def behaves(lr: float) -> None:
            raise ValueError if lr == 0.625 else KeyError

        check_first_batch(study_file_of(recipe_that(behaves), few_digits), few_digits)

    def test_the_same_failure_everywhere_is_the_studys(self, few_digits: Dataset) -> None:
        def behaves(lr: float) -> None:
            raise ValueError(f"not {lr}")

        with pytest.raises(StudyFileError, match=r"ValueError: not 0\.625 \(in the first batch, with lr=0\.625\)"):
            check_first_batch(study_file_of(recipe_that(behaves), few_digits), few_digits)

    def test_a_crash_takes_nothing_with_it(self, few_digits: Dataset) -> None:
        def behaves(lr: float) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        check_first_batch(study_file_of(recipe_that(behaves), few_digits), few_digits)

    def test_a_batch_that_hangs_is_not_waited_for(self, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tryout, "SECONDS", 0.3)
        began = time.monotonic()
        check_first_batch(study_file_of(recipe_that(lambda lr: time.sleep(60)), few_digits), few_digits)
        assert time.monotonic() - began < 10


class TestExplanations:
    @staticmethod
    def refused(model: Callable[[], nn.Module], data: Dataset, **settings: Any) -> str:
        def recipe(space: Any) -> Recipe:
            return Recipe(**{"model": model(), "optimizer": SGD(lr=0.1), "batch_size": 8} | settings)

        with pytest.raises(StudyFileError) as raised:
            check_first_batch(study_file_of(recipe, data), data)
        return str(raised.value)

    def test_batch_norm_on_batches_of_one(self, few_digits: Dataset) -> None:
        def model() -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

        said = self.refused(model, few_digits, batch_size=1)
        assert "batch norm needs more than one example in a batch to train on: batch_size is 1" in said

    def test_class_weights_for_other_classes(self, few_digits: Dataset) -> None:
        said = self.refused(lambda: MLP(inputs=64), few_digits, loss=CrossEntropy(weight=(1.0, 2.0)))
        assert "CrossEntropy: weight needs a number for each of the 10 classes, got 2" in said

    def test_outputs_that_are_no_tensor(self, few_digits: Dataset) -> None:
        class Two(MLP):
            def forward(self, inputs: torch.Tensor) -> Any:
                return super().forward(inputs), inputs

        said = self.refused(lambda: Two(inputs=64), few_digits)
        assert "the model must return one tensor of outputs, got a tuple" in said

    def test_a_model_that_fails_when_evaluated(self, few_digits: Dataset) -> None:
        class Net(MLP):
            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                if not self.training:
                    raise NotImplementedError("no evaluation yet")
                return super().forward(inputs)

        said = self.refused(lambda: Net(inputs=64), few_digits)
        assert "the model fails on inputs (60, 1, 8, 8) of float32: NotImplementedError: no evaluation yet" in said

    def test_a_validation_class_that_training_does_not_have(self, few_digits: Dataset) -> None:
        assert isinstance(few_digits.validation, Split)
        targets = few_digits.validation.targets.clone()
        targets[-1] = 10
        data = replace(few_digits, validation=Split(few_digits.validation.inputs, targets))
        for loss in (nn.CrossEntropyLoss(), MSE()):
            said = self.refused(lambda: MLP(inputs=64), data, loss=loss)
            assert "targets go up to 10, but the model has 10 outputs, for classes from 0 to 9" in said


class Sigmoid(nn.Module):
    """A classifier of two classes that returns a probability in one of several forms."""

    def __init__(self, form: str = "column") -> None:
        super().__init__()
        self.layer = nn.Linear(64, 1)
        self.form = form

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        probability = torch.sigmoid(self.layer(inputs.flatten(1)))
        if self.form == "row":
            return probability.squeeze(1)
        return probability if self.form == "column" else probability.double().view(-1)[:]


def of_two_classes(data: Dataset, dtype: torch.dtype = torch.float32) -> Dataset:
    splits = {
        name: Split(split.inputs, (split.targets % 2).to(dtype))
        for name, split in (("train", data.train), ("validation", data.validation))
        if isinstance(split, Split)
    }
    return replace(data, classes=("even", "odd"), **splits)


def binary(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy(outputs.flatten(), targets.to(outputs.dtype))


class TestSigmoid:
    @pytest.mark.parametrize("form", ["column", "row", "double"])
    @pytest.mark.parametrize("precision", [None, "bfloat16"])
    def test_a_model_that_is_always_positive_is_refused(self, precision: Any, form: str, few_digits: Dataset) -> None:
        def recipe(space: Any) -> Recipe:
            return Recipe(model=Sigmoid(form), optimizer=SGD(lr=0.1), loss=binary, precision=precision)

        data = of_two_classes(few_digits)
        with pytest.raises(StudyFileError) as raised:
            check_first_batch(study_file_of(recipe, data), data)
        said = "the model ends in a sigmoid, whose output is always above 0, which is the second class to the measure"
        assert f"{said} accuracy: leave the sigmoid out of the model and use BinaryCrossEntropy()" in str(raised.value)

    def test_a_number_between_zero_and_one_may_be_learnt(self, few_digits: Dataset) -> None:
        def recipe(space: Any) -> Recipe:
            return Recipe(model=Sigmoid(), optimizer=SGD(lr=0.1), loss=binary)

        data = of_two_classes(few_digits)
        try_batch(Study(recipe=recipe, dataset=lambda: data, measure="MSE"), {}, data)

    def test_its_loss_is_refused_when_it_is_given(self) -> None:
        with pytest.raises(UsageError, match=r"Recipe: nn.BCELoss is for models .* use BinaryCrossEntropy\(\), which"):
            Recipe(model=Sigmoid(), optimizer=SGD(lr=0.1), loss=nn.BCELoss())

    def test_others_pass(self, few_digits: Dataset) -> None:
        """An output that happens to be between 0 and 1, and a sigmoid further inside."""

        class Positive(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(64, 1)

            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                return self.layer(inputs.flatten(1)).sigmoid() * 0.5 + 0.1

        def recipe(space: Any) -> Recipe:
            return Recipe(model=Positive(), optimizer=SGD(lr=0.1), loss=BinaryCrossEntropy())

        data = of_two_classes(few_digits)
        try_batch(Study(recipe=recipe, dataset=lambda: data), {}, data)


class TestSoftmax:
    @pytest.mark.parametrize(
        ("last", "loss", "doubtful"),
        [
            (nn.Softmax(dim=1), CrossEntropy(), True),
            (nn.Softmax(dim=1), nn.CrossEntropyLoss(), True),
            (nn.LogSoftmax(dim=1), CrossEntropy(), False),
            (nn.Identity(), CrossEntropy(), False),
            (nn.Sigmoid(), CrossEntropy(), False),
            (nn.Softmax(dim=1), lambda outputs, targets: nn.functional.nll_loss(outputs.log(), targets), False),
        ],
    )
    def test_before_cross_entropy_is_doubted(
        self, last: nn.Module, loss: Any, doubtful: bool, few_digits: Dataset
    ) -> None:
        def recipe(space: Any) -> Recipe:
            return Recipe(model=nn.Sequential(MLP(inputs=64), last), optimizer=SGD(lr=0.1), loss=loss)

        run = Run(Study(recipe=recipe, dataset=lambda: few_digits), {}, few_digits, seed=0)
        said = ["the model's outputs are probabilities, and cross-entropy applies softmax itself"] * doubtful
        assert [line.partition(": leave")[0] for line in doubts(run)] == said

    def test_check_says_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for outputs, said in (("self.head(x)", 0), ("self.head(x).softmax(1)", 1)):
            text = STUDY.format(**SOUND).replace("return self.head(x)", f"return {outputs}")
            text = text.replace("loss=loss", "loss=CrossEntropy()")
            (tmp_path / "mine.py").write_text(text)
            hpsearch_here(tmp_path, "check", "--study", "mine.py")
            assert capsys.readouterr().out.count("leave the softmax out of the model") == said
