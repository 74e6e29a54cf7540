"""Sequences of different length, through a `collate` of one's own and two loader processes.

A digit is the sequence of its inked pixels, row by row: 20 to 50 of them, each with its row, column and ink.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hpsearch import Adam, Dataset, OneCycle, Recipe, Space, Split, Study, digits

Example = tuple[Tensor, int]


class Strokes(torch.utils.data.Dataset[Example]):
    """The inked pixels of digits."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Example:
        image = self.split.inputs[index, 0]
        places = (image > image.min()).nonzero()
        ink = image[places[:, 0], places[:, 1]]
        return torch.cat([places / 8, ink[:, None]], dim=1), int(self.split.targets[index])


def collate(examples: list[Example]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return padded sequences (N, longest, 3) with their lengths (N,), and targets (N,)."""
    sequences, targets = zip(*examples, strict=True)
    return (pad_sequence([*sequences], batch_first=True), torch.tensor([*map(len, sequences)])), torch.tensor(targets)


class Reader(nn.Module):
    """Looks at each pixel, takes the mean over the sequence, and answers (Zaheer et al., Deep Sets, NeurIPS 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.answer = nn.Linear(width, 10)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Return the classes' outputs for each sequence; what is beyond its length does not count."""
        there = torch.arange(sequences.shape[1], device=sequences.device) < lengths[:, None]
        means = (self.look(sequences) * there[:, :, None]).sum(dim=1) / lengths[:, None]
        answers: Tensor = self.answer(means)
        return answers


def strokes() -> Dataset:
    """Return the digits as sequences."""
    data = digits(size=8)
    train, validation, test = map(Strokes, (data.train, data.validation, data.test))  # type: ignore[arg-type]
    return Dataset(
        train=train, validation=validation, test=test, classes=data.classes, collate=collate, loader_workers=2
    )


def recipe(space: Space) -> Recipe:
    """A network for sets."""
    return Recipe(
        model=Reader(width=space.int("width", 32, 128, log=True)),
        optimizer=Adam(lr=space.float("lr", 1e-3, 3e-2, log=True)),
        schedule=OneCycle(),
        clip_norm=1.0,
        batch_size=32,
    )


study = Study(recipe=recipe, dataset=strokes, epochs=15, n_trials=8)
