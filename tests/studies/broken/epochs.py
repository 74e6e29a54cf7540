"""A wrong value."""

from hpsearch import Recipe, Space, Study, digits


def recipe(space: Space) -> Recipe:
    raise NotImplementedError


study = Study(recipe=recipe, dataset=digits, epochs=0)
