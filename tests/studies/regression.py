"""The numbers that a noisy line gives, by mean squared error."""

import torch
from torch import nn

from hpsearch import MSE, SGD, Dataset, Recipe, Space, Split, Study


def recipe(space: Space) -> Recipe:
    """A linear model."""
    return Recipe(
        model=nn.Linear(3, 1), optimizer=SGD(lr=space.float("lr", 1e-4, 10.0, log=True)), loss=MSE(), batch_size=16
    )


def dataset() -> Dataset:
    """Return 120 examples, 40 to validate and 40 to test."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 3, generator=generator)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5]) + 3 + 0.1 * torch.randn(200, generator=generator)
    parts = [Split(inputs[first:last], targets[first:last]) for first, last in ((0, 120), (120, 160), (160, 200))]
    return Dataset(train=parts[0], validation=parts[1], test=parts[2])


study = Study(recipe=recipe, dataset=dataset, measure="MSE", also=["R2", "MAE"], epochs=4, n_trials=12, seed=1)
