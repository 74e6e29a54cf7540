"""Colour photographs in class folders: 5,391 JPEGs of 32x32, augmented, by macro F1.

Your own: `dataset=partial(images, "FOLDER")` for `FOLDER/CLASS/*.jpg`. Here the folder is made first, of scikit-learn's
digits in random colours.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from hpsearch import Adam, Dataset, OneCycle, RandomCrop, RandomRotation, Recipe, Space, Study, images


def make_photos(folder: Path) -> None:
    """Write each digit as three JPEGs, in a random colour on another one."""
    pixels, classes = load_digits(return_X_y=True)
    colours = np.random.default_rng(0).uniform(0, 255, (3, len(classes), 2, 1, 1, 3))
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for copy in range(3):
        for number, (image, name) in enumerate(zip(pixels.reshape(-1, 8, 8, 1) / 16, classes, strict=True)):
            ink, paper = colours[copy, number]
            (unfinished / str(name)).mkdir(parents=True, exist_ok=True)
            photo = Image.fromarray((image * ink + (1 - image) * paper).astype(np.uint8))
            photo.resize((32, 32)).save(unfinished / str(name) / f"{number}-{copy}.jpg")
    unfinished.rename(folder)


def photos() -> Dataset:
    """Return the photographs, which are made at the first time."""
    if not (folder := Path("data/photos")).exists():
        make_photos(folder)
    return images(folder)


def recipe(space: Space) -> Recipe:
    """Convolutions twice, and how much the photographs are moved and turned."""
    width = space.int("width", 8, 32, log=True)
    return Recipe(
        model=nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Flatten(), nn.Linear(2 * width * 49, 10),
        ),
        optimizer=Adam(lr=space.float("lr", 1e-4, 1e-1, log=True)),
        schedule=OneCycle(),
        augment=[RandomCrop(space.int("padding", 0, 4)), RandomRotation(space.float("degrees", 0, 30))],
        batch_size=128,
    )  # fmt: skip


study = Study(recipe=recipe, dataset=photos, measure="macro F1", also=["accuracy"], epochs=5, n_trials=10)
