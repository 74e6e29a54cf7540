"""The step size: slow learning if too small, divergence if too large.

Gradient descent moves by lr times the gradient. Along a direction of curvature c it converges for lr < 2 / c only, and
slowly if lr is far below 1 / c: the right step size depends on the cost function (LeCun, Bottou, Orr and Müller,
*Efficient BackProp*, 1998; the three curves are those of the lecture notes CS231n). One network, 64-32-10 with tanh,
on the 8x8 digits, plain gradient descent in batches of 32 on the squared error. In the last layer that cost is a
parabola, so a step size above 2 / c increases it by the same factor in each step. Nine step sizes are compared, a
factor of about three apart, everything else equal.

A trial whose cost is no longer finite ends at once, as `diverged`: it keeps its best weights so far, and the study
continues.

Run it with `hpsearch run --study learning_rate`: half a minute on two cores.
"""

import numpy as np
from matplotlib.figure import Figure

from hpsearch import MLP, MSE, SGD, Dataset, Recipe, Space, Steps, Study, digits
from hpsearch.results import Results
from hpsearch.results.figures import COLOURS, make_figure, mark_diverged, plot_curves

TOO_SMALL, ADEQUATE, TOO_LARGE = 0.001, 0.3, 1.0


def small_digits() -> Dataset:
    """Return the digits in their own 8x8 pixels."""
    return digits(size=8)


def recipe(space: Space) -> Recipe:
    """Draw the step size."""
    lr = space.float("lr", 1e-3, 10, log=True, grid=[TOO_SMALL, 0.003, 0.01, 0.03, 0.1, ADEQUATE, TOO_LARGE, 3.0, 10.0])
    return Recipe(
        model=MLP(inputs=64, hidden=(32,), activation="tanh", initialisation="xavier"),
        optimizer=SGD(lr=lr),
        loss=MSE(),
        batch_size=32,
    )


def three_curves(results: Results) -> Figure:
    """Cost and accuracy against steps for a step size too small, one adequate and one too large.

    The cross marks the last finite cost of the one too large; the dotted line, a network that ignores its input.
    """
    trials = results.trials
    series = {
        f"{name}, lr = {lr:g}": numbers
        for name, lr in (("too small", TOO_SMALL), ("adequate", ADEQUATE), ("too large", TOO_LARGE))
        if (numbers := list(trials.index[np.isclose(trials["params.lr"], lr)]))
    }
    figure, axes = make_figure(1, 2, height=3.8)
    for ax, column, scale in zip(axes.flat, ("train_loss", "validation_accuracy"), ("log", "linear"), strict=True):
        plot_curves(ax, results.history, column, series, against="step", scale=scale)  # type: ignore[arg-type]
        mark_diverged(ax, results.history, series, trials, against="step")
        # An output of zero costs 0.1; one class guessed for all is right in a tenth of the cases.
        ax.axhline(0.1, color="grey", linestyle=":", linewidth=1)
    axes[0, 0].set(ylim=(1e-2, 1e8), ylabel="training cost (squared error)")
    axes[0, 0].legend(loc="upper right")
    axes[0, 1].set(ylim=(0, 1))
    return figure


def accuracy_by_step_size(results: Results) -> Figure:
    """The best validation accuracy of each step size, and how its trial ended.

    With small step sizes the 30 epochs did not suffice; a trial that diverged keeps its best accuracy before that.
    """
    figure, axes = make_figure(1, 1, height=3.8)
    ax = axes[0, 0]
    trials = results.trials.dropna(subset="best_value").sort_values("params.lr")
    ax.plot(trials["params.lr"], trials["best_value"], color="grey", linewidth=1, zorder=1)
    diverged = trials["reason"] == "diverged"
    for chosen, marker, colour, label in (
        (~diverged, "o", COLOURS[0], "trained to the end"),
        (diverged, "X", COLOURS[1], "diverged"),
    ):
        ax.scatter(
            trials.loc[chosen, "params.lr"],
            trials.loc[chosen, "best_value"],
            marker=marker,
            s=80,
            c=colour,
            label=label,
        )
    ax.set(xscale="log", xlabel="step size lr", ylabel="best validation accuracy", ylim=(0, 1.02))
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


study = Study(
    recipe=recipe,
    dataset=small_digits,
    epochs=30,
    # Divergence is a matter of a few steps, not epochs.
    interval=Steps(5),
    sampler="grid",
    pruner="none",
    figures={"three_curves": three_curves, "accuracy_by_step_size": accuracy_by_step_size},
)
