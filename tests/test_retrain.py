"""`hpsearch retrain`: confirmed over seeds, trained on all data, tested once, and the same every time."""

import dataclasses
import hashlib
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from hpsearch import SGD, CrossEntropy, Dataset, HpsearchError, Recipe, Split, Study, UsageError, checkpoint
from hpsearch.executors import InlineExecutor
from hpsearch.meters import class_numbers
from hpsearch.results.configurations import Configuration, _digest, read_configuration
from hpsearch.results.retrain import (
    Evaluation,
    all_outputs,
    candidates_frame,
    confirm,
    evaluate_once,
    joined,
    luck,
    train_final_model,
)
from hpsearch.seeding import derive_seed
from hpsearch.study import load_study
from hpsearch.training import Run, train
from support import STUDIES
from support.finished_study import make_study
from support.in_process import hpsearch_here

TINY = (STUDIES / "tiny.py").read_text()
COMMAND = [
    "retrain",
    "best/tiny-1.json",
    "best/tiny-2.json",
    "--study",
    "studies/tiny.py",
    "--seeds",
    "3",
    "--workers",
    "0",
]


def prepare(folder: Path, text: str = TINY) -> None:
    """Export two configurations of a study file of the folder's own."""
    (folder / "studies").mkdir()
    (folder / "studies/tiny.py").write_text(text.replace("epochs=8", "epochs=3"))
    make_study(folder, ["budget"] * 3, study=folder / "studies/tiny.py")
    assert hpsearch_here(folder, "export", "--study", "studies/tiny.py", "--top", "2") == 0


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two candidates have been retrained."""
    folder = tmp_path_factory.mktemp("retrained")
    prepare(folder)
    assert hpsearch_here(folder, *COMMAND) == 0
    return folder


@pytest.fixture(scope="module")
def study(retrained: Path) -> Study:
    return load_study(str(retrained / "studies/tiny.py")).study


@pytest.fixture(scope="module")
def data(study: Study) -> Dataset:
    return study.load_data()


@pytest.fixture(scope="module")
def winner(retrained: Path) -> Configuration:
    best = pd.read_csv(retrained / "reports/tiny/retrain/candidates.csv").iloc[0]
    return read_configuration(retrained / f"best/tiny-{best['candidate']:.0f}.json")


def result(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "reports/tiny/retrain/result.json").read_text())
    return content


def test_a_confirmation_is_the_training_loop_under_new_seeds(
    retrained: Path, study: Study, data: Dataset, winner: Configuration
) -> None:
    confirmed = pd.read_csv(retrained / "reports/tiny/retrain/confirmed.csv")
    candidate = 1 if winner == read_configuration(retrained / "best/tiny-1.json") else 2
    row = confirmed[(confirmed["candidate"] == candidate) & (confirmed["seed"] == 2)].iloc[0]
    run = Run(study, winner.params, data, seed=derive_seed(winner.trial_seed, "confirm", 2))
    accuracies = [report.value for report in train(run)]
    assert row["value"] == max(accuracies)
    assert row["best_interval"] == accuracies.index(max(accuracies)) + 1
    assert row["intervals"] == 3


def test_candidates_are_ranked_by_their_confirmed_mean(retrained: Path) -> None:
    confirmed = pd.read_csv(retrained / "reports/tiny/retrain/confirmed.csv")
    table = pd.read_csv(retrained / "reports/tiny/retrain/candidates.csv")
    assert len(confirmed) == 6
    assert list(table["mean"]) == sorted(table["mean"], reverse=True)
    for _, row in table.iterrows():
        values = list(confirmed.loc[confirmed["candidate"] == row["candidate"], "value"])
        assert row["mean"] == pytest.approx(statistics.mean(values))
        assert row["sd"] == pytest.approx(statistics.stdev(values))
        assert (row["low"], row["high"]) == (min(values), max(values))
        intervals = confirmed.loc[confirmed["candidate"] == row["candidate"], "best_interval"]
        assert row["intervals"] == statistics.median(intervals)
        exported = read_configuration(retrained / f"best/tiny-{row['candidate']:.0f}.json")
        assert (row["trial"], row["searched"]) == (exported.trial, exported.value)


def test_the_final_model_is_what_a_plain_loop_gives(
    retrained: Path, study: Study, data: Dataset, winner: Configuration
) -> None:
    together = joined(data)
    assert isinstance(together.train, Split)
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    assert torch.equal(together.train.inputs, torch.cat([data.train.inputs, data.validation.inputs]))
    run = Run(study, winner.params, together, seed=winner.trial_seed)
    # Its recipe has a schedule, which is trained to the end.
    assert len(list(train(run))) == result(retrained)["intervals"] == 3
    saved = checkpoint.load(retrained / "reports/tiny/retrain/model.pt")
    assert result(retrained)["weights_digest"] == checkpoint.digest(saved["model"])
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, saved["model"][name])


def test_the_average_of_the_weights_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    prepare(tmp_path, TINY.replace("batch_size=16", "batch_size=16, ema=0.98"))
    assert hpsearch_here(tmp_path, *COMMAND[:2], *COMMAND[3:5], "--seeds", "1", "--workers", "0") == 0
    study, winner = (load_study(str(tmp_path / COMMAND[4])).study, read_configuration(tmp_path / COMMAND[1]))
    data = study.load_data()
    run = Run(study, winner.params, joined(data), seed=winner.trial_seed)
    list(train(run))
    saved = checkpoint.load(tmp_path / "reports/tiny/retrain/model.pt")["model"]
    assert checkpoint.digest(saved) == checkpoint.digest(run.evaluated.state_dict())
    assert checkpoint.digest(saved) != checkpoint.digest(run.model.state_dict())
    assert result(tmp_path)["test_correct"] == evaluate_once(study, run.evaluated, run.loss, data).correct
    program = torch.export.load(tmp_path / "reports/tiny/retrain/model.pt2").module()
    assert isinstance(data.test, Split)
    expected = run.evaluated.eval()(data.test.inputs).softmax(dim=1)
    torch.testing.assert_close(program(data.raw_test), expected)


def test_without_a_schedule_training_ends_after_the_confirmed_intervals(
    tiny_study: Callable[..., Study], few_digits: Dataset, winner: Configuration
) -> None:
    study = tiny_study(epochs=5)
    configuration = dataclasses.replace(winner, params={"lr": 0.1})
    seen: list[tuple[int, int]] = []
    run = train_final_model(
        study,
        configuration,
        few_digits,
        2,
        device="cpu",
        reported=lambda report, of: seen.append((report.interval, of)),
    )
    assert seen == [(1, 2), (2, 2)]
    plain = Run(study, {"lr": 0.1}, joined(few_digits), seed=winner.trial_seed)
    losses = [report.train["loss"] for _, report in zip(range(2), train(plain), strict=False)]
    assert len(losses) == 2
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name])


def test_the_test_set_says_what_scikit_learn_and_the_formula_say(
    retrained: Path, study: Study, data: Dataset, winner: Configuration
) -> None:
    folder = retrained / "reports/tiny/retrain"
    model = study.replay(winner.params).model
    model.load_state_dict(checkpoint.load(folder / "model.pt")["model"])
    assert isinstance(data.test, Split)
    with torch.inference_mode():
        predicted = model.eval()(data.test.inputs).argmax(dim=1)
    truth = data.test.targets
    found = result(retrained)
    correct, count = int((predicted == truth).sum()), len(truth)
    assert (found["test_correct"], found["test_examples"]) == (correct, count)
    share, z = correct / count, 1.959963984540054
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    assert found["test_accuracy_95"] == pytest.approx([middle - half, middle + half])
    matrix = pd.read_csv(folder / "confusion.csv", index_col="true")
    np.testing.assert_array_equal(matrix.to_numpy(), confusion_matrix(truth, predicted, labels=range(10)))
    classes = pd.read_csv(folder / "classes.csv")
    assert list(classes["recall"]) == pytest.approx(recall_score(truth, predicted, average=None, zero_division=0))
    assert list(classes["precision"]) == pytest.approx(precision_score(truth, predicted, average=None, zero_division=0))
    assert classes["examples"].sum() == count


def test_the_exported_program_answers_raw_examples_as_the_model(
    retrained: Path, study: Study, data: Dataset, winner: Configuration
) -> None:
    folder = retrained / "reports/tiny/retrain"
    model = study.replay(winner.params).model
    model.load_state_dict(checkpoint.load(folder / "model.pt")["model"])
    # The weights and little else: not the test set that its example inputs were cut from.
    assert (folder / "model.pt2").stat().st_size < 70_000
    files = {"model.json": ""}
    program = torch.export.load(folder / "model.pt2", extra_files=files).module()
    about = json.loads(files["model.json"])
    assert about["classes"] == list("0123456789")
    assert (about["study"], about["trial"], about["params"]) == ("tiny", winner.trial, winner.params)
    assert isinstance(data.test, Split)
    assert data.raw_test is not None
    with torch.inference_mode():
        expected = model.eval()(data.test.inputs).softmax(dim=1)
        torch.testing.assert_close(program(data.raw_test), expected)


def test_onnx_is_written_if_it_is_asked_for(
    retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    shutil.copytree(retrained, tmp_path / "onnx")
    assert not (tmp_path / "onnx/reports/tiny/retrain/model.onnx").exists()
    assert hpsearch_here(tmp_path / "onnx", *COMMAND, "--onnx") == 0
    folder = tmp_path / "onnx/reports/tiny/retrain"
    assert "model.pt, model.pt2, model.onnx, confusion.png" in capsys.readouterr().out
    raw = load_digits().images[:5]
    (found,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"raw": raw})
    expected = torch.export.load(folder / "model.pt2").module()(torch.from_numpy(raw))
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
    assert 'onnxruntime.InferenceSession("model.onnx")' in (folder / "card.md").read_text()
    assert json.loads((folder / "result.json").read_text())["onnx_difference"] < 1e-4
    # One of an earlier model does not stay.
    assert hpsearch_here(tmp_path / "onnx", *COMMAND) == 0
    assert not (folder / "model.onnx").exists()


def test_a_missing_onnx_package_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"--onnx needs .*onnxscript: pip install 'hpsearch\[onnx\]'"):
        hpsearch_here(tmp_path, *COMMAND, "--onnx")
    assert not (tmp_path / "runs/tiny.retrain").exists()


PREPROCESSED = """

class Doubling(torch.nn.Module):
    def forward(self, raw):
        return raw * 2


def twice():
    data = digits(size=8)
    return replace(data, preprocessing=Doubling(), raw_test=data.test.inputs)


study = replace(study, dataset=twice)
"""


def test_a_users_own_preprocessing_is_part_of_the_program(tmp_path: Path) -> None:
    right = PREPROCESSED.replace("raw_test=data.test.inputs", "raw_test=data.test.inputs / 2")
    prepare(tmp_path, "import torch\nfrom dataclasses import replace\n" + TINY + right)
    # In processes of their own, which cannot load a class of the study file before they have loaded the file.
    assert hpsearch_here(tmp_path, *COMMAND[:-1], "1") == 0
    program = torch.export.load(tmp_path / "reports/tiny/retrain/model.pt2").module()
    data = load_study(str(tmp_path / "studies/tiny.py")).study.load_data()
    assert data.raw_test is not None
    assert isinstance(data.test, Split)
    assert int((program(data.raw_test).argmax(dim=1) == data.test.targets).sum()) == result(tmp_path)["test_correct"]


def test_a_preprocessing_other_than_the_trainings_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    prepare(tmp_path, "import torch\nfrom dataclasses import replace\n" + TINY + PREPROCESSED)
    for command in (COMMAND, ["check", "--study", "studies/tiny.py"]):
        with pytest.raises(UsageError, match="what preprocessing makes of raw_test differs from the test split's"):
            hpsearch_here(tmp_path, *command)
    assert not (tmp_path / "runs/tiny.retrain").exists()
    study = tmp_path / "studies/tiny.py"
    study.write_text(study.read_text().replace("raw * 2", "raw.view(3)"))
    with pytest.raises(
        UsageError, match=r"tiny.py:\d+: 'return raw.view\(3\)': dataset: preprocessing fails on raw_test"
    ):
        hpsearch_here(tmp_path, "check", "--study", "studies/tiny.py")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("A small MLP", "A small net", ["its text differs", "export again"]),
        ("0.0, 0.5, grid", "0.0, 0.6, grid", ["space dropout was float 0 .. 0.5, is now float 0 .. 0.6"]),
        ("size=8)", "size=8, seed=1)", ["data train was 1,077 examples", "data validation was"]),
    ],
)
def test_a_changed_study_is_refused_with_what_changed(
    retrained: Path, tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    original = (retrained / "studies/tiny.py").read_text()
    assert old in original
    changed = tmp_path / "tiny.py"
    changed.write_text(original.replace(old, new))
    with pytest.raises(UsageError) as error:
        hpsearch_here(retrained, *COMMAND, "--study", str(changed), "--out", str(tmp_path / "out"))
    assert "tiny.py has changed since best/tiny-1.json was exported" in str(error.value)
    assert all(part in str(error.value) for part in expected)
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line(retrained: Path, tmp_path: Path) -> None:
    whole = (retrained / "best/tiny-1.json").read_text()
    (tmp_path / "short.json").write_text(whole[:300])
    (tmp_path / "changed.json").write_text(whole.replace('"trial": ', '"trial": 1'))
    (tmp_path / "file").touch()
    for arguments, expected in (
        ([str(tmp_path / "short.json")], "truncated"),
        ([str(tmp_path / "changed.json")], "was changed after its export"),
        (["best/tiny-1.json", "best/tiny-1.json"], "give it once"),
        (["best/none.json"], "cannot read"),
        (
            ["best/tiny-1.json", "--study", "studies/tiny.py", "--out", str(tmp_path / "file/x")],
            "cannot write to the folder",
        ),
        (["best/tiny-1.json", "--device", "cuda:99"], "cuda:99"),
    ):
        with pytest.raises(UsageError, match=expected) as error:
            hpsearch_here(retrained, "retrain", *arguments)
        assert "\n" not in str(error.value)
    elsewhere = read_configuration(retrained / "best/tiny-1.json")
    assert elsewhere.study_file == "studies/tiny.py"
    with pytest.raises(UsageError, match=r"studies/tiny\.py does not have the text that .*--study \S+ to see what"):
        hpsearch_here(tmp_path, "retrain", str(retrained / "best/tiny-1.json"))


def forge(retrained: Path, path: Path, **fields: object) -> str:
    """Write an exported configuration with other fields and a digest that fits; return its path."""
    content = json.loads((retrained / "best/tiny-1.json").read_text()) | fields
    del content["digest"]
    path.write_text(json.dumps({**content, "digest": _digest(content)}))
    return str(path)


def test_a_configuration_does_not_decide_which_file_is_run(retrained: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text("import pathlib\npathlib.Path('was_run').touch()\n")
    digest = hashlib.sha256(evil.read_bytes()).hexdigest()
    for name in (str(evil), "evil.py", "../evil.py", ".", ".."):
        file = forge(retrained, tmp_path / "forged.json", study_file=name, study_digest=digest)
        with pytest.raises(UsageError, match=r"forged\.json is of the study file .*give --study FILE"):
            hpsearch_here(tmp_path, "retrain", file)
    # Nor is one of the folder run that has another text.
    file = forge(retrained, tmp_path / "forged.json", study_file="tiny.py", study_digest=digest)
    with pytest.raises(UsageError, match=r"tiny\.py does not have the text"):
        hpsearch_here(tmp_path, "retrain", file)
    assert not (tmp_path / "was_run").exists()


def test_the_file_of_the_studies_folder_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path, ["budget"])
    assert hpsearch_here(tmp_path, "export", "--study", "tiny") == 0
    assert "hpsearch retrain best/tiny-1.json\n" in capsys.readouterr().out
    (tmp_path / "reports").touch()
    with pytest.raises(UsageError, match="cannot write to the folder"):
        hpsearch_here(tmp_path, "retrain", "best/tiny-1.json")
    assert f"running the study file {STUDIES / 'tiny.py'}" in capsys.readouterr().err


def test_files_stay_in_their_folders_whatever_the_study_is_called(retrained: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    file = forge(retrained, tmp_path / "forged.json", study="../../out")
    study = ["--study", str(retrained / "studies/tiny.py")]
    assert hpsearch_here(tmp_path / "inner", "retrain", file, *study, "--seeds", "1", "--workers", "0") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forged.json", "inner"]
    assert sorted(path.name for path in (tmp_path / "inner").iterdir()) == ["reports", "runs"]


@pytest.mark.parametrize(
    "fields",
    [
        {"study": 3},
        {"study": None},
        {"study_file": ["tiny.py"]},
        {"params": [1, 2]},
        {"params": {"lr": [0.1]}},
        {"params": {"lr": {"a": 1}}},
        {"value": "0.9"},
        {"trial": True},
        {"trial_seed": 1.5},
        {"best_interval": "3"},
        {"space": {"lr": 1}},
        {"data": None},
    ],
    ids=str,
)
def test_a_field_of_the_wrong_type_is_one_line(retrained: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    file = forge(retrained, tmp_path / "forged.json", **fields)
    with pytest.raises(UsageError, match=rf"forged\.json: {next(iter(fields))} cannot be .*hpsearch export") as error:
        hpsearch_here(tmp_path, "retrain", file)
    assert "\n" not in str(error.value)


def test_a_configuration_nested_too_deep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"deep\.json is truncated or not JSON"):
        hpsearch_here(tmp_path, "retrain", "deep.json")


def test_luck_is_told_by_the_spread() -> None:
    assert "was not a lucky one" in luck(0.95, 0.95, 0.01, 5)
    assert "above that mean, as another seed would in 23% of cases" in luck(0.959, 0.95, 0.01, 5)
    assert "2.0 standard deviations above" in luck(0.97, 0.95, 0.01, 20)
    # Twenty seeds show what three cannot.
    assert "was a lucky one" in luck(0.97, 0.95, 0.01, 20)
    assert "need not be a lucky one" in luck(0.97, 0.95, 0.01, 3)
    assert "was a lucky one" in luck(0.97, 0.95, 0.0, 3)
    assert "1 new seed cannot show" in luck(0.97, 0.95, float("nan"), 1)
    assert "2 new seeds cannot show" in luck(0.99, 0.95, 0.001, 2)


def test_two_classes_with_one_output_are_split_at_zero() -> None:
    inputs = torch.tensor([[-1.0], [2.0], [3.0], [-4.0]])
    data = Dataset(
        train=Split(inputs, torch.tensor([-1, 1, 1, 1])),
        validation=Split(inputs, torch.tensor([-1, 1, 1, 1])),
        test=Split(inputs, torch.tensor([-1, 1, 1, 1])),
        classes=("no", "yes"),
    )
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    assert data.test is not None
    predicted, truth = class_numbers(*all_outputs(model, data.test))
    assert (predicted.tolist(), truth.tolist()) == ([0, 1, 1, 0], [0, 1, 1, 1])
    confusion = evaluated(model, data).confusion
    assert confusion is not None
    assert confusion.to_numpy().tolist() == [[1, 0], [1, 2]]


def evaluated(model: torch.nn.Module, data: Dataset) -> Evaluation:
    study = Study(recipe=lambda space: Recipe(model=model, optimizer=SGD(lr=0.1)), dataset=lambda: data)
    return evaluate_once(study, model, CrossEntropy(), data)


def test_a_torch_dataset_is_joined_and_tested_as_tensors_are(data: Dataset) -> None:
    splits = (data.train, data.validation, data.test)
    lazy = [torch.utils.data.TensorDataset(*split) for split in splits if isinstance(split, Split)]
    other = Dataset(train=lazy[0], validation=lazy[1], test=lazy[2], classes=data.classes)
    assert len(joined(other).train) == len(joined(data).train) == 1437  # type: ignore[arg-type]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    assert evaluated(model, other).correct == evaluated(model, data).correct


BRANCHING = '''"""A model that torch.export cannot follow."""

from functools import partial

import torch

from hpsearch import SGD, Recipe, Space, Study, digits


class Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.layer(inputs.flatten(1))
        return outputs if inputs.is_meta or float(outputs.detach().sum()) > 0 else outputs * 2


def recipe(space: Space) -> Recipe:
    return Recipe(model=Branching(), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)), batch_size=64)


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=1, n_trials=2)
'''


def test_a_model_that_cannot_be_exported_is_kept_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "branching.py").write_text(BRANCHING)
    assert hpsearch_here(tmp_path, "run", "--study", "./branching.py", "--workers", "0", "--n-trials", "2") == 0
    assert hpsearch_here(tmp_path, "export", "--study", "./branching.py", "--top", "2") == 0
    retrain = ["retrain", "--study", "./branching.py", "--seeds", "1", "--workers", "0"]
    with pytest.raises(HpsearchError, match=r"except model\.pt2: the model cannot be exported"):
        hpsearch_here(tmp_path, *retrain, "best/branching-1.json")
    folder = tmp_path / "reports/branching/retrain"
    assert checkpoint.load(folder / "model.pt")["intervals"] == 1
    assert not (folder / "model.pt2").exists()
    page = (folder / "card.md").read_text()
    assert "There is no exported program: the model cannot be exported" in page
    assert "The test set was used\nonce by this command" in page
    # Whoever tests the next one as well is told what that does to the figures.
    with pytest.raises(HpsearchError):
        hpsearch_here(tmp_path, *retrain, "best/branching-2.json")
    assert "It is number 2 of this\nstudy's models to be tested" in (folder / "card.md").read_text()


def test_a_model_with_one_output_is_described_as_it_is_used(tmp_path: Path) -> None:
    study = str(STUDIES.parents[1] / "studies/perceptron.py")
    assert hpsearch_here(tmp_path, "run", "--study", study, "--workers", "0", "--n-trials", "1") == 0
    assert hpsearch_here(tmp_path, "export", "--study", study) == 0
    assert (
        hpsearch_here(tmp_path, "retrain", "best/perceptron-1.json", "--study", study, "--seeds", "1", "--workers", "0")
        == 0
    )
    folder = tmp_path / "reports/perceptron/retrain"
    page = (folder / "card.md").read_text()
    assert "probabilities = program(raw)  # (N, 2)" in page
    assert "the loss, PerceptronCriterion, need not make these probabilities" in page
    # The test accuracy is to be read with the data set's own note on what it is of.
    assert "all of them for training, validation and test" in page


def test_a_candidate_that_fails_under_a_seed_is_ranked_last(
    tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset, winner: Configuration
) -> None:
    study = tiny_study(epochs=2)
    candidates = [dataclasses.replace(winner, params={"lr": lr}) for lr in (1e30, 0.1)]
    told: list[str] = []
    confirmed = confirm(
        candidates,
        2,
        InlineExecutor(study, few_digits),
        tmp_path,
        device="cpu",
        reported=lambda *_: None,
        ended=lambda candidate, seed, outcome: told.append(outcome.reason),
    )
    assert told == ["failed", "failed", "budget", "budget"]
    assert list(confirmed["value"].isna()) == [True, True, False, False]
    table = candidates_frame(candidates, confirmed)
    assert list(table["candidate"]) == [2, 1]
    assert list(table["failed"]) == [0, 2]
    # One that diverged late, after a high accuracy, is behind as well.
    confirmed.loc[[0, 1], ["value", "best_interval", "reason"]] = [[1.0, 1.0, "diverged"], [1.0, 1.0, "budget"]]
    assert list(candidates_frame(candidates, confirmed)["candidate"]) == [2, 1]
    with pytest.raises(HpsearchError, match=r"every candidate failed under a seed.*UsageError: lr must be from"):
        candidates_frame(candidates[:1], confirmed[:2])
