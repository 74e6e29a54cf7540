"""A recipe that returns something else."""

from functools import partial

from hpsearch import Space, Study, digits


def recipe(space: Space) -> float:
    return space.float("lr", 0.01, 0.1)


study = Study(recipe=recipe, dataset=partial(digits, size=8))  # type: ignore[arg-type]
