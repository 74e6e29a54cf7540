"""A data set function that fails."""

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Study


def recipe(space: Space) -> Recipe:
    return Recipe(model=MLP(inputs=64), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)))


def dataset() -> Dataset:
    return open("/nowhere/at/all")  # type: ignore[return-value]


study = Study(recipe=recipe, dataset=dataset)
