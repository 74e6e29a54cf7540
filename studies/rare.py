"""A table with 4 % positives, by AUROC: an accuracy of 96 % would be that of never answering "yes".

Your own: `dataset=partial(table, "FILE.csv", target="COLUMN")`. Here the rows are scikit-learn's digits, and the rare
class are some of the eights.
"""

import pandas as pd
from sklearn.datasets import load_digits
from torch import nn

from hpsearch import Adam, BinaryCrossEntropy, Dataset, Recipe, Space, Study, table


def eights() -> Dataset:
    """Return the digits as rows of pixels, with one eight in 24 examples."""
    frame = load_digits(as_frame=True).frame
    others, rare = frame[frame["target"] != 8], frame[frame["target"] == 8].head(70)
    rows = pd.concat([others, rare])
    return table(rows.assign(target=(rows["target"] == 8).map({True: "yes", False: "no"})), target="target")


def recipe(space: Space) -> Recipe:
    """A small network; the weight of the rare class is searched too."""
    width = space.int("width", 4, 64, log=True)
    return Recipe(
        # Lazy: it counts the columns itself.
        model=nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 1)),
        optimizer=Adam(lr=space.float("lr", 1e-4, 1e-1, log=True)),
        loss=BinaryCrossEntropy(pos_weight=space.float("pos_weight", 1, 30, log=True)),
        batch_size=64,
    )


study = Study(
    recipe=recipe,
    dataset=eights,
    measure="AUROC",
    also=["average precision", "balanced accuracy", "accuracy"],
    epochs=8,
    n_trials=15,
)
