import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hpsearch import Dataset, Split, UsageError, images
from hpsearch.datasets import fingerprint, image_folder, import_torchvision
from support.in_process import hpsearch_here

CLASSES = ("eight", "five", "one", "zero")
COUNTS = (30, 25, 20, 15)


def write(folder: Path, counts: tuple[int, ...] = COUNTS, *, start: int = 0) -> Path:
    """Write digits as coloured images of several sizes, JPEG and PNG, in one folder for each class."""
    bunch = load_digits()
    for name, count in zip(CLASSES, counts, strict=True):
        (folder / name).mkdir(parents=True)
        number = {"eight": 8, "five": 5, "one": 1, "zero": 0}[name]
        for index, image in enumerate(bunch.images[bunch.target == number][start : start + count]):
            grey = Image.fromarray((image * 15).astype(np.uint8))
            colours = Image.merge(
                "RGB", (grey, grey.transpose(Image.Transpose.ROTATE_90), grey.point(lambda v: v // 2))
            )
            size = (20 + index % 5, 24 - index % 7)
            colours.resize(size).save(folder / name / f"{index}.{'jpg' if index % 2 else 'PNG'}")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "digits")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder whose splits are given."""
    for start, name in enumerate(("train", "val", "test")):
        write(tmp_path / "given" / name, (12, 11, 10, 9), start=20 * start)
    return tmp_path / "given"


def splits(dataset: Dataset) -> Iterator[Split]:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split, Split)
        yield split


def by_torchvision(folder: Path, height: int, width: int, *, grey: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images, in [0, 1], and their classes as `ImageFolder` and torchvision's transforms give them."""
    transforms = import_torchvision("transforms")

    def cover(image: Any) -> Any:
        scale = max(height / image.height, width / image.width)
        return (
            image
            if height == width
            else transforms.Resize((int(image.height * scale), int(image.width * scale)))(image)
        )

    steps = [transforms.Resize(height) if height == width else cover, transforms.CenterCrop((height, width))]
    transform = transforms.Compose([*([transforms.Grayscale()] if grey else []), *steps, transforms.ToTensor()])
    examples = import_torchvision("datasets").ImageFolder(str(folder), transform=transform)
    return torch.stack([image for image, _ in examples]), torch.tensor(examples.targets)


class TestImages:
    def test_shares_are_stratified_as_scikit_learn_does(self, folder: Path) -> None:
        dataset = images(folder, size=16, validation=0.2, test=0.3, seed=5)
        pixels, targets = by_torchvision(folder, 16, 16)
        rest, test = train_test_split(range(90), test_size=27, stratify=targets, random_state=5)
        train, validation = train_test_split(rest, test_size=18, stratify=targets[rest], random_state=5)
        mean, deviation = pixels[train].mean((0, 2, 3)), pixels[train].std((0, 2, 3))
        for split, indices in zip(splits(dataset), (train, validation, test), strict=True):
            assert split.inputs.dtype == torch.float32
            expected = (pixels[indices] - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
            torch.testing.assert_close(split.inputs, expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(split.targets, targets[indices])
        assert dataset.classes == CLASSES
        assert dataset.note == ""

    def test_given_splits_are_kept(self, given: Path) -> None:
        dataset = images(given, size=(20, 12), validation=0.4)
        for split, name in zip(splits(dataset), ("train", "val", "test"), strict=True):
            pixels, targets = by_torchvision(given / name, 20, 12)
            assert split.inputs.shape == (42, 3, 20, 12)
            assert torch.equal(split.targets, targets)
            if name == "train":
                mean, deviation = pixels.mean((0, 2, 3)).view(-1, 1, 1), pixels.std((0, 2, 3)).view(-1, 1, 1)
            torch.testing.assert_close(split.inputs, (pixels - mean) / deviation, atol=1e-4, rtol=1e-4)

    def test_validation_is_split_off_where_it_is_missing(self, given: Path) -> None:
        before = images(given, size=8)
        shutil.rmtree(given / "val")
        dataset = images(given, size=8, validation=0.25)
        assert [len(split) for split in splits(dataset)] == [32, 10, 42]
        assert torch.bincount(dataset.validation.targets).tolist() == [3, 3, 2, 2]  # type: ignore[union-attr]
        assert torch.equal(dataset.test.targets, before.test.targets)  # type: ignore[union-attr]

    def test_no_test_folder_no_test_split(self, given: Path) -> None:
        shutil.rmtree(given / "test")
        assert images(given, size=8).test is None

    @pytest.mark.parametrize("name", ["validation", "valid", "Val"])
    def test_names_of_the_validation_folder(self, given: Path, name: str) -> None:
        before = fingerprint(images(given, size=8))
        (given / "val").rename(given / name)
        assert fingerprint(images(given, size=8)) == before

    def test_a_class_named_train(self, folder: Path) -> None:
        (folder / "zero").rename(folder / "train")
        assert images(folder, size=8).classes == ("eight", "five", "one", "train")

    def test_every_channel_is_normalised_by_the_training_split(self, folder: Path) -> None:
        train, validation, _ = splits(images(folder))
        assert train.inputs.shape == (54, 3, 32, 32)
        torch.testing.assert_close(train.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(train.inputs.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
        assert (validation.inputs.mean((0, 2, 3)).abs() > 1e-3).all()

    def test_grey(self, given: Path) -> None:
        train, *_ = splits(images(given, size=16, grey=True))
        pixels, _ = by_torchvision(given / "train", 16, 16, grey=True)
        assert train.inputs.shape == (42, 1, 16, 16)
        torch.testing.assert_close(train.inputs, (pixels - pixels.mean()) / pixels.std(), atol=1e-4, rtol=1e-4)

    def test_a_constant_channel_is_zero(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            for index in range(6):
                Image.new("RGB", (4, 4), (40 * index, 7, 0)).save(tmp_path / name / f"{index}.png")
        train, *_ = splits(images(tmp_path, size=4))
        assert train.inputs.isfinite().all()
        assert train.inputs[:, 1:].abs().max() < 1e-6

    def test_modes_with_a_palette_and_with_transparency(self, folder: Path) -> None:
        for path in sorted((folder / "one").glob("*.PNG"))[:4]:
            Image.open(path).convert("P").save(path)
        for path in sorted((folder / "five").glob("*.PNG"))[:4]:
            Image.open(path).convert("RGBA").save(path)
        assert sum(len(split) for split in splits(images(folder, size=8))) == 90

    def test_hidden_files_and_other_files_do_not_count(self, folder: Path) -> None:
        before = fingerprint(images(folder, size=8))
        (folder / ".cache").mkdir()
        (folder / "one" / "._0.jpg").write_bytes(b"resource fork")
        (folder / "one" / "notes.txt").write_text("")
        (folder / "labels.csv").write_text("")
        assert fingerprint(images(folder, size=8)) == before

    def test_images_in_folders_within_a_class(self, folder: Path) -> None:
        (folder / "one" / "more").mkdir()
        for path in sorted((folder / "one").glob("1*.*")):
            path.rename(folder / "one" / "more" / path.name)
        total = torch.cat([split.targets for split in splits(images(folder, size=8))])
        assert torch.bincount(total).tolist() == list(COUNTS)

    def test_links_to_folders_are_followed(self, folder: Path, tmp_path: Path) -> None:
        before = fingerprint(images(folder, size=8))
        (folder / "one").rename(tmp_path / "elsewhere")
        (folder / "one").mkdir()
        (folder / "one" / "linked").symlink_to(tmp_path / "elsewhere")
        (folder / "five").rename(tmp_path / "five")
        (folder / "five").symlink_to(tmp_path / "five")
        assert fingerprint(images(folder, size=8)) == before

    def test_the_extensions_are_torchvisions(self) -> None:
        assert import_torchvision("datasets.folder").IMG_EXTENSIONS == image_folder.EXTENSIONS

    def test_a_relative_folder_is_looked_up_in_the_data_folder(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        found = fingerprint(images("digits", size=8))
        assert found == fingerprint(images(folder, size=8))
        # The working directory comes first.
        write(tmp_path / "elsewhere" / "digits", start=40)
        assert fingerprint(images("digits", size=8)) != found

    def test_memory_of_many_images_is_noted(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_folder, "LARGE", 90 * 3 * 300 * 300 * 4 - 1)
        assert images(folder, size=300).note == "90 images of 3x300x300, 0.1 GB of memory"
        assert images(folder, size=299).note == ""


class TestProgress:
    def test_many_images_on_a_terminal(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        images(folder, size=8)
        assert capsys.readouterr() == ("", "")
        monkeypatch.setattr(image_folder, "MANY", 89)
        images(folder, size=8)
        out, err = capsys.readouterr()
        assert out == ""
        assert "Reading 90 images" in err

    def test_no_terminal_no_progress(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(image_folder, "MANY", 0)
        images(folder, size=8)
        assert capsys.readouterr() == ("", "")


class TestSeed:
    def test_same_seed_same_split(self, folder: Path) -> None:
        assert fingerprint(images(folder, size=8, seed=3)) == fingerprint(images(folder, size=8, seed=3))

    def test_another_seed_another_split(self, folder: Path) -> None:
        assert fingerprint(images(folder, size=8, seed=3)) != fingerprint(images(folder, size=8))

    def test_the_same_folder_in_another_process(self, folder: Path) -> None:
        code = (
            "import sys; from hpsearch import images; from hpsearch.datasets import fingerprint; "
            "print(fingerprint(images(sys.argv[1], size=8)))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(fingerprint(images(folder, size=8)))

    def test_one_changed_image_changes_the_fingerprint(self, folder: Path) -> None:
        before = fingerprint(images(folder, size=8, test=0.05))
        splits_changed = set()
        for path in sorted((folder / "one").iterdir()):
            content = path.read_bytes()
            Image.open(path).convert("RGB").point(lambda value: min(255, value + 90)).save(path)
            after = fingerprint(images(folder, size=8, test=0.05))
            splits_changed |= {name for name in before if before[name] != after[name]}
            path.write_bytes(content)
        assert splits_changed == {"train", "validation"}


class TestErrors:
    def refused(self, folder: Path | str, **options: Any) -> str:
        with pytest.raises(UsageError) as raised:
            images(folder, **{"size": 8, **options})
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_no_such_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.refused(tmp_path / "cats") == f"there is no {tmp_path}/cats"
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        message = self.refused("cats")
        assert message.startswith(f"there is no cats, neither in {Path.cwd()} nor in the data folder {tmp_path}: ")

    def test_a_file_instead_of_a_folder(self, folder: Path) -> None:
        assert "0.PNG is a file: images are read from a folder" in self.refused(folder / "one" / "0.PNG")

    def test_no_path(self) -> None:
        assert self.refused(None) == "expected the path of a file or folder, got None"  # type: ignore[arg-type]

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path) == f"{tmp_path} has no class folders: images are expected in {tmp_path}/CLASS/"

    def test_images_without_class_folders(self, folder: Path) -> None:
        assert "one has no class folders" in self.refused(folder / "one")

    def test_a_class_folder_without_images(self, folder: Path) -> None:
        (folder / "two").mkdir()
        assert f"class folder {folder}/two has no images (.jpg, " in self.refused(folder)

    def test_a_damaged_image_is_named(self, folder: Path) -> None:
        path = folder / "five" / "3.jpg"
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"not an image", b""):
            path.write_bytes(content)
            assert self.refused(folder).startswith(f"{path} is no image or damaged (")

    def test_a_damaged_png_is_named(self, folder: Path) -> None:
        path = folder / "five" / "2.PNG"
        content = bytearray(path.read_bytes())
        content[60] ^= 0xFF
        path.write_bytes(bytes(content))
        assert self.refused(folder).startswith(f"{path} is no image or damaged (")

    def test_sixteen_bits(self, folder: Path) -> None:
        path = folder / "five" / "2.PNG"
        Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)).save(path)
        assert self.refused(folder).startswith(f"{path} has more than 8 bits per channel")

    @pytest.mark.parametrize("name", ["val", "test"])
    def test_a_class_missing_in_a_split(self, given: Path, name: str) -> None:
        shutil.rmtree(given / name / "one")
        assert self.refused(given) == f"{given}/{name} has no folder of class 'one', which the training split has"

    def test_a_class_missing_in_train(self, given: Path) -> None:
        shutil.rmtree(given / "train" / "one")
        assert "test has a folder of class 'one', which the training split does not have" in self.refused(given)

    def test_a_single_class(self, folder: Path) -> None:
        for name in CLASSES[1:]:
            shutil.rmtree(folder / name)
        assert self.refused(folder) == f"{folder} has a single class folder, 'eight': two are needed"

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_class_too_small_to_be_split(self, tmp_path: Path, count: int) -> None:
        write(tmp_path, (30, 25, count, 15))
        assert f"class 'one' has {count} image{'s' * (count > 1)}, too few to be in every split" in self.refused(
            tmp_path
        )

    def test_a_share_too_small_for_every_class(self, folder: Path) -> None:
        message = self.refused(folder, validation=0.02)
        assert "class 'zero' has 15 images, too few to be in every split with test=0.2 and validation=0.02" in message

    @pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, True, "0.2", float("nan")])
    def test_a_wrong_share(self, folder: Path, share: Any) -> None:
        for name in ("validation", "test"):
            assert self.refused(folder, **{name: share}).startswith(f"{name} must be a share between 0 and 1, got ")

    def test_shares_that_leave_nothing(self, folder: Path) -> None:
        message = "test=0.5 and validation=0.5 leave nothing to train on: their sum must be less than 1"
        assert self.refused(folder, validation=0.5, test=0.5) == message

    @pytest.mark.parametrize("size", [0, -3, True, 2.5, "32", (8,), (8, 0), (8, 8, 3), None])
    def test_a_wrong_size(self, folder: Path, size: Any) -> None:
        assert self.refused(folder, size=size).startswith("size must be a number of pixels, or a pair (height, width)")

    def test_two_validation_folders(self, given: Path) -> None:
        shutil.copytree(given / "val", given / "validation")
        assert self.refused(given) == f"{given} has both val and validation: keep one of them"

    def test_splits_without_train(self, given: Path) -> None:
        shutil.rmtree(given / "train")
        assert self.refused(given) == f"{given} has test, val but no train folder"

    def test_a_class_beside_splits(self, given: Path) -> None:
        shutil.copytree(given / "val" / "one", given / "one")
        assert "has 'one' beside test, train, val: it must hold either splits or classes" in self.refused(given)


STUDY = '''"""Digits from image files."""

from functools import partial

from hpsearch import MLP, Adam, Recipe, Space, Study, images


def recipe(space: Space) -> Recipe:
    lr = space.float("lr", 1e-3, 1e-1, log=True)
    return Recipe(model=MLP(inputs=192, hidden=(8,), classes=4), optimizer=Adam(lr=lr), batch_size=8)


study = Study(recipe=recipe, dataset=partial(images, "digits", size=8), epochs=3)
'''


def test_a_study_of_images_from_its_first_trial_to_the_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shapes.py").write_text(STUDY)
    options = ("--study", "./shapes.py", "--sampler", "random", "--pruner", "none", "--workers", "0")
    assert not hpsearch_here(tmp_path, "check", "--study", "./shapes.py")
    assert hpsearch_here(tmp_path, "run", *options, "--n-trials", "2") == 0
    assert hpsearch_here(tmp_path, "run", *options, "--n-trials", "3") == 0
    capsys.readouterr()
    assert hpsearch_here(tmp_path, "report", "--study", "./shapes.py") == 0
    trials = (tmp_path / "reports/shapes/trials.csv").read_text().splitlines()
    assert len(trials) == 1 + 3
    Image.new("RGB", (20, 20), "white").save(sorted((folder / "one").iterdir())[0])
    with pytest.raises(UsageError, match="data train was"):
        hpsearch_here(tmp_path, "run", *options, "--n-trials", "4")
