"""A study whose trials misbehave on request."""

import os
import time
from functools import partial

import torch

from hpsearch import MLP, SGD, Recipe, Space, Study, digits

MOODS = ["fine", "raises", "hangs", "dies", "diverges", "diverges at once", "no recipe"]


class Model(MLP):
    def __init__(self, mood: str) -> None:
        super().__init__(inputs=64, hidden=(8,))
        self.mood = mood
        self.batches = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches += self.training
        # An epoch has 17 batches.
        second_epoch = self.batches > 20
        if self.training and self.mood == "raises" and second_epoch:
            raise ValueError("the user's model is broken")
        if self.training and self.mood == "hangs":
            time.sleep(60)
        if self.training and self.mood == "dies":
            os.abort()
        outputs = super().forward(inputs)
        late = self.mood == "diverges" and second_epoch
        return outputs * float("nan") if late or self.mood == "diverges at once" else outputs


def recipe(space: Space) -> Recipe:
    mood = space.choice("mood", MOODS)
    if mood == "no recipe":
        raise RuntimeError("this configuration makes no sense")
    return Recipe(model=Model(mood), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)), batch_size=64)


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=3, pruner="none")
