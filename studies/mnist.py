"""LeNet-5 on MNIST: how far does a well-tuned small network get in ten epochs?

The 60,000 training images are split into 50,000 to train on and 10,000 to validate with; the 10,000 official
test images are left for the very end. They are read from `--data` (or `$HPSEARCH_DATA`), or downloaded.
"""

from hpsearch import SGD, AdamW, LeNet, OneCycle, Recipe, Space, Study, mnist


def recipe(space: Space) -> Recipe:
    """Draw one configuration."""
    optimizer: AdamW | SGD
    if space.choice("optimizer", ["adamw", "sgd"]) == "adamw":
        optimizer = AdamW(
            lr=space.float("lr", 1e-3, 1e-2, log=True, grid=3),
            weight_decay=space.float("weight_decay", 1e-4, 1e-1, log=True, grid=[1e-2]),
        )
    else:
        optimizer = SGD(
            lr=space.float("sgd_lr", 1e-2, 3e-1, log=True, grid=3),
            momentum=space.float("momentum", 0.8, 0.95, grid=[0.9]),
            nesterov=True,
            weight_decay=space.float("sgd_weight_decay", 1e-5, 1e-3, log=True, grid=[1e-4]),
        )
    return Recipe(
        model=LeNet(
            width=space.int("width", 1, 4),
            dropout=space.float("dropout", 0.0, 0.5, grid=[0.0, 0.25]),
        ),
        optimizer=optimizer,
        schedule=OneCycle(),
        batch_size=space.choice("batch_size", [64, 128, 256]),
    )


study = Study(recipe=recipe, dataset=mnist, epochs=10, n_trials=30)
