"""Early stopping, demonstrated: how many epochs each rule saves, and what accuracy that costs.

The course stops a trial when training *and* validation accuracy have reached a target, or when the validation accuracy
has not improved by some relative minimum for a number of epochs in a row (Prechelt, *Early stopping - but when?*,
1998). What does that cost? Here every trial is trained to its last epoch once, with no rule and no pruner. Replaying
the rules over the recorded accuracies then shows exactly what each would have saved and lost, because a rule only ends
a trial earlier.

LeNet-5 on the digits, with a random sample of optimisers, step sizes, batch sizes and schedules, good ones and bad
ones. In the report's run a patience of five epochs saves half of all epochs and loses nothing of the best accuracy; a
patience of two saves seven tenths, but ends some trials during their slow start, at a cost of up to 17 points. A target
saves epochs only in trials that reach it, and loses any improvement above it.

Run it with `hpsearch run --study early_stopping`: two minutes on two cores.
"""

from matplotlib.figure import Figure

from hpsearch import SGD, Adam, Cosine, EarlyStopping, LeNet, Recipe, RMSprop, Space, Study, digits
from hpsearch.optim import Optimizer
from hpsearch.results import Results
from hpsearch.results.stopping_rules import plot_rules, replay_rules

RULES = {
    "target 0.95": EarlyStopping(target=0.95),
    "target 0.98": EarlyStopping(target=0.98),
    "patience 2": EarlyStopping(patience=2),
    "patience 3": EarlyStopping(patience=3),
    "patience 5": EarlyStopping(patience=5),
    "patience 8": EarlyStopping(patience=8),
    "patience 5, at least 0.5 %": EarlyStopping(patience=5, min_improvement=0.005),
    "patience 5, at least 2 %": EarlyStopping(patience=5, min_improvement=0.02),
    "target 0.98 or patience 5": EarlyStopping(target=0.98, patience=5),
}


def recipe(space: Space) -> Recipe:
    """Draw one configuration."""
    lr = space.float("lr", 1e-4, 1e-1, log=True, grid=4)
    optimizers: dict[str, Optimizer] = {"sgd": SGD(lr=lr, momentum=0.9), "adam": Adam(lr=lr), "rmsprop": RMSprop(lr=lr)}
    return Recipe(
        model=LeNet(),
        optimizer=space.choice("optimizer", optimizers),
        schedule=space.choice("schedule", {"constant": None, "cosine": Cosine()}),
        batch_size=space.choice("batch_size", [16, 32, 64]),
    )


def rules(results: Results) -> Figure:
    """What each rule, replayed over the trials, saves in epochs and loses in validation accuracy.

    The loss is that of a trial's best accuracy, on average and at most, and of the study's best accuracy.
    """
    return plot_rules(replay_rules(results, RULES))


study = Study(
    recipe=recipe,
    dataset=digits,
    epochs=30,
    n_trials=24,
    sampler="random",
    pruner="none",
    figures={"rules": rules},
)
