"""LeNet-5 on handwritten digits: which optimiser, step size, batch size and width learn best?

The network is the course's LeNet-5 variant; the digits are the 1,797 that ship with scikit-learn, so nothing is
downloaded and a trial takes seconds. Copy this file to start a study of your own.
"""

from hpsearch import SGD, Adam, EarlyStopping, LeNet, OneCycle, Recipe, RMSprop, Space, Study, digits


def recipe(space: Space) -> Recipe:
    """Draw one configuration: plain Python, so a hyperparameter that exists only sometimes is an `if`."""
    # log: the step size is searched on a logarithmic scale; grid: the points that `--sampler grid` visits.
    lr = space.float("lr", 3e-4, 3e-2, log=True, grid=3)
    name = space.choice("optimizer", ["sgd", "adam", "rmsprop"])
    if name == "sgd":
        optimizer = SGD(lr=lr, momentum=space.float("momentum", 0.5, 0.99, grid=[0.5, 0.9]))
    else:
        optimizer = {"adam": Adam, "rmsprop": RMSprop}[name](lr=lr)
    return Recipe(
        model=LeNet(
            width=space.int("width", 1, 3),
            activation=space.choice("activation", ["relu", "tanh"]),
            dropout=space.float("dropout", 0.0, 0.5, grid=[0.0, 0.3]),
        ),
        optimizer=optimizer,
        # The step size rises to lr and falls to zero over the trial's epochs.
        schedule=OneCycle(),
        batch_size=space.choice("batch_size", [16, 32, 64]),
    )


study = Study(
    recipe=recipe,
    dataset=digits,
    # A trial trains for 20 epochs at most; it ends early when it has not improved for 8 epochs, when it has reached
    # the target on training and validation data, or when the pruner gives it up.
    epochs=20,
    early_stopping=EarlyStopping(target=1.0, patience=8),
    n_trials=50,
)
