"""One neuron and eight points in the plane: Rosenblatt's rule against gradient descent on a cost.

The course's first model. A neuron computes f = W'x + b and predicts "+" if f > 0. A line separates eight points, four
of each class; three ways to find one:

- the *perceptron rule* (Rosenblatt, Psychological Review 65, 1958) takes one point x with its sign y at a time and
  changes the weights only if it is wrong: W <- W + d x, b <- b + d with d = (y - sign(f)) / 2. That is gradient descent
  with step size 1 and batches of one on the perceptron criterion, max(0, -y f), so the shared training loop runs it
  unchanged;
- gradient descent on the *mean squared error* between f and y, the rule of Widrow and Hoff (1960): every point
  contributes, correct ones too, and a step size too large for the point farthest out diverges;
- the *sigmoid* neuron with cross-entropy: logistic regression. A point contributes less the more clearly it is correct.

The last two are also trained with a hidden layer of tanh neurons, where the boundary need not be a line. A trial stops
when all points are correct for a whole epoch, which the convergence theorem guarantees for the perceptron rule
(Novikoff 1962), or after 50 epochs in a row without one more correct point. The eight points are training, validation
and test data at once, so nothing follows for unseen points. `inseparable.py` shows what happens when no line exists.

Run it with `hpsearch run --study perceptron`: half a minute on two cores.
"""

from matplotlib.figure import Figure

from hpsearch import (
    MLP,
    MSE,
    SGD,
    BinaryCrossEntropy,
    EarlyStopping,
    Perceptron,
    PerceptronCriterion,
    Recipe,
    Space,
    Study,
    points,
)
from hpsearch.results import Results
from hpsearch.results.figures import by_parameter, make_figure, mark_diverged, plot_boundary, plot_curves


def recipe(space: Space) -> Recipe:
    """Draw a rule and, for the two costs, a step size and a number of hidden neurons."""
    rule = space.choice("rule", ["perceptron", "squared error", "sigmoid"])
    if rule == "perceptron":
        return Recipe(model=Perceptron(), optimizer=SGD(lr=1.0), loss=PerceptronCriterion(), batch_size=1)
    hidden = space.choice("hidden", [0, 8])
    return Recipe(
        model=MLP(inputs=2, hidden=(hidden,), classes=1, activation="tanh") if hidden else Perceptron(),
        optimizer=SGD(lr=space.float("lr", 1e-3, 1.0, log=True, grid=[0.001, 0.01, 0.1, 1.0])),
        loss=MSE() if rule == "squared error" else BinaryCrossEntropy(),
        batch_size=1,
    )


def boundaries(results: Results) -> Figure:
    """How each rule divides the plane: f in colour (blue +, orange −), the line f = 0, points on its wrong side ringed.

    For each rule and kind of network, the trial that got the most points right, and of equals the fastest. Last: the
    share of points the single neurons have right after each epoch.
    """
    trials = results.trials.assign(network=results.trials["params.hidden"].fillna(0) > 0).dropna(subset="best_value")
    trials = trials.sort_values(["best_value", "best_interval"], ascending=[False, True], kind="stable")
    best = trials.groupby(["network", "params.rule"], sort=False).head(1).sort_values(["network", "number"])
    figure, axes = make_figure(2, 3, height=3.1)
    series = {}
    for ax, trial in zip(axes.flat, best.reset_index().to_dict("records"), strict=False):
        title = trial["params.rule"] + (" + hidden layer" if trial["network"] else "")
        if not trial["network"]:
            series[title] = [trial["number"]]
        plot_boundary(ax, results.model(trial["number"]), results.data.train)
        ax.set_title(f"{title}\n{8 * trial['best_value']:.0f} of 8 right after {trial['best_interval']:.0f} epochs")
    axes[0, 0].legend(loc="upper left", fontsize="small", framealpha=0.9)
    plot_curves(axes[1, 2], results.history, "validation_accuracy", series)
    axes[1, 2].set_title("share of points right")
    axes[1, 2].legend(fontsize="x-small")
    return figure


def step_sizes(results: Results) -> Figure:
    """One neuron's cost against epochs at several step sizes: slow if too small, divergent (cross) if too large.

    The squared error has a sharp upper limit, set by the point farthest out; the sigmoid's gradient is bounded.
    """
    figure, axes = make_figure(1, 2, height=3.8)
    neurons = results.trials[results.trials["params.hidden"] == 0]
    for ax, rule, top in zip(axes.flat, ["squared error", "sigmoid"], [1e6, 1e1], strict=True):
        trials = neurons[neurons["params.rule"] == rule]
        series = by_parameter(trials, "lr")
        plot_curves(ax, results.history, "train_loss", series, scale="log")
        mark_diverged(ax, results.history, series, trials)
        ax.set(ylabel="mean cost in the epoch", ylim=(1e-2, top), xlim=(0, 60))
        ax.set_title(rule, pad=12)
        ax.legend(title="step size")
    return figure


study = Study(
    recipe=recipe,
    dataset=points,
    epochs=500,
    early_stopping=EarlyStopping(target=1.0, patience=50),
    sampler="grid",
    pruner="none",
    figures={"boundaries": boundaries, "step_sizes": step_sizes},
)
