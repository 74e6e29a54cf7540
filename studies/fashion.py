"""LeNet-5 on Fashion-MNIST: step size, momentum, batch size, optimiser and number of epochs.

The network of `lenet.py` (LeCun, Bottou, Bengio and Haffner 1998) on 28x28 pictures of clothes (Xiao, Rasul and
Vollgraf, arXiv 1708.07747), made as a harder drop-in replacement for MNIST: a shirt, a pullover and a coat look
similar in so few pixels. The step size rises to `lr` and falls to zero over the trial's epochs, so their number is a
hyperparameter of its own: a trial of five epochs is not the first five of a trial of fifteen.

The pictures are read from `--data` (or `$HPSEARCH_DATA`) or downloaded to it. A folder `fashion-mnist-sample` there
can be used instead; the run and the report then say that it was a sample, and its results are not those of the whole
of Fashion-MNIST.

Run it with `hpsearch run --study fashion --data FOLDER`: a minute with the sample on two cores.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from hpsearch import SGD, Adam, EarlyStopping, LeNet, OneCycle, Recipe, RMSprop, Space, Study, fashion_mnist
from hpsearch.results import Results
from hpsearch.results.figures import COLOURS, MARKERS, in_memory, make_figure


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
        # Overrides the study's number of epochs.
        epochs=space.int("epochs", 5, 15, step=5),
    )


def step_sizes(results: Results) -> Figure:
    """Each trial's best validation accuracy against its step size, by optimiser; hollow markers are pruned trials."""
    figure, axes = make_figure(1, 1, height=3.8)
    ax = axes[0, 0]
    trials = results.trials.dropna(subset="best_value")
    for index, (optimizer, rows) in enumerate(trials.groupby("params.optimizer")):
        pruned = rows["state"] == "pruned"
        for chosen, fill, label in ((~pruned, COLOURS[index], str(optimizer)), (pruned, "none", None)):
            ax.scatter(
                rows.loc[chosen, "params.lr"],
                rows.loc[chosen, "best_value"],
                marker=MARKERS[index],
                s=50,
                facecolors=fill,
                edgecolors=COLOURS[index],
                label=label,
            )
    ax.set(xscale="log", xlabel="step size lr", ylabel="best validation accuracy")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


def confusion(results: Results) -> Figure:
    """The best trial's confusion matrix: validation images by true class (rows) and predicted class (columns)."""
    images, targets = in_memory(results.data.validation)
    with torch.inference_mode():
        named = results.model(results.best)(images).argmax(dim=1)
    names = results.data.classes
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (targets.numpy(), named.numpy()), 1)
    figure, axes = make_figure(1, 1, height=6.2)
    ax = axes[0, 0]
    ax.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        count = counts[row, column]
        colour = "white" if count > counts[row].sum() / 2 else "black"
        ax.text(column, row, str(count), ha="center", va="center", color=colour, fontsize="small")
    ax.set_xticks(range(len(names)), names, rotation=35, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="named", ylabel="is", title=results.data.note)
    return figure


study = Study(
    recipe=recipe,
    dataset=fashion_mnist,
    epochs=15,
    early_stopping=EarlyStopping(patience=5),
    n_trials=30,
    pruner="median",
    figures={"step_sizes": step_sizes, "confusion": confusion},
)
