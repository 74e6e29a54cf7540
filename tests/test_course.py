"""The course's claims and figures, recomputed at a reduced size from the very study files that make its reports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpsearch import Dataset, EarlyStopping, Split, UsageError, digits
from hpsearch.datasets import Examples
from hpsearch.results import Results
from hpsearch.results.figures import start_gradients
from hpsearch.results.stopping_rules import replay_rules, stopping_interval
from hpsearch.training import evaluate
from support.course import grid_of, load, run


def first(examples: Examples, count: int) -> Split:
    """Return the first `count` examples of a split in memory."""
    assert isinstance(examples, Split)
    return Split(*(part[:count] for part in examples))


@pytest.fixture(scope="module")
def small() -> Dataset:
    """300 training and 150 validation digits of 28x28 pixels, where the studies read MNIST or clothes."""
    whole = digits()
    return replace(whole, train=first(whole.train, 300), validation=first(whole.validation, 150))


def last(results: Results, column: str, *parameters: str) -> dict[tuple[object, ...], float]:
    """Return a column of each trial's last interval, by the values of its parameters."""
    rows = results.history.sort_values("interval").groupby("number").last()[column]
    keys = results.trials[[f"params.{name}" for name in parameters]].itertuples(index=False, name=None)
    return {key: float(rows[number]) for key, number in zip(keys, results.trials.index, strict=True)}


@pytest.fixture(scope="module")
def optimizers(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The comparison of optimisers on 1,077 digits: 40 epochs of one step, or of six."""
    study_file = load("optimizers", dataset=digits, epochs=40)
    return run(study_file, grid_of(study_file), tmp_path_factory.mktemp("optimizers"))


def test_from_small_weights_only_the_plain_gradient_stays_on_the_plateau(optimizers: Results) -> None:
    cost = last(optimizers, "train_loss", "start", "batches", "optimizer")
    for batches in ("full batch", "mini-batches of 200"):
        assert cost["small", batches, "plain"] > np.log(10) - 0.01
        for way in ("normalised", "RMSprop", "Adam"):
            assert cost["small", batches, way] < np.log(10) - 0.1


def test_mini_batches_beat_the_full_batch_from_xaviers_start(optimizers: Results) -> None:
    cost = last(optimizers, "train_loss", "start", "batches", "optimizer")
    for way in ("plain", "normalised", "RMSprop", "Adam"):
        assert cost["xavier", "mini-batches of 200", way] < 0.9 * cost["xavier", "full batch", way]


def test_mini_batches_beat_the_full_batch_from_small_weights_over_five_seeds(tmp_path: Path) -> None:
    """With six steps an epoch one seed can say the opposite, rounding alone decides; the mean over seeds does not."""
    ways = ("normalised", "RMSprop", "Adam")
    study_file = load("optimizers", dataset=digits, epochs=40, interval=40)
    points = [point for point in grid_of(study_file, start="small") if point["optimizer"] in ways]
    ratios = []
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        # One interval: the training cost is its mean over all forty epochs.
        cost = last(run(study_file, points, folder, seed=seed), "train_loss", "batches", "optimizer")
        ratios.append([cost["mini-batches of 200", way] / cost["full batch", way] for way in ways])
    assert (np.exp(np.log(ratios).mean(axis=0)) < 0.95).all()


def test_from_xaviers_start_there_is_no_plateau(optimizers: Results) -> None:
    cost = last(optimizers, "train_loss", "start", "batches", "optimizer")
    for batches in ("full batch", "mini-batches of 200"):
        assert cost["xavier", batches, "plain"] < 0.6 * np.log(10)


def test_the_figures_of_the_optimizers_show_every_way_in_both_modes(optimizers: Results) -> None:
    for make in optimizers.study.figures.values():
        axes = make(optimizers).axes
        assert [ax.get_title() for ax in axes[:2]] == ["full batch", "mini-batches of 200"]
        for ax in axes:
            assert [line.get_label() for line in ax.lines] == ["plain", "normalised", "RMSprop", "Adam"]
            assert all(len(line.get_xdata()) == 40 for line in ax.lines)


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The 36 networks, four epochs each."""
    study_file = load("activations", epochs=4)
    return run(study_file, grid_of(study_file), tmp_path_factory.mktemp("activations"))


def norms(results: Results, start: str, activation: str) -> np.ndarray:
    """Return the gradient's norm in the seven layers of a deep network, before its first step."""
    trials = results.trials
    chosen = (trials["params.depth"] == 6) & (trials["params.initialisation"] == start)
    (number,) = trials.index[chosen & (trials["params.activation"] == activation)]
    return np.array(list(start_gradients(results, number).values()))


def test_the_gradient_vanishes_through_sigmoids_whatever_the_start(activations: Results) -> None:
    for start in ("normal", "xavier", "he"):
        through_sigmoids = norms(activations, start, "sigmoid")
        assert through_sigmoids[0] < 0.01 * through_sigmoids[-1]
        assert (np.diff(through_sigmoids) > 0).all()
    for start, activation in (("xavier", "tanh"), ("he", "relu"), ("he", "leaky_relu"), ("xavier", "maxout")):
        through = norms(activations, start, activation)
        assert through.max() < 10 * through.min()
    for activation in ("tanh", "relu", "leaky_relu", "elu", "maxout"):
        assert norms(activations, "normal", activation).max() < 1e-6


def test_where_the_gradient_vanishes_nothing_is_learnt(activations: Results) -> None:
    trials = activations.trials.set_index(["params.depth", "params.initialisation", "params.activation"])
    accuracy = trials["best_value"].astype(float)
    for start in ("normal", "xavier", "he"):
        assert accuracy[6, start, "sigmoid"] < 0.2
    for activation in ("tanh", "relu", "leaky_relu", "elu", "maxout"):
        assert accuracy[6, "normal", activation] < 0.2
        assert accuracy[6, "xavier", activation] > 0.5
    # Maxout cuts nothing off, so what he adds for ReLU's sake is too much.
    assert "diverged" in trials.loc[(6, "he", "maxout"), "error"]


def test_the_figures_of_the_activations_show_these_norms(activations: Results) -> None:
    axes = activations.study.figures["gradients"](activations).axes
    assert [ax.get_title() for ax in axes[:3]] == ["normal", "xavier", "he"]
    drawn = {line.get_label(): line.get_ydata() for line in axes[1].lines}
    assert np.asarray(drawn["tanh"]) == pytest.approx(norms(activations, "xavier", "tanh"))
    assert len(activations.study.figures["accuracy_by_depth"](activations).axes) == 3


def test_a_step_too_small_creeps_and_one_too_large_diverges(tmp_path: Path) -> None:
    study_file = load("learning_rate", epochs=6)
    results = run(study_file, grid_of(study_file), tmp_path)
    trials = results.trials.set_index("params.lr")
    assert list(trials.index[trials["reason"] == "diverged"]) == [1.0, 3.0, 10.0]
    assert (trials["state"][trials["reason"] == "diverged"] == "diverged").all()
    learnt = trials["best_value"].astype(float)
    assert learnt[0.001] < 0.3 < learnt[0.03] < 0.8 < learnt[0.3]
    cost = results.history[results.history["number"] == trials.index.get_loc(1.0)]["train_loss"]
    assert (cost.diff().dropna() > 0).all()
    curves = results.study.figures["three_curves"](results).axes
    assert [text.get_text() for text in curves[0].get_legend().get_texts()] == [
        "too small, lr = 0.001",
        "adequate, lr = 0.3",
        "too large, lr = 1",
    ]
    assert results.study.figures["accuracy_by_step_size"](results).axes[0].get_xscale() == "log"


def test_penalties_shrink_the_gap_between_training_and_validation(tmp_path: Path) -> None:
    study_file = load("regularization", epochs=25)
    shown = {"weight_decay": 0.01, "l1": 0.001, "dropout": 0.5}
    points = grid_of(study_file, start=1, **shown)
    assert len(points) == 4
    results = run(study_file, points, tmp_path)
    gaps = {
        key: value - last(results, "validation_accuracy", "penalty")[key]
        for key, value in last(results, "train_accuracy", "penalty").items()
    }
    for penalty in shown:
        assert gaps[penalty,] < 0.5 * gaps["none",]
    assert len(results.study.figures["gap"](results).axes) == 3
    titles = [ax.get_title() for ax in results.study.figures["curves"](results).axes]
    assert titles == ["no penalty", "weight decay 0.01", "L1 0.001", "dropout 0.5"]


def test_a_fifth_of_the_labels_is_wrong_in_every_split() -> None:
    wrong, right = load("regularization").study.load_data(), digits(size=8)
    for name in ("train", "validation", "test"):
        changed = getattr(wrong, name).targets != getattr(right, name).targets
        assert changed.float().mean().item() == pytest.approx(0.2, abs=0.05)
    assert "wrong" in wrong.note


def test_the_figures_of_the_clothes_count_every_validation_image(small: Dataset, tmp_path: Path) -> None:
    study_file = load("fashion", dataset=lambda: small)
    rest = {"dropout": 0.0, "batch_size": 32, "epochs": 5}
    points = [{"lr": 0.01, "optimizer": "adam", **rest}, {"lr": 0.1, "optimizer": "sgd", "momentum": 0.9, **rest}]
    results = run(study_file, points, tmp_path)
    table = results.study.figures["confusion"](results).axes[0]
    counts = {text.get_position(): int(text.get_text()) for text in table.texts}
    assert sum(counts.values()) == 150
    right = sum(count for (named, true), count in counts.items() if named == true)
    accuracy = evaluate(results.model(results.best), lambda outputs, targets: outputs.mean(), small.validation)[
        "accuracy"
    ]
    assert right / 150 == pytest.approx(accuracy)
    assert right / 150 == pytest.approx(results.trials.loc[results.best, "best_value"])
    legend = results.study.figures["step_sizes"](results).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["adam", "sgd"]


POINTS = [
    {"lr": 0.003, "optimizer": "adam", "schedule": "constant", "batch_size": 16},
    {"lr": 0.01, "optimizer": "sgd", "schedule": "cosine", "batch_size": 16},
    {"lr": 0.1, "optimizer": "rmsprop", "schedule": "constant", "batch_size": 32},
]


@pytest.fixture(scope="module")
def whole_trials(small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three trials of LeNet, each trained to its tenth and last epoch."""
    study_file = load("early_stopping", dataset=lambda: small, epochs=10)
    return run(study_file, POINTS, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "rule", [EarlyStopping(patience=2), EarlyStopping(target=0.8, patience=3, min_improvement=0.02)]
)
def test_a_replayed_rule_says_what_training_with_it_does(
    rule: EarlyStopping, small: Dataset, whole_trials: Results, tmp_path: Path
) -> None:
    stopped = run(
        load("early_stopping", dataset=lambda: small, epochs=10, early_stopping=rule), POINTS, tmp_path
    ).trials
    told = replay_rules(whole_trials, {"rule": rule}).loc["rule"]
    whole = whole_trials.trials
    intervals = [stopping_interval(history, rule) for _, history in whole_trials.history.groupby("number")]
    assert intervals == list(stopped["intervals"])
    assert min(intervals) < 10
    lost = (whole["best_value"] - stopped["best_value"]).astype(float)
    assert told["saved"] == pytest.approx(1 - stopped["intervals"].sum() / 30)
    assert told["stopped"] == pytest.approx((stopped["intervals"] < 10).mean())
    assert told["cost_mean"] == pytest.approx(lost.mean())
    assert told["cost_most"] == pytest.approx(lost.max())
    assert told["cost_best"] == pytest.approx(whole["best_value"].max() - stopped["best_value"].max())


def test_no_rule_saves_and_costs_nothing(whole_trials: Results) -> None:
    told = replay_rules(whole_trials, {"never": EarlyStopping(), "out of reach": EarlyStopping(patience=11)})
    assert (told.to_numpy() == 0).all()


def test_the_figure_of_early_stopping_names_every_rule(whole_trials: Results) -> None:
    figure = whole_trials.study.figures["rules"](whole_trials)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[2] == "patience 2"
    assert len(labels) == 9


def test_rules_cannot_be_replayed_over_trials_that_were_stopped(small: Dataset, tmp_path: Path) -> None:
    study_file = load("early_stopping", dataset=lambda: small, epochs=10, early_stopping=EarlyStopping(patience=1))
    results = run(study_file, POINTS[2:], tmp_path)
    with pytest.raises(UsageError, match=r"trial 0 was itself stopped early \(patience\)"):
        replay_rules(results, {"rule": EarlyStopping(patience=2)})


@pytest.mark.parametrize("name", ["activations", "early_stopping", "inseparable", "learning_rate", "optimizers"])
def test_a_study_of_the_course_is_a_grid_or_sample_without_a_pruner(name: str) -> None:
    study = load(name).study
    assert study.pruner == "none"
    assert study.sampler in ("grid", "random")


@pytest.mark.parametrize(
    "name",
    [
        "activations",
        "early_stopping",
        "fashion",
        "inseparable",
        "learning_rate",
        "optimizers",
        "perceptron",
        "regularization",
    ],
)
def test_every_figure_has_a_caption(name: str) -> None:
    figures: dict[str, Callable[[Results], object]] = dict(load(name).study.figures)
    assert figures
    assert all(figure.__doc__ for figure in figures.values())
