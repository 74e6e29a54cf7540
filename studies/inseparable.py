"""Eight points that no line separates: the perceptron rule does not converge; a hidden layer finds a curve.

The points are those of `perceptron.py`, but the origin belongs to the other class. Along the line y = x / 2 the signs
are then -, +, +, -: no single neuron classifies all eight correctly (Minsky and Papert, *Perceptrons*, 1969, on XOR).
The perceptron rule, whose steps do not shrink, never converges; early stopping ends it after 50 epochs in a row without
one more correct point, and the best weights are kept (as in Gallant's pocket algorithm, 1990). A hidden layer of tanh
neurons bends the boundary. Each configuration is trained from three random starts.

Run it with `hpsearch run --study inseparable`: a quarter of a minute on two cores.
"""

from matplotlib.figure import Figure

from hpsearch import (
    MLP,
    SGD,
    BinaryCrossEntropy,
    Dataset,
    EarlyStopping,
    Perceptron,
    PerceptronCriterion,
    Recipe,
    Space,
    Study,
    points,
)
from hpsearch.results import Results
from hpsearch.results.figures import make_figure, plot_boundary, plot_curves


def inseparable_points() -> Dataset:
    """Return the eight points with the origin in the other class."""
    return points(separable=False)


def recipe(space: Space) -> Recipe:
    """Draw one neuron by the perceptron rule, one sigmoid neuron, or a sigmoid neuron behind a hidden layer."""
    network = space.choice("network", ["perceptron rule", "sigmoid neuron", "hidden layer"])
    # Nothing depends on it: the same configuration again, from other random weights.
    space.int("start", 1, 3)
    if network == "perceptron rule":
        return Recipe(model=Perceptron(), optimizer=SGD(lr=1.0), loss=PerceptronCriterion(), batch_size=1)
    hidden = MLP(inputs=2, hidden=(8,), classes=1, activation="tanh")
    return Recipe(
        model=hidden if network == "hidden layer" else Perceptron(),
        optimizer=SGD(lr=0.1),
        loss=BinaryCrossEntropy(),
        batch_size=1,
    )


def boundaries(results: Results) -> Figure:
    """Above, the best boundary of each network (wrong points ringed); below, the share of correct points by epoch.

    The line is the mean of the three starts over the epochs that all three trained, the band their range.
    """
    figure, axes = make_figure(2, 3, height=3.1)
    for column, (network, trials) in zip(axes.T, results.trials.groupby("params.network", sort=False), strict=True):
        rows = trials.reset_index().to_dict("records")
        best = max(rows, key=lambda trial: trial["best_value"])
        plot_boundary(column[0], results.model(best["number"]), results.data.train)
        ended = ", ".join(f"{trial['intervals']}" for trial in rows)
        reasons = " or ".join(sorted({trial["reason"] for trial in rows}))
        column[0].set_title(f"{network}\n{8 * best['best_value']:.0f} of 8 right")
        plot_curves(column[1], results.history, "validation_accuracy", {str(network): list(trials.index)})
        column[1].set(ylim=(0, 1.05), ylabel="share of points right")
        column[1].set_title(f"ended by {reasons} after {ended} epochs", fontsize="small")
    return figure


study = Study(
    recipe=recipe,
    dataset=inseparable_points,
    epochs=1000,
    early_stopping=EarlyStopping(target=1.0, patience=50),
    sampler="grid",
    pruner="none",
    figures={"boundaries": boundaries},
)
