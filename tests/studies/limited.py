"""A small MLP on digits of which half the sizes are too large."""

from functools import partial

from hpsearch import MLP, SGD, Recipe, Space, Study, digits


def recipe(space: Space) -> Recipe:
    # 75 parameters for each hidden unit, and ten.
    model = MLP(inputs=64, hidden=(space.int("hidden", 8, 32, step=8),))
    space.require(sum(p.numel() for p in model.parameters()) < 1500, "fewer than 1,500 parameters")
    return Recipe(model=model, optimizer=SGD(lr=space.float("lr", 0.01, 1.0, log=True, grid=2)), batch_size=64)


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=2, n_trials=4)
