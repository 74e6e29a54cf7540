"""LeNet-5 on Fashion-MNIST: step size, momentum, batch size, optimiser and number of epochs.

The same network as in `lenet.py`, on 28x28 pictures of clothes (Xiao, Rasul and Vollgraf, arXiv 1708.07747). They are
read from `--data` (or `$HPSEARCH_DATA`), where a folder `fashion-mnist-sample` serves as well, or downloaded.
"""

from hpsearch import SGD, Adam, EarlyStopping, LeNet, OneCycle, Recipe, RMSprop, Space, Study, fashion_mnist


def recipe(space: Space) -> Recipe:
    """Draw one configuration."""
    lr = space.float("lr", 1e-4, 1e-1, log=True, grid=4)
    name = space.choice("optimizer", ["sgd", "adam", "rmsprop"])
    if name == "sgd":
        optimizer = SGD(lr=lr, momentum=space.float("momentum", 0.0, 0.99, grid=[0.0, 0.9]))
    else:
        optimizer = {"adam": Adam, "rmsprop": RMSprop}[name](lr=lr)
    return Recipe(
        model=LeNet(dropout=space.float("dropout", 0.0, 0.5, grid=[0.0, 0.3])),
        optimizer=optimizer,
        schedule=OneCycle(),
        batch_size=space.choice("batch_size", [32, 64, 128]),
        # The number of epochs is a hyperparameter like any other; it overrides the study's.
        epochs=space.int("epochs", 5, 15, step=5),
    )


study = Study(
    recipe=recipe,
    dataset=fashion_mnist,
    epochs=15,
    early_stopping=EarlyStopping(patience=5),
    n_trials=30,
)
