"""Why deep networks of sigmoids did not learn: the gradient in each layer before the first step.

Backpropagation multiplies, layer by layer, by the weights and by the activation's slope. The sigmoid's slope is at most
1/4, so the gradient shrinks in each layer and almost vanishes in the first ones: the vanishing gradient (Hochreiter
1991; Bengio, Simard and Frasconi, IEEE Trans. Neural Networks 5, 1994). tanh has slope 1 at zero; ReLU (Nair and
Hinton, ICML 2010), leaky ReLU, ELU (Clevert et al., arXiv 1511.07289) and maxout with two linear pieces (Goodfellow et
al., ICML 2013) have slope 1 over half the axis or all of it. The weights are factors too, and their initial variance
decides whether the product stays near one. With *normal*, standard deviation 0.01 in every layer, the gradient vanishes
whatever the activation. *xavier* suits tanh (Glorot and Bengio, AISTATS 2010). *he* compensates for the half that ReLU
sets to zero (He et al., arXiv 1502.01852), and is too large for maxout, which sets nothing to zero.

Hidden layers of 30 neurons, two or six of them, on the 8x8 digits; plain gradient descent with step size 0.1 and
batches of 32 for all, fifteen epochs.

Run it with `hpsearch run --study activations`: half a minute on two cores.
"""

from matplotlib.figure import Figure

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Study, digits
from hpsearch.results import Results
from hpsearch.results.figures import MARKERS, make_figure, start_gradients, style

ACTIVATIONS = ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"]
STARTS = ["normal", "xavier", "he"]
DEEP, SHALLOW = 6, 2


def small_digits() -> Dataset:
    """Return the digits in their own 8x8 pixels."""
    return digits(size=8)


def recipe(space: Space) -> Recipe:
    """Draw depth, initialisation and activation."""
    depth = space.choice("depth", [SHALLOW, DEEP])
    initialisation = space.choice("initialisation", STARTS)
    activation = space.choice("activation", ACTIVATIONS)
    return Recipe(
        model=MLP(inputs=64, hidden=(30,) * depth, activation=activation, initialisation=initialisation),
        optimizer=SGD(lr=0.1),
        batch_size=32,
    )


def gradients(results: Results) -> Figure:
    """Above, the norm of the gradient in each layer's weights before the first step, on all the training data.

    Six hidden layers; the output layer is the seventh. Below, the best validation accuracy of these networks in fifteen
    epochs; the dotted line is chance level, a cross marks a trial that diverged. A network does not learn if its
    gradient falls by orders of magnitude towards the first layer, or is far too small everywhere.
    """
    figure, axes = make_figure(2, 3, height=3.2, sharey="row")
    trials = results.trials[results.trials["params.depth"] == DEEP].reset_index()
    deep = {(row["params.initialisation"], row["params.activation"]): row for row in trials.to_dict("records")}
    for column, start in zip(axes.T, STARTS, strict=True):
        for index, activation in enumerate(ACTIVATIONS):
            trial = deep[start, activation]
            norms = list(start_gradients(results, trial["number"]).values())
            marker = MARKERS[index]
            column[0].plot(range(1, len(norms) + 1), norms, marker=marker, label=activation, **style(index))
            learnt = trial["state"] == "complete"
            value, mark = (trial["best_value"], marker) if learnt else (0.0, "x")
            column[1].plot(index, value, mark, markersize=10, color=style(index)["color"], clip_on=False)
        column[0].set(title=start, yscale="log", xlabel="layer")
        column[1].set_xticks(range(len(ACTIVATIONS)), ACTIVATIONS, rotation=35, ha="right")
        column[1].axhline(0.1, color="grey", linestyle=":", linewidth=1)
        column[0].set_xticks(range(1, DEEP + 2))
        for ax in column:
            ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("gradient norm at the start")
    axes[1, 0].set(ylabel="best validation accuracy", ylim=(0, 1.03))
    axes[0, 1].legend(fontsize="small", loc="lower right")
    return figure


def accuracy_by_depth(results: Results) -> Figure:
    """The best validation accuracy with two hidden layers (hollow) and with six (filled).

    Depth costs accuracy if the gradient vanishes, but not otherwise.
    """
    figure, axes = make_figure(1, 3, height=3.4, sharey=True)
    trials = results.trials
    for ax, start in zip(axes.flat, STARTS, strict=True):
        for index, activation in enumerate(ACTIVATIONS):
            chosen = (trials["params.initialisation"] == start) & (trials["params.activation"] == activation)
            value = trials[chosen].set_index("params.depth")["best_value"].astype(float)
            colour, marker = style(index)["color"], MARKERS[index]
            ax.plot([index] * len(value), value, color=colour, linewidth=1)
            for depth, fill in ((SHALLOW, "none"), (DEEP, colour)):
                ax.plot(index, value[depth], marker, markersize=10, markeredgecolor=colour, markerfacecolor=fill)
        ax.set_xticks(range(len(ACTIVATIONS)), ACTIVATIONS, rotation=35, ha="right")
        ax.axhline(0.1, color="grey", linestyle=":", linewidth=1)
        ax.set_title(start)
        ax.grid(alpha=0.3)
    axes[0, 0].set(ylabel="best validation accuracy", ylim=(0, 1.03))
    return figure


study = Study(
    recipe=recipe,
    dataset=small_digits,
    epochs=15,
    sampler="grid",
    pruner="none",
    figures={"gradients": gradients, "accuracy_by_depth": accuracy_by_depth},
)
