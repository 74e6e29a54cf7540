"""A regression: the progress of diabetes within a year, by mean squared error, which is minimised."""

from sklearn.datasets import load_diabetes
from torch import nn

from hpsearch import MSE, Adam, Dataset, EarlyStopping, Recipe, Space, Study, table


def patients() -> Dataset:
    """Return 442 patients; the target is a number."""
    return table(load_diabetes(as_frame=True, scaled=False).frame, target="target")


def recipe(space: Space) -> Recipe:
    """A network with one output."""
    width = space.int("width", 4, 64, log=True)
    return Recipe(
        # Lazy: it counts the columns itself.
        model=nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 1)),
        optimizer=Adam(
            lr=space.float("lr", 1e-3, 1.0, log=True), weight_decay=space.float("weight_decay", 1e-4, 1.0, log=True)
        ),
        loss=MSE(),
        batch_size=32,
    )


study = Study(
    recipe=recipe,
    dataset=patients,
    measure="MSE",
    also=["R2", "MAE"],
    epochs=30,
    early_stopping=EarlyStopping(patience=8),
    n_trials=20,
)
