"""Images in folders that are named by their classes."""

import multiprocessing
import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpsearch.datasets.dataset import Dataset, Split
from hpsearch.datasets.folders import find
from hpsearch.datasets.preprocessing import ImageScaling, about_images, preprocessed
from hpsearch.datasets.splitting import split_off
from hpsearch.errors import UsageError
from hpsearch.text import brief

# Those that torchvision's `ImageFolder` reads.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Lower-case names of the folders that hold a split.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
# Decoding so many images takes long enough to show its progress.
MANY = 5_000
# So many bytes of images deserve a note.
LARGE = 10**9


def images(
    folder: str | Path,
    *,
    size: int | tuple[int, int] = 32,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    grey: bool = False,
) -> Dataset:
    """Images in one folder for each class, as torchvision's `ImageFolder` reads them, in memory.

    They are in `folder/CLASS/`, and shares of `validation` and `test` are split off, stratified; or the splits are
    given as `folder/train/CLASS/`, `folder/validation/CLASS/` (or `val`) and `folder/test/CLASS/`. Of given splits, a
    missing validation split is the share `validation` of the training split, and a missing test split remains missing.
    A relative `folder` is looked up in the working directory, then in the data folder. Hidden files and folders do
    not count.

    Every image is resized, antialiased, until it covers `size` (the side of a square, or height and width), and cropped
    at its centre. Inputs are (N, 3, height, width), or (N, 1, height, width) with `grey`; each channel has zero mean
    and unit variance over the training split.

    Raises UsageError for a folder that does not exist, has fewer than two classes or a class without images, for
    splits with different classes, for classes too small to be split, and for a file that is no image or damaged.
    """
    height, width = _height_and_width(size)
    root = find(folder)
    if not root.is_dir():
        raise UsageError(f"{root} is a file: images are read from a folder with one folder for each class")
    folders = _split_folders(root)
    classes = _classes(folders.get("train", root))
    files = {name: _files(path, classes) for name, path in (folders or {"all": root}).items()}
    pixels = _decoded([path for split in files.values() for path, _ in split], height, width, "L" if grey else "RGB")
    bounds = pairwise(accumulate(map(len, files.values()), initial=0))
    splits = {
        name: Split(pixels[start:end], torch.tensor([target for _, target in split]))
        for (name, split), (start, end) in zip(files.items(), bounds, strict=True)
    }
    shares = {"validation": validation} if folders else {"test": test, "validation": validation}
    if "validation" not in splits:
        whole = splits.pop("train" if folders else "all")
        parts = split_off(whole, shares, seed=seed, classes=classes, noun="image")
        splits |= dict(zip(("train", *shares), parts, strict=True))
    return preprocessed(
        ImageScaling(splits["train"].inputs, about_images(pixels, resized=True)),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        classes=classes,
        note=_note(pixels),
    )


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not all(_is_length(side) for side in sides):
        raise UsageError(f"size must be a number of pixels, or a pair (height, width) of them, got {brief(size)}")
    return sides[0], sides[1]


def _is_length(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and side >= 1


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder in the order of their names."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from error


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the given splits, by split; none if the folders in `root` are classes."""
    found: dict[str, Path] = {}
    others = []
    for path in _folders(root):
        split = next((split for split, names in SPLIT_FOLDERS.items() if path.name.lower() in names), None)
        if split is None:
            others.append(path.name)
        elif split in found:
            raise UsageError(f"{root} has both {found[split].name} and {path.name}: keep one of them")
        else:
            found[split] = path
    # Among other folders, a train may be a class, beside cars and buses.
    if not found or (others and ("train" not in found or len(found) == 1)):
        return {}
    given = ", ".join(path.name for path in found.values())
    if others:
        raise UsageError(f"{root} has {brief(others[0])} beside {given}: it must hold either splits or classes")
    if "train" not in found:
        raise UsageError(f"{root} has {given} but no train folder")
    return found


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(path.name for path in _folders(folder))
    if not classes:
        raise UsageError(f"{folder} has no class folders: images are expected in {folder}/CLASS/")
    if len(classes) == 1:
        raise UsageError(f"{folder} has a single class folder, {classes[0]!r}: two are needed")
    return classes


def _files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the images of a split, each with its class's number, by class and then as `ImageFolder` sorts them."""
    found = [path.name for path in _folders(folder)]
    missing = [name for name in classes if name not in found]
    if missing:
        raise UsageError(f"{folder} has no folder of class {missing[0]!r}, which the training split has")
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise UsageError(f"{folder} has a folder of class {unknown[0]!r}, which the training split does not have")
    files = []
    for target, name in enumerate(classes):
        paths = [
            Path(parent, file)
            for parent, _, names in sorted(os.walk(folder / name, followlinks=True))
            for file in sorted(names)
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        ]
        if not paths:
            raise UsageError(f"class folder {folder / name} has no images ({', '.join(EXTENSIONS)})")
        files += [(path, target) for path in paths]
    return files


def _decoded(paths: Sequence[Path], height: int, width: int, mode: str) -> Tensor:
    """Return images, shape (N, channels, height, width), uint8. Each letter of Pillow's `mode` is a channel."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    # Workers that load their own data would all draw on the same terminal.
    silent = len(paths) <= MANY or not console.is_terminal or multiprocessing.parent_process() is not None
    pixels = torch.empty((len(paths), len(mode), height, width), dtype=torch.uint8)
    shown = track(paths, f"Reading {len(paths):,} images", console=console, transient=True, disable=silent)
    for index, path in enumerate(shown):
        pixels[index] = torch.from_numpy(_decode(path, height, width, mode))
    return pixels


def _decode(path: Path, height: int, width: int, mode: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    from PIL import Image

    # Pillow raises errors of many types for damaged files.
    try:
        with Image.open(path) as file:
            kind = file.mode
            image = file.convert(mode)
    except Exception as error:
        raise UsageError(f"{path} is no image or damaged ({' '.join(str(error).split())}): remove it") from error
    if kind[0] in "IF":
        raise UsageError(f"{path} has more than 8 bits per channel, which are not supported: convert it to 8 bits")
    # As torchvision's `Resize` and `CenterCrop` do it, in whole pixels.
    across, down = image.size
    resized = max(width, height * across // down), max(height, width * down // across)
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    image = image.crop((left, top, left + width, top + height))
    return np.array(image).reshape(height, width, -1).transpose(2, 0, 1)


def _note(pixels: Tensor) -> str:
    size = pixels.numel() * torch.float32.itemsize
    if size <= LARGE:
        return ""
    return f"{len(pixels):,} images of {'x'.join(map(str, pixels.shape[1:]))}, {size / 1e9:.1f} GB of memory"
