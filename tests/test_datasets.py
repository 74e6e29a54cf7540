import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import TensorDataset

from hpsearch import Dataset, Split, UsageError, cifar10, digits, fashion_mnist, mnist, points
from hpsearch.datasets import CIFAR10_CLASSES, FASHION_CLASSES, data_folder, fingerprint
from hpsearch.datasets.preprocessing import ImageScaling
from support.image_files import write_cifar10


def splits(dataset: Dataset) -> Iterator[Split]:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split, Split)
        yield split


def rows(split: Split) -> set[bytes]:
    """Return each example's pixels and class."""
    return {
        image.numpy().tobytes() + bytes([target])
        for image, target in zip(split.inputs, split.targets.tolist(), strict=True)
    }


def assert_equal(left: Dataset, right: Dataset) -> None:
    for a, b in zip(splits(left), splits(right), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)


class TestDigits:
    def test_shapes_and_types(self, digits8: Dataset) -> None:
        for split, size in zip(splits(digits8), (1077, 360, 360), strict=True):
            assert split.inputs.shape == (size, 1, 8, 8)
            assert split.inputs.dtype == torch.float32
            assert split.targets.shape == (size,)
            assert split.targets.dtype == torch.int64
            assert len(split) == size
        assert digits8.classes == tuple("0123456789")
        assert digits8.note == ""

    def test_enlarged_to_28_pixels_by_default(self) -> None:
        assert [split.inputs.shape[1:] for split in splits(digits())] == [(1, 28, 28)] * 3

    def test_every_split_has_the_classes_in_proportion(self, digits8: Dataset) -> None:
        whole = sum(torch.bincount(split.targets, minlength=10) for split in splits(digits8))
        assert isinstance(whole, torch.Tensor)
        assert whole.sum() == 1797
        for split in splits(digits8):
            expected = whole * len(split) / 1797
            assert (torch.bincount(split.targets, minlength=10) - expected).abs().max() <= 1.5

    def test_the_splits_are_disjoint_and_make_up_scikit_learns_digits(self, digits8: Dataset) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        # Undo the normalisation by the two pixel values every digit image has: 0 and the brightest, 16.
        low = min(split.inputs.min() for split in splits(digits8))
        high = max(split.inputs.max() for split in splits(digits8))
        found = [
            [*((image.flatten() - low) / (high - low) * 16).round().int().tolist(), int(target)]
            for split in splits(digits8)
            for image, target in zip(split.inputs, split.targets, strict=True)
        ]
        expected = [[*map(int, image), int(target)] for image, target in zip(bunch.data, bunch.target, strict=True)]
        assert sorted(found) == sorted(expected)

    def test_normalised_by_the_training_split(self, digits8: Dataset) -> None:
        train, validation, _ = splits(digits8)
        assert train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
        assert train.inputs.std().item() == pytest.approx(1, abs=1e-5)
        assert validation.inputs.mean().item() != pytest.approx(0, abs=1e-5)

    def test_same_seed_same_split(self, digits8: Dataset) -> None:
        assert_equal(digits(size=8), digits8)
        assert_equal(digits(size=8, seed=0), digits8)

    def test_another_seed_another_split(self, digits8: Dataset) -> None:
        for a, b in zip(splits(digits(size=8, seed=1)), splits(digits8), strict=True):
            assert a.inputs.shape == b.inputs.shape
            assert not torch.equal(a.targets, b.targets)

    def test_the_global_random_state_is_untouched(self) -> None:
        before = torch.get_rng_state()
        digits(size=8)
        assert torch.equal(torch.get_rng_state(), before)


class TestPoints:
    def test_eight_points_in_every_split(self) -> None:
        for dataset in (points(), points(separable=False)):
            train, validation, test = splits(dataset)
            assert train.inputs.shape == (8, 2)
            assert train == validation == test
            assert dataset.classes == ("-", "+")
            assert "all of them for training, validation and test" in dataset.note

    def test_a_line_parts_them(self) -> None:
        train = next(splits(points()))
        # The line x = 2.75.
        assert torch.equal(train.inputs[:, 0] < 2.75, train.targets == 1)

    def test_no_line_parts_them_when_the_origin_changes_sides(self) -> None:
        inputs, targets = next(splits(points(separable=False)))
        on_the_line = {x: int(target) for (x, y), target in zip(inputs.tolist(), targets, strict=True) if x == 2 * y}
        assert [on_the_line[x] for x in sorted(on_the_line)] == [0, 1, 1, 0]
        separable = next(splits(points()))
        labels = [dict(zip(map(tuple, i.tolist()), t.tolist(), strict=True)) for i, t in ((inputs, targets), separable)]
        assert {point for point in labels[0] if labels[0][point] != labels[1][point]} == {(0.0, 0.0)}


class TestDataset:
    split = Split(torch.zeros(3, 2), torch.tensor([0, 1, 0]))

    def test_without_test(self, digits8: Dataset) -> None:
        blind = digits8.without_test()
        assert blind.test is None
        assert digits8.test is not None
        assert blind.preprocessing is blind.raw_test is None
        left = {name: getattr(digits8, name) for name in ("test", "preprocessing", "raw_test")}
        assert replace(blind, **left) == digits8

    def test_inputs_and_targets_of_different_lengths(self) -> None:
        wrong = Split(torch.zeros(3, 2), torch.tensor([0, 1]))
        for name in ("train", "validation", "test"):
            with pytest.raises(UsageError, match=f"dataset: {name} has 3 inputs but 2 targets"):
                Dataset(**{"train": self.split, "validation": self.split, "test": None, "classes": (), name: wrong})

    def test_inputs_that_are_no_tensor(self) -> None:
        wrong = Split({"image": torch.zeros(3, 2)}, torch.tensor([0, 1, 0]))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"dataset: train\.inputs is a dict; it must be one tensor"):
            Dataset(train=wrong, validation=self.split, test=None, classes=("a", "b"))

    def test_an_empty_split(self) -> None:
        for empty in (Split(torch.zeros(0, 2), torch.zeros(0).long()), TensorDataset(torch.zeros(0, 2))):
            with pytest.raises(UsageError, match="dataset: validation is empty"):
                Dataset(train=self.split, validation=empty, test=None, classes=("a", "b"))

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"loader_workers": -1}, "loader_workers must be a whole number of at least 0, got -1"),
            ({"loader_workers": 1.5}, "loader_workers must be a whole number of at least 0, got 1.5"),
            ({"loader_workers": True}, "loader_workers must be a whole number of at least 0, got True"),
            ({"collate": "pad"}, "collate must be a function of a list of examples, got 'pad'"),
            ({"collate": print}, "collate is for the examples of a torch Dataset, but every split is a Split"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError, match=f"^dataset: {said}$"):
            Dataset(train=self.split, validation=self.split, test=None, classes=("a", "b"), **settings)

    def test_a_stream_of_examples(self) -> None:
        class Stream(torch.utils.data.IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                yield torch.zeros(2), 0

        with pytest.raises(UsageError, match="dataset: train is an IterableDataset, which cannot be shuffled"):
            Dataset(train=Stream(), validation=self.split, test=None, classes=("a", "b"))


class TestFingerprint:
    def test_equal_for_equal_data(self, digits8: Dataset) -> None:
        copy = replace(digits8, train=Split(*(part.clone() for part in digits8.train)))
        assert fingerprint(copy) == fingerprint(digits8)
        assert fingerprint(digits8)["train"].startswith("1,077 examples, ")

    def test_does_not_look_at_the_test_split(self, digits8: Dataset) -> None:
        assert fingerprint(digits8.without_test()) == fingerprint(digits8)

    @pytest.mark.parametrize("name", ["train", "validation"])
    @pytest.mark.parametrize("place", [(0, 0, 0, 0), (200, 0, 3, 4), (-1, 0, 7, 7)])
    def test_changes_with_one_pixel(self, digits8: Dataset, name: str, place: tuple[int, ...]) -> None:
        inputs, targets = getattr(digits8, name)
        inputs = inputs.clone()
        inputs[place] += 1e-3
        changed = fingerprint(replace(digits8, **{name: Split(inputs, targets)}))
        assert {key for key, text in fingerprint(digits8).items() if changed[key] != text} == {name}

    def test_changes_with_one_target(self, digits8: Dataset) -> None:
        inputs, targets = digits8.train  # type: ignore[misc]
        targets = targets.clone()
        targets[5] = (targets[5] + 1) % 10
        assert fingerprint(replace(digits8, train=Split(inputs, targets))) != fingerprint(digits8)

    def test_changes_with_the_classes_names_and_the_order_of_examples(self, digits8: Dataset) -> None:
        inputs, targets = digits8.train  # type: ignore[misc]
        flipped = replace(digits8, train=Split(inputs.flip(0), targets.flip(0)))
        assert fingerprint(flipped) != fingerprint(digits8)
        assert fingerprint(replace(digits8, classes=tuple("abcdefghij"))) != fingerprint(digits8)

    def test_of_a_torch_dataset(self) -> None:
        def of(first_pixel: float, size: int) -> dict[str, str]:
            inputs = torch.zeros(size, 4)
            inputs[0, 0] = first_pixel
            examples = TensorDataset(inputs, torch.zeros(size).long())
            return fingerprint(Dataset(train=examples, validation=examples, test=None, classes=("a",)))

        assert of(0.0, 5) == of(0.0, 5)
        assert len({str(of(pixel, size)) for pixel, size in [(0.0, 5), (1.0, 5), (0.0, 6)]}) == 3


class Noisy(torch.utils.data.Dataset[Any]):
    """Examples with noise from a source that is given: what `noise()` returns is added."""

    def __init__(self, noise: Callable[[], float], offset: float = 0.0, size: int = 9) -> None:
        self.noise = noise
        self.offset = offset
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3,), index + self.offset + self.noise()), index % 2


def fingerprint_of(examples: Any) -> dict[str, str]:
    return fingerprint(Dataset(train=examples, validation=examples, test=None, classes=("a", "b")))


class TestFingerprintOfAugmentedData:
    @pytest.mark.parametrize(
        "noise",
        [random.random, np.random.standard_normal, lambda: torch.randn(()).item(), np.random.default_rng().normal],
        ids=["random", "numpy", "torch", "a generator of its own"],
    )
    def test_does_not_depend_on_the_draw(self, noise: Callable[[], float]) -> None:
        first = fingerprint_of(Noisy(noise))
        random.random(), np.random.rand(), torch.rand(1)
        assert fingerprint_of(Noisy(noise)) == first
        assert fingerprint_of(Noisy(noise, size=10)) != first

    @pytest.mark.parametrize("noise", [random.random, np.random.standard_normal, lambda: torch.randn(()).item()])
    def test_depends_on_the_data_all_the_same(self, noise: Callable[[], float]) -> None:
        assert fingerprint_of(Noisy(noise, offset=1.0)) != fingerprint_of(Noisy(noise))

    def test_a_change_in_the_last_example_shows(self) -> None:
        inputs, targets = torch.zeros(9, 3), torch.zeros(9).long()
        before = fingerprint_of(TensorDataset(inputs, targets))
        for changed in (4, 8):
            other = inputs.clone()
            other[changed] = 1.0
            assert fingerprint_of(TensorDataset(other, targets)) != before

    def test_leaves_the_processs_random_states_alone(self) -> None:
        before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
        fingerprint_of(Noisy(lambda: random.random() + np.random.rand() + torch.rand(()).item()))
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert np.random.get_state()[1].tolist() == before[2]

    def test_of_nested_examples_depends_on_every_part(self) -> None:
        @dataclass
        class Example:
            words: str
            numbers: list[Any]

        def of(collated: bool = True, **changes: Any) -> dict[str, str]:
            parts = {"words": "a b", "image": torch.zeros(2), "sizes": (1, 2.5), "mask": np.ones(3), "none": None}
            examples: Any = [(parts | changes, 1)] * 3
            if collated:
                examples = [Example("a b", [parts | changes])] * 3
            data = Dataset(
                train=examples,
                validation=examples,
                test=None,
                classes=("a", "b"),
                collate=(lambda examples: (torch.zeros(1), torch.zeros(1))) if collated else None,
            )
            return fingerprint(data)

        for collated in (True, False):
            assert of(collated) == of(collated)
            changes = [
                {"words": "a c"},
                {"image": torch.ones(2)},
                {"sizes": (1, 2)},
                {"sizes": (1, 2.5, 3)},
                {"mask": np.zeros(3)},
                {"none": ""},
                {"more": 1},
            ]
            assert len({str(of(collated, **change)) for change in [{}, *changes]}) == len(changes) + 1

    def test_depends_on_the_collate_function(self) -> None:
        examples: Any = [torch.zeros(length) for length in (1, 2, 3)]

        def of(padding: float) -> dict[str, str]:
            def collate(sequences: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
                return pad_sequence(sequences, padding_value=padding), torch.zeros(len(sequences))

            return fingerprint(Dataset(train=examples, validation=examples, test=None, classes=("a",), collate=collate))

        assert of(0.0) == of(0.0)
        assert of(0.0) != of(1.0)

    @pytest.mark.parametrize(
        "draw",
        [
            lambda index, generator: {"text": "a" * generator.integers(1, 1000), "index": index},
            lambda index, generator: {"numbers": torch.zeros(int(generator.integers(1, 1000))), "index": index},
            lambda index, generator: {"index": index} | {str(generator.integers(0, 2)): 0},
            lambda index, generator: {"index": index, "object": object(), "image": Image.new("L", (2, 2), index)},
        ],
    )
    def test_of_nested_examples_does_not_depend_on_a_draw_or_an_address(self, draw: Callable[..., Any]) -> None:
        def of(first: int) -> dict[str, str]:
            generator = np.random.default_rng()

            class Drawn(list[int]):
                def __getitem__(self, index: Any) -> Any:
                    return draw(first + index, generator)

            examples: Any = Drawn(range(5))
            return fingerprint(
                Dataset(
                    train=examples,
                    validation=examples,
                    test=None,
                    classes=("a",),
                    collate=lambda examples: (torch.zeros(1), torch.zeros(1)),
                )
            )

        assert of(0) == of(0)
        assert of(1) != of(0)

    def test_takes_complex_inputs(self) -> None:
        split = Split(torch.randn(4, 2, dtype=torch.complex64), torch.zeros(4).long())
        assert fingerprint_of(split) != fingerprint_of(Split(split.inputs.conj(), split.targets))


def real_data(*parts: str) -> Path:
    """Return the folder with the real data sets; skip the test where it is not there."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("HPSEARCH_DATA") or beside)
    if not root.joinpath(*parts).is_dir():
        pytest.skip(f"needs {'/'.join(parts)} in $HPSEARCH_DATA")
    return root


class TestMnist:
    def test_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(real_data("MNIST", "raw")))
        dataset = mnist()
        train, validation, test = splits(dataset)
        assert [split.inputs.shape for split in (train, validation, test)] == [
            (50_000, 1, 28, 28),
            (10_000, 1, 28, 28),
            (10_000, 1, 28, 28),
        ]
        assert train.inputs.mean().item() == pytest.approx(0, abs=1e-3)
        assert train.inputs.std().item() == pytest.approx(1, abs=1e-3)
        # Numbers of ones known from the data set's description: 6,742 of the 60,000 and 1,135 of the 10,000.
        assert (train.targets == 1).sum() + (validation.targets == 1).sum() == 6742
        assert (test.targets == 1).sum() == 1135
        assert (validation.targets == 1).sum().item() == pytest.approx(6742 / 6, abs=1)
        # The official first test image is a seven.
        assert test.targets[0] == 7
        assert dataset.note == ""

    def test_a_stratified_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(real_data("MNIST", "raw")))
        dataset = mnist(train_size=500)
        assert [len(split) for split in splits(dataset)] == [500, 10_000, 10_000]
        counts = torch.bincount(next(splits(dataset)).targets, minlength=10)
        shares = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
        assert (counts - 500 * shares).abs().max() <= 1.5


class TestFashionMnist:
    @pytest.fixture
    def folder(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = real_data("fashion-mnist-sample", "FashionMNIST", "raw")
        monkeypatch.setenv("HPSEARCH_DATA", str(root))
        return root

    def test_a_sample_says_so(self, folder: Path) -> None:
        dataset = fashion_mnist()
        assert [len(split) for split in splits(dataset)] == [3000, 600, 1750]
        assert dataset.note == (
            "a sample of Fashion-MNIST (3,000 training, 600 validation images), not the whole of it"
        )
        assert dataset.classes == FASHION_CLASSES

    def test_the_note_counts_the_part_taken(self, folder: Path) -> None:
        dataset = fashion_mnist(train_size=100)
        assert dataset.note.startswith("a sample of Fashion-MNIST (100 training, 600 validation images)")
        train, validation, _ = splits(dataset)
        assert len(rows(train)) == 100
        assert not rows(train) & rows(validation)
        assert train.inputs.mean().item() == pytest.approx(0, abs=1e-5)

    def test_same_seed_same_part(self, folder: Path) -> None:
        assert_equal(fashion_mnist(train_size=50, seed=3), fashion_mnist(train_size=50, seed=3))

    def test_every_size_up_to_all_of_it(self, folder: Path) -> None:
        for size in (10, 2_989, 2_995, 2_999, 3_000):
            assert len(next(splits(fashion_mnist(train_size=size)))) == size

    @pytest.mark.parametrize("size", [0, 9, 3001])
    def test_a_wrong_size(self, folder: Path, size: int) -> None:
        with pytest.raises(UsageError, match=f"FashionMNIST: train_size must be from 10 to 3000, got {size}"):
            fashion_mnist(train_size=size)

    def test_the_sample_is_found_after_a_download_that_failed(
        self, folder: Path, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        with pytest.raises(UsageError):
            fashion_mnist()
        shutil.copytree(folder / "fashion-mnist-sample", tmp_path / "fashion-mnist-sample")
        assert fashion_mnist().note.startswith("a sample")


def test_images_are_normalised_to_the_bit_as_torch_does_it_in_double_precision() -> None:
    """The fingerprints of stored studies depend on it."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 1, 9, 9), dtype=np.uint8))
    inputs = ImageScaling(pixels, {})(pixels)
    floats = pixels.float() / 255
    mean, deviation = floats.double().mean().float(), floats.double().std().float()
    assert torch.equal(inputs, (floats - mean) / deviation)


class TestCifar10:
    @pytest.fixture
    def pixels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        return write_cifar10(tmp_path, monkeypatch)

    def test_the_images_normalised_by_channel(self, pixels: np.ndarray) -> None:
        dataset = cifar10()
        train, validation, test = splits(dataset)
        assert [split.inputs.shape for split in (train, validation, test)] == [
            (50, 3, 32, 32),
            (5000, 3, 32, 32),
            (1010, 3, 32, 32),
        ]
        assert dataset.classes == CIFAR10_CLASSES
        assert test.targets.tolist() == [(5050 + index) % 10 for index in range(1010)]
        torch.testing.assert_close(train.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(train.inputs.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
        # Up to a scale and a shift for each channel, the test images are those in the file.
        for channel in range(3):
            raw = torch.from_numpy(pixels[5050:, channel].astype(np.float32))
            scale = (raw.max() - raw.min()) / (test.inputs[:, channel].max() - test.inputs[:, channel].min())
            shifted = (test.inputs[:, channel] - test.inputs[:, channel].min()) * scale + raw.min()
            torch.testing.assert_close(shifted, raw, atol=1e-2, rtol=0)

    def test_a_stratified_part(self, pixels: np.ndarray) -> None:
        train, *_ = splits(cifar10(train_size=20))
        assert torch.bincount(train.targets).tolist() == [2] * 10

    def test_a_damaged_file_is_not_read(self, pixels: np.ndarray, tmp_path: Path, offline: None) -> None:
        path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UsageError, match=r"CIFAR10 is neither in .* nor can it be downloaded"):
            cifar10()
        assert path.exists()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point torchvision's mirrors at a port where nothing listens."""
    from hpsearch.datasets import import_torchvision

    datasets = import_torchvision("datasets")
    for cls in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(cls, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class TestAbsentAndOffline:
    @pytest.mark.parametrize(
        ("load", "name", "files"),
        [
            (mnist, "MNIST", "MNIST/raw"),
            (fashion_mnist, "FashionMNIST", "FashionMNIST/raw"),
            (cifar10, "CIFAR10", "cifar-10-batches-py"),
        ],
    )
    def test_both_remedies_are_named(
        self,
        load: "type[Dataset]",
        name: str,
        files: str,
        offline: None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        with pytest.raises(UsageError) as raised:
            load()
        message = str(raised.value)
        assert message.startswith(f"{name} is neither in {tmp_path} nor can it be downloaded")
        assert f"--data FOLDER (or set HPSEARCH_DATA) where FOLDER/{files} holds its files" in message
        assert "run once with a network" in message
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"{name} is not in {tmp_path}: downloading\n"

    def test_the_message_is_one_line(self, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        with pytest.raises(UsageError) as raised:
            mnist()
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("load", [mnist, cifar10])
    def test_nothing_is_left_behind(
        self, load: Callable[[], Dataset], offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        with pytest.raises(UsageError):
            load()
        assert list(tmp_path.iterdir()) == []

    def test_the_data_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        assert data_folder() == tmp_path
        monkeypatch.delenv("HPSEARCH_DATA")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert data_folder() == tmp_path / ".cache" / "hpsearch" / "data"
