"""The final model's file: raw examples in, named classes with probabilities out, by plain PyTorch."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from hpsearch import (
    MLP,
    MSE,
    BinaryCrossEntropy,
    CrossEntropy,
    Dataset,
    LeNet,
    Split,
    UsageError,
    cifar10,
    digits,
    fashion_mnist,
    images,
    table,
)
from hpsearch.datasets import preprocessed
from hpsearch.results.program import (
    Program,
    check_onnx,
    check_preprocessing,
    export_onnx,
    export_program,
    load_program,
    probabilities,
)
from hpsearch.results.usage import usage
from support.image_files import write_cifar10, write_mnist


def some_digits(folder: Path, _: pytest.MonkeyPatch) -> Dataset:
    """Digits, the first ten of which are `digits.json`."""
    dataset = digits(size=16)
    _, test = train_test_split(range(1797), test_size=360, stratify=load_digits().target, random_state=0)
    (folder / "digits.json").write_text(json.dumps(load_digits().images[test[:10]].tolist()))
    return dataset


def some_clothes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    pixels = write_mnist(folder / "fashion-mnist-sample/FashionMNIST/raw", train=640, test=30)
    Image.fromarray(pixels[0]).save(folder / "image.png")
    return fashion_mnist()


def some_objects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    pixels = write_cifar10(folder, monkeypatch)
    Image.fromarray(pixels[5050].transpose(1, 2, 0)).save(folder / "image.png")
    return cifar10()


def some_images(folder: Path, _: pytest.MonkeyPatch, *, grey: bool = False) -> Dataset:
    """Images of other sizes and formats than those that are trained on."""
    draw = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            (folder / "pets" / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = draw.integers(0, 256, (37, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pets" / split / name / f"{index}.jpg")
    # Any name will do: the format is in the file.
    (folder / "image.png").write_bytes((folder / "pets/test/cat/0.jpg").read_bytes())
    return images(folder / "pets", size=(16, 20), grey=grey)


def some_grey_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    return some_images(folder, monkeypatch, grey=True)


def some_rows(folder: Path, _: pytest.MonkeyPatch) -> Dataset:
    """Rows with missing values and, in the test split alone, a new category; its first ten are `rows.csv`."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "constant": 1,
            "age": draw.integers(18, 90, 120).astype(float),
            "colour": pd.Series(draw.choice(["red", "green", "blue"], 120), dtype=object),
            "member": draw.random(120) < 0.4,
            "code": pd.Series(draw.choice([1, 2, "x"], 120), dtype=object),
            "kind": np.repeat(["no", "yes", "perhaps"], 40),
        }
    )
    _, test = train_test_split(range(120), test_size=24, stratify=frame["kind"], random_state=0)
    frame.loc[draw.random(120) < 0.2, "age"] = np.nan
    frame.loc[draw.random(120) < 0.2, "colour"] = None
    frame.loc[test[3], "colour"] = "violet"
    frame.loc[test[4], "age"] = np.nan
    frame.iloc[test[:10]].drop(columns="kind").to_csv(folder / "rows.csv", index=False)
    frame.to_csv(folder / "people.csv", index=False)
    return table(folder / "people.csv", target="kind")


MAKERS = {
    maker.__name__: maker
    for maker in (some_digits, some_clothes, some_objects, some_images, some_grey_images, some_rows)
}


def network(dataset: Dataset) -> nn.Module:
    """Return a network of random weights, large enough for different classes."""
    assert isinstance(dataset.test, Split)
    torch.manual_seed(0)
    model = MLP(inputs=dataset.test.inputs[0].numel(), hidden=[16], classes=len(dataset.classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Dataset, nn.Module, Program]]:
    """Each data set with a folder of raw examples, a network, and its program, which is in the folder as well."""
    made = {}
    for name, maker in MAKERS.items():
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HPSEARCH_DATA", str(folder))
            dataset = maker(folder, patch)
        model = network(dataset)
        check_preprocessing(dataset)
        program = export_program(model, dataset, study="pets")
        assert program.error is None
        (folder / "model.pt2").write_bytes(program.content)
        made[name] = (folder, dataset, model, program)
    return made


@pytest.fixture(scope="module")
def answered(exported: dict[str, tuple[Path, Dataset, nn.Module, Program]]) -> dict[str, dict[str, Any]]:
    """What the model cards' code prints in a process that does not know hpsearch, and the probabilities."""
    codes = {}
    for folder, _, _, program in exported.values():
        (code,) = re.findall("```python\n(.*?)```", usage(program, None, CrossEntropy()), re.DOTALL)
        codes[str(folder)] = re.sub(r"raw = torch.zeros\(1, 8, 8, (.*)\)  #.*", _READ_DIGITS, code)
    script = """
import contextlib, io, json, os, sys
for folder, code in json.loads(sys.stdin.read()).items():
    os.chdir(folder)
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    shown = {"printed": printed.getvalue(), "probabilities": names["probabilities"].tolist(), "about": names["about"]}
    print(json.dumps(shown))
assert not any(name.split(".")[0] in ("hpsearch", "torchvision", "sklearn") for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", script],
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(zip(exported, map(json.loads, done.stdout.splitlines()), strict=True))


_READ_DIGITS = r"import pathlib; raw = torch.tensor(json.loads(pathlib.Path('digits.json').read_text()), \1)"


@pytest.mark.parametrize("name", MAKERS)
def test_the_cards_code_gives_what_the_model_gives(
    name: str,
    exported: dict[str, tuple[Path, Dataset, nn.Module, Program]],
    answered: dict[str, dict[str, Any]],
) -> None:
    _, dataset, model, _ = exported[name]
    found = torch.tensor(answered[name]["probabilities"])
    assert isinstance(dataset.test, Split)
    assert found.shape == (10 if name in ("some_digits", "some_rows") else 1, len(dataset.classes))
    with torch.no_grad():
        expected = model(dataset.test.inputs[: len(found)]).softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    lines = [
        f"{dataset.classes[place]} {value:.1%}\n"
        for value, place in zip(*map(torch.Tensor.tolist, expected.max(1)), strict=True)
    ]
    assert answered[name]["printed"] == "".join(lines)
    assert answered[name]["about"]["classes"] == list(dataset.classes)
    assert answered[name]["about"]["study"] == "pets"


def test_the_program_takes_any_number_of_raw_examples(
    exported: dict[str, tuple[Path, Dataset, nn.Module, Program]],
) -> None:
    for _, dataset, model, program in exported.values():
        loaded = load_program(program.content)
        assert dataset.raw_test is not None
        assert isinstance(dataset.test, Split)
        for count in (1, 3, len(dataset.raw_test)):
            with torch.no_grad():
                expected = model(dataset.test.inputs[:count]).softmax(dim=1)
                torch.testing.assert_close(loaded(dataset.raw_test[:count]), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_another_type_or_shape_is_an_error(
    name: str, exported: dict[str, tuple[Path, Dataset, nn.Module, Program]]
) -> None:
    _, dataset, _, program = exported[name]
    loaded = load_program(program.content)
    raw = dataset.raw_test
    assert raw is not None
    types = {torch.uint8, torch.int64, torch.float32, torch.float64} - {raw.dtype}
    wrong = [raw.to(dtype) for dtype in types] + [raw / 255, raw[0], raw[:, :-1], raw[..., :-1], raw[..., None]]
    if raw.dim() == 4:
        # Channels last, and grey images for colours or the other way round.
        wrong += [raw.permute(0, 2, 3, 1), raw[:, :1] if raw.shape[1] == 3 else raw.repeat(1, 3, 1, 1)]
    for batch in wrong:
        if (batch.dtype, batch.shape[1:]) != (raw.dtype, raw.shape[1:]):
            with pytest.raises((AssertionError, RuntimeError, IndexError, ValueError)):
                loaded(batch)


def test_a_row_with_a_value_that_cannot_be_is_an_error(
    exported: dict[str, tuple[Path, Dataset, nn.Module, Program]],
) -> None:
    _, dataset, _, program = exported["some_rows"]
    loaded = load_program(program.content)
    assert dataset.raw_test is not None
    assert isinstance(dataset.preprocessing, nn.Module)
    columns = program.description["input"]["columns"]
    assert columns[0] == {"name": "age"}
    assert columns[1] == {"name": "colour", "categories": ["blue", "green", "red", None]}
    assert columns[2] == {"name": "member", "categories": [False, True]}
    for place, value in ((0, float("inf")), (1, 4.0), (1, -2.0), (1, 0.5), (1, float("nan")), (2, 2.0)):
        row = dataset.raw_test[:1].clone()
        row[0, place] = value
        for module in (loaded, dataset.preprocessing):
            with pytest.raises(
                RuntimeError, match="infinite" if place == 0 else "a category must be given by its place"
            ):
                module(row)


def test_onnx_gives_the_same(exported: dict[str, tuple[Path, Dataset, nn.Module, Program]]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for _, dataset, model, program in exported.values():
        onnx = export_onnx(program, model, dataset)
        assert (onnx.error, onnx.examples) == (None, min(256, len(dataset.test)))  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(onnx.content)
        assert json.loads(session.get_modelmeta().custom_metadata_map["model.json"]) == program.description
        assert dataset.raw_test is not None
        for count in (1, 5):
            raw = dataset.raw_test[:count]
            (found,) = session.run(["probabilities"], {"raw": raw.numpy()})
            np.testing.assert_allclose(found, load_program(program.content)(raw).detach().numpy(), atol=1e-5)
        for wrong in (raw.to(torch.float32), raw[..., :-1]):
            with pytest.raises(Exception, match="INVALID_ARGUMENT"):
                session.run(None, {"raw": wrong.numpy()})


class Doubling(nn.Module):
    """A user's own preprocessing."""

    about: dict[str, Any]

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw.float() * 2


def own(preprocessing: nn.Module | None, raw: torch.Tensor | None, inputs: torch.Tensor, **fields: Any) -> Dataset:
    split = Split(inputs, torch.arange(len(inputs)) % 2)
    splits = {"train": split, "validation": split, "test": split}
    return Dataset(**{**splits, "classes": ("no", "yes"), "preprocessing": preprocessing, "raw_test": raw, **fields})


def test_a_users_own_preprocessing_is_part_of_the_file() -> None:
    raw = torch.arange(12).reshape(6, 2)
    split = Split(raw, torch.arange(6) % 2)
    dataset = preprocessed(Doubling(), train=split, validation=split, test=split, classes=("no", "yes"))
    check_preprocessing(dataset)
    model = nn.Linear(2, 2)
    program = export_program(model, dataset)
    assert program.description["input"] == {"form": {"dtype": "int64", "shape": ["N", 2]}, "preprocessing": True}
    expected = model(raw.float() * 2).softmax(dim=1)
    torch.testing.assert_close(load_program(program.content)(raw), expected)
    # Also for a torch data set, whose raw examples may be the first ones only.
    lazy = torch.utils.data.TensorDataset(raw.float() * 2, torch.arange(6) % 2)
    dataset = replace(dataset, train=lazy, validation=lazy, test=lazy, raw_test=raw[:3])
    check_preprocessing(dataset)
    assert export_program(model, dataset).examples == 3


def test_what_a_users_own_preprocessing_says_of_raw_examples_is_in_the_file() -> None:
    module = Doubling()
    module.about = {"kind": "image", "taken": date(2026, 1, 2), "form": "none"}
    raw = torch.arange(12).reshape(6, 2)
    program = export_program(nn.Linear(2, 2), own(module, raw, raw.float() * 2))
    files = {"model.json": ""}
    torch.export.load(io.BytesIO(program.content), extra_files=files)
    said = json.loads(files["model.json"])["input"]
    assert (said["kind"], said["taken"], said["form"]["dtype"]) == ("image", "2026-01-02", "int64")
    assert "raw = torch.zeros(1, 2, dtype=torch.int64)" in usage(program, None, CrossEntropy())


def test_without_preprocessing_the_file_takes_inputs_of_their_type_only() -> None:
    inputs = torch.randn(6, 2)
    model = nn.Linear(2, 2)
    program = export_program(model, own(None, None, inputs))
    assert program.description["input"] == {"form": {"dtype": "float32", "shape": ["N", 2]}, "preprocessing": False}
    loaded = load_program(program.content)
    torch.testing.assert_close(loaded(inputs), model(inputs).softmax(dim=1))
    for wrong in (inputs.double(), inputs.to(torch.uint8)):
        with pytest.raises(RuntimeError, match="dtype"):
            loaded(wrong)
    page = usage(program, None, CrossEntropy())
    assert "raw = torch.zeros(1, 2, dtype=torch.float32)" in page
    assert "as the study's data set function gives them: there is no preprocessing in the file" in page


@pytest.mark.parametrize(
    ("preprocessing", "raw", "expected"),
    [
        (Doubling(), torch.ones(6, 2), r"makes of raw_test differs from the test split's inputs by \d"),
        (Doubling(), torch.ones(6, 3), r"makes torch.float32 \(6, 3\) of raw_test, but the test split has"),
        (nn.Linear(3, 3), torch.ones(6, 2), "preprocessing fails on raw_test: RuntimeError: "),
        (nn.Identity(), torch.arange(12).reshape(6, 2), "makes torch.int64"),
    ],
)
def test_a_preprocessing_other_than_the_trainings_is_refused(
    preprocessing: nn.Module, raw: torch.Tensor, expected: str
) -> None:
    inputs = torch.arange(12.0).reshape(6, 2)
    with pytest.raises(UsageError, match=expected) as error:
        check_preprocessing(own(preprocessing, raw, inputs))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("outputs", [torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([[-3.0], [0.0], [2.0]])])
def test_one_output_is_the_second_of_two_classes(outputs: torch.Tensor) -> None:
    second = 1 / (1 + torch.exp(-outputs.flatten()))
    torch.testing.assert_close(probabilities(outputs), torch.stack([1 - second, second], dim=1))


def test_positions_have_probabilities_each() -> None:
    outputs = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(probabilities(outputs).sum(dim=1), torch.ones(2, 4, 5))
    assert probabilities(torch.randn(2, 1, 4, 5)).shape == (2, 2, 4, 5)


def test_a_data_set_of_numbers_has_predictions() -> None:
    inputs = torch.randn(6, 2)
    model = nn.Linear(2, 1)
    dataset = own(None, None, inputs, classes=())
    program = export_program(model, dataset, "numbers")
    torch.testing.assert_close(load_program(program.content)(inputs), model(inputs))
    assert program.description["output"] == {"dtype": "float32", "shape": ["N", 1], "kind": "predictions"}
    assert "predictions = program(raw)  # (N, 1)" in usage(program, None, CrossEntropy())


def test_a_convolutional_network_as_trained_is_exported(exported: dict[str, Any]) -> None:
    model = LeNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _, dataset, _, _ = exported["some_clothes"]
    program = export_program(model, dataset)
    assert (program.error, program.examples) == (None, 30)
    assert program.content
    assert program.difference < 1e-5
    pytest.importorskip("onnxruntime")
    assert export_onnx(program, model, dataset).error is None


class Broken(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs / 0.0 * 0.0


def test_a_program_whose_answers_are_not_numbers_is_none() -> None:
    program = export_program(Broken(), own(None, None, torch.ones(4, 2)))
    assert "differ from the model's by nan" in str(program.error)
    assert export_onnx(program, Broken(), own(None, None, torch.ones(4, 2))).error == program.error


class Spectral(nn.Module):
    """Has an operator that the ONNX format does not."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(inputs @ inputs.mT)


def test_a_model_that_onnx_cannot_express_keeps_its_program() -> None:
    dataset = own(None, None, torch.randn(4, 2, 2))
    program = export_program(Spectral(), dataset)
    assert program.error is None
    pytest.importorskip("onnxruntime")
    onnx = export_onnx(program, Spectral(), dataset)
    assert str(onnx.error).startswith("the model cannot be exported to ONNX: ")
    assert "\n" not in str(onnx.error)
    assert "There is no `model.onnx`: the model cannot be exported to ONNX" in usage(program, onnx, CrossEntropy())


def test_losses_that_do_not_make_probabilities_are_named() -> None:
    program = export_program(nn.Linear(2, 2), own(None, None, torch.randn(4, 2)))
    for loss in (CrossEntropy(), BinaryCrossEntropy(), nn.CrossEntropyLoss()):
        assert "only their order counts" not in usage(program, None, loss)
    for loss, name in ((MSE(), "MSE"), (nn.functional.mse_loss, "mse_loss")):
        assert f"the loss, {name}, need not" in usage(program, None, loss)


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"^--onnx needs .*onnxscript.*: pip install 'hpsearch\[onnx\]'$"):
        check_onnx()


class Sentences(torch.utils.data.Dataset[tuple[list[int], int]]):
    """Sequences of different length."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.sentences = [draw.integers(1, 50, 3 + index % 6).tolist() for index in range(30)]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self.sentences[index], index % 3


def padded(examples: list[tuple[list[int], int]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(tokens) for tokens, _ in examples], batch_first=True)
    lengths = torch.tensor([len(tokens) for tokens, _ in examples])
    return {"tokens": tokens, "lengths": lengths}, torch.tensor([target for _, target in examples])


class Reader(nn.Module):
    """Attention between the words of a sentence, and the mean over them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        words = self.embedding(tokens)
        absent = torch.arange(tokens.shape[1]) >= lengths[:, None]
        states, _ = self.attention(words, words, words, key_padding_mask=absent)
        outputs: torch.Tensor = self.head(states.masked_fill(absent[:, :, None], 0).sum(1) / lengths[:, None])
        return outputs


class Recurrent(Reader):
    """The last state of a recurrent network, which torch.export unrolls."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.GRU(8, 8, batch_first=True)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = self.network(self.embedding(tokens))
        outputs: torch.Tensor = self.head(states[:, -1] + 0 * lengths[:, None])
        return outputs


def test_a_recurrent_network_has_a_program_for_one_length() -> None:
    examples = Sentences()
    dataset = Dataset(train=examples, validation=examples, test=examples, classes=("a", "b", "c"), collate=padded)
    assert "let collate pad all sequences to the same" in str(export_program(Recurrent(), dataset).error)

    def fixed(batch: list[tuple[list[int], int]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        inputs, targets = padded(batch)
        tokens = nn.functional.pad(inputs["tokens"], (0, 9 - inputs["tokens"].shape[1]))
        return inputs | {"tokens": tokens}, targets

    model = Recurrent()
    program = export_program(model, replace(dataset, collate=fixed))
    assert program.error is None
    assert program.description["input"]["form"]["tokens"]["shape"] == ["N", 9]
    raw, _ = fixed([examples[0]])
    torch.testing.assert_close(load_program(program.content)(raw), model(**raw).softmax(dim=1))


def test_sequences_of_any_length_have_a_program() -> None:
    examples, model = Sentences(), Reader()
    dataset = Dataset(train=examples, validation=examples, test=examples, classes=("a", "b", "c"), collate=padded)
    program = export_program(model, dataset)
    assert program.error is None
    form = {"tokens": {"dtype": "int64", "shape": ["N", "L"]}, "lengths": {"dtype": "int64", "shape": ["N"]}}
    assert program.description["input"] == {"form": form, "preprocessing": False}
    loaded = load_program(program.content)
    for indices in ([0], [2, 3], range(30)):
        raw, _ = padded([examples[index] for index in indices])
        assert raw["tokens"].shape[1] == {1: 3, 2: 6, 30: 8}[len(indices)]
        torch.testing.assert_close(loaded(raw), model(**raw).softmax(dim=1))
    for wrong in ({**raw, "tokens": raw["tokens"].int()}, {"tokens": raw["tokens"]}, raw["tokens"]):
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            loaded(wrong)
    page = usage(program, None, CrossEntropy())
    assert "It takes a dict of tokens: int64 (N, L), lengths: int64 (N,), any number N of examples" in page
    assert (
        'raw = {"tokens": torch.zeros(1, 20, dtype=torch.int64), "lengths": torch.zeros(1, dtype=torch.int64)}' in page
    )
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = export_onnx(program, model, dataset)
    assert onnx.error is None
    session = onnxruntime.InferenceSession(onnx.content)
    fed = {f"raw_{name}": tensor.numpy() for name, tensor in raw.items()}
    np.testing.assert_allclose(session.run(None, fed)[0], loaded(raw).detach().numpy(), atol=1e-5)
    assert '{"raw_tokens": raw["tokens"].numpy(), "raw_lengths": raw["lengths"].numpy()}' in usage(
        program, onnx, CrossEntropy()
    )


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(torch.cat([left, right], dim=1))
        return outputs


def test_several_inputs_are_a_list() -> None:
    left, right = torch.randn(6, 2), torch.randn(6, 3)
    examples: Any = [((left[index], right[index]), index % 2) for index in range(6)]
    dataset = Dataset(train=examples, validation=examples, test=examples, classes=("no", "yes"))
    model = Both()
    program = export_program(model, dataset)
    assert program.error is None
    torch.testing.assert_close(load_program(program.content)([left, right]), model(left, right).softmax(dim=1))
    page = usage(program, None, CrossEntropy())
    assert "raw = [torch.zeros(1, 2, dtype=torch.float32), torch.zeros(1, 3, dtype=torch.float32)]" in page


def test_inputs_that_are_no_tensors_are_named() -> None:
    def packed(examples: list[tuple[list[int], int]]) -> tuple[Any, torch.Tensor]:
        tokens = [torch.tensor(tokens) for tokens, _ in examples]
        return nn.utils.rnn.pack_sequence(tokens, enforce_sorted=False), torch.zeros(len(examples)).long()

    class Packed(nn.Module):
        def forward(self, tokens: nn.utils.rnn.PackedSequence) -> torch.Tensor:
            return nn.utils.rnn.pad_packed_sequence(tokens, batch_first=True)[0][:, :2].float()

    examples = Sentences()
    dataset = Dataset(train=examples, validation=examples, test=examples, classes=("a", "b"), collate=packed)
    program = export_program(Packed(), dataset)
    assert str(program.error).endswith(
        "its inputs hold a PackedSequence, and torch.export takes tensors, such as padded sequences and their lengths "
        "in a dict"
    )
