"""A small MLP on digits whose intervals take as long as `$TEST_BATCH_SECONDS` says, 17 batches each."""

import os
import time
from functools import partial

import torch

from hpsearch import MLP, SGD, Recipe, Space, Study, digits

BATCH_SECONDS = float(os.environ.get("TEST_BATCH_SECONDS", "0.015"))


class Slow(MLP):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(BATCH_SECONDS)
        return super().forward(inputs)


def recipe(space: Space) -> Recipe:
    return Recipe(
        model=Slow(inputs=64, hidden=(8,)),
        optimizer=SGD(lr=space.float("lr", 0.01, 0.5, log=True)),
        batch_size=64,
    )


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=int(os.environ.get("TEST_EPOCHS", "12")))
