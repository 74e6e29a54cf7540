"""A float without grid points."""

from functools import partial

from hpsearch import MLP, SGD, Recipe, Space, Study, digits


def recipe(space: Space) -> Recipe:
    return Recipe(model=MLP(inputs=64), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)))


study = Study(recipe=recipe, dataset=partial(digits, size=8))
