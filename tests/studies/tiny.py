"""A small MLP on digits: trials of a fraction of a second."""

from functools import partial

from hpsearch import MLP, SGD, Adam, EarlyStopping, OneCycle, Recipe, Space, Study, digits


def recipe(space: Space) -> Recipe:
    lr = space.float("lr", 1e-3, 1.0, log=True, grid=3)
    if space.choice("optimizer", ["sgd", "adam"]) == "sgd":
        optimizer = SGD(lr=lr, momentum=space.float("momentum", 0.0, 0.9, grid=[0.0, 0.9]))
    else:
        optimizer = Adam(lr=lr)
    hidden = space.int("hidden", 8, 32, step=8, grid=[8, 32])
    return Recipe(
        model=MLP(inputs=64, hidden=(hidden,), dropout=space.float("dropout", 0.0, 0.5, grid=[0.2])),
        optimizer=optimizer,
        schedule=OneCycle(),
        batch_size=16,
    )


study = Study(
    recipe=recipe,
    dataset=partial(digits, size=8),
    epochs=8,
    early_stopping=EarlyStopping(patience=4),
    n_trials=5,
)
