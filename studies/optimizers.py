"""Four optimisers on one cost: plain and normalised gradient descent, RMSprop, Adam; in full batch and mini-batches.

MNIST's 50,000 training images, a network of four hidden layers of ten tanh units, softmax cross-entropy: the course's
comparison (Watt, Borhani and Katsaggelos, *Machine Learning Refined*, 2nd ed. 2020, chapter 13 and appendix A). Each
optimiser trains 40 epochs with one step per epoch on all the images (full batch) or 250 steps on batches of 200, from
two starts: small random weights (standard deviation 0.01), and Xavier initialisation.

The course claims that

1. the normalised step and RMSprop converge much faster than the plain gradient. *This holds from small weights*: the
   gradient there is close to zero in every direction, a plateau, which the plain step does not leave in 40 epochs,
   neither in full batch nor in mini-batches. A step whose length does not depend on the gradient's leaves it. *It does
   not hold from Xavier initialisation*: there is no plateau, and the plain gradient is among the two fastest in
   mini-batches; in full batch Adam and RMSprop are ahead of it, and the normalised step, whose length never shrinks, is
   behind.
2. mini-batches are better than the full batch. *This holds for every optimiser that learns at all*, and by far: an
   epoch of 250 steps takes hardly more time than one of a single step.

Each optimiser has one step size for all four of its runs, so that none is tuned more than another: of values half a
decade apart, the one with the lowest product of the four training costs after 20 epochs (plain 0.1, *0.3*, 1;
normalised 0.001, 0.003, *0.01*, 0.03; RMSprop 0.001, *0.003*, 0.01; Adam 0.001, 0.003, *0.01*).

Run it with `hpsearch run --study optimizers --data FOLDER`: two minutes on two cores.
"""

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hpsearch import MLP, SGD, Adam, NormalizedGradient, Recipe, RMSprop, Space, Study, mnist
from hpsearch.optim import Optimizer
from hpsearch.results import Results
from hpsearch.results.figures import by_parameter, make_figure, plot_curves

WAYS: dict[str, Optimizer] = {
    "plain": SGD(lr=0.3),
    "normalised": NormalizedGradient(lr=0.01),
    "RMSprop": RMSprop(lr=0.003),
    "Adam": Adam(lr=0.01),
}
BATCHES = {"full batch": 50_000, "mini-batches of 200": 200}


def recipe(space: Space) -> Recipe:
    """Draw initialisation, batches and optimiser."""
    start = space.choice("start", {"small": "normal", "xavier": "xavier"})
    batch_size = space.choice("batches", BATCHES)
    optimizer = space.choice("optimizer", WAYS)
    return Recipe(
        model=MLP(hidden=(10,) * 4, activation="tanh", initialisation=start),
        optimizer=optimizer,
        batch_size=batch_size,
    )


def from_small_weights(results: Results) -> Figure:
    """From small random weights: training cost and validation accuracy against epochs, in full and in mini-batches."""
    return _curves(results, "small")


def from_xavier(results: Results) -> Figure:
    """From Xavier initialisation: the same curves. There is no plateau, and most of the differences disappear."""
    return _curves(results, "xavier")


def _curves(results: Results, start: str) -> Figure:
    figure, axes = make_figure(2, 2, height=3.2, sharex=True, sharey="row")
    for column, batches in zip(axes.T, BATCHES, strict=True):
        trials = results.trials[
            (results.trials["params.start"] == start) & (results.trials["params.batches"] == batches)
        ]
        series = by_parameter(trials, "optimizer")
        series = {way: series[way] for way in WAYS if way in series}
        plot_curves(column[0], results.history, "train_loss", series, scale="log")
        plot_curves(column[1], results.history, "validation_accuracy", series)
        column[0].set(title=batches, xlabel="", ylabel="training cost")
        column[0].yaxis.set_major_locator(FixedLocator([0.2, 0.3, 0.5, 1, 2]))
        column[0].yaxis.set_major_formatter("{x:g}")
        column[0].yaxis.set_minor_locator(NullLocator())
        column[1].set(ylim=(0, 1))
    axes[0, 0].legend()
    return figure


study = Study(
    recipe=recipe,
    dataset=mnist,
    epochs=40,
    sampler="grid",
    pruner="none",
    figures={"from_small_weights": from_small_weights, "from_xavier": from_xavier},
)
