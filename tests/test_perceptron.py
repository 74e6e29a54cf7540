"""The course's first learning machine: the shared loop takes the perceptron rule's steps, and stops where it should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from hpsearch import SGD, Perceptron, PerceptronCriterion, Recipe, Split, Steps, Study, points
from hpsearch.seeding import derive_seed
from hpsearch.training import Run, train
from support.course import grid_of, load, run


def separable(split: Split) -> bool:
    """Whether a line parts the classes: whether y (w'x + b) >= 1 has a solution, by linear programming."""
    signs = np.where(split.targets > 0, 1.0, -1.0)
    augmented = np.c_[split.inputs.numpy(), np.ones(len(split))]
    rows = -signs[:, None] * augmented
    return bool(linprog(np.zeros(3), A_ub=rows, b_ub=-np.ones(len(split)), bounds=(None, None)).success)


def rule(weights: Tensor, bias: Tensor, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Rosenblatt's rule as the course writes it: W <- W + d x, b <- b + d with d = (y - sign(W'x + b)) / 2."""
    y = 1 if target > 0 else -1
    sign = 1 if (weights * x).sum() + bias > 0 else -1
    d = (y - sign) / 2
    return weights + d * x, bias + d


@pytest.mark.parametrize("are_separable", [True, False])
def test_the_eight_points_are_all_three_splits_and_a_line_parts_the_first_variant_only(are_separable: bool) -> None:
    data = points(separable=are_separable)
    assert isinstance(data.train, Split)
    assert data.train is data.validation is data.test
    assert data.train.inputs.shape == (8, 2)
    assert separable(data.train) == are_separable
    assert "all of them" in data.note


def test_the_points_are_the_courses() -> None:
    split = points().train
    assert isinstance(split, Split)
    written = {(2, 1, 1), (6, 0.5, 0), (2.5, -1, 1), (5, 0, 0), (0, 0, 1), (4, -1, 0), (1, 0.5, 1), (3, 1.5, 0)}
    assert {(*map(float, x), int(t)) for x, t in zip(split.inputs, split.targets, strict=True)} == written


@pytest.mark.parametrize("initialisation", ["default", "zeros"])
@pytest.mark.parametrize("are_separable", [True, False])
def test_the_loop_takes_the_very_steps_of_the_rule(initialisation: str, are_separable: bool) -> None:
    """Bit for bit, over 25 epochs; from zeros the first outputs are exactly 0, the kink of the criterion."""
    data = points(separable=are_separable)
    split = data.train
    assert isinstance(split, Split)
    study = Study(
        recipe=lambda space: Recipe(
            model=Perceptron(initialisation=initialisation),
            optimizer=SGD(lr=1.0),
            loss=PerceptronCriterion(),
            batch_size=1,
        ),
        dataset=lambda: data,
        epochs=25,
        interval=Steps(1),
    )
    loop = Run(study, {}, data, seed=4)
    neuron = loop.model.neuron
    assert isinstance(neuron, torch.nn.Linear)
    weights, bias = neuron.weight.detach()[0].clone(), neuron.bias.detach()[0].clone()
    moved = 0
    for number, _ in enumerate(train(loop)):
        epoch, place = divmod(number, 8)
        order = torch.randperm(8, generator=torch.Generator().manual_seed(derive_seed(4, "order", epoch)))
        before = weights
        weights, bias = rule(weights, bias, split.inputs[order[place]], int(split.targets[order[place]]))
        moved += int(not torch.equal(before, weights))
        assert torch.equal(neuron.weight[0], weights)
        assert torch.equal(neuron.bias[0], bias)
    assert number == 199
    assert moved > 3


def test_the_perceptron_study_ends_when_all_points_are_right(tmp_path: Path) -> None:
    study_file = load("perceptron")
    chosen = [
        {"rule": "perceptron"},
        {"rule": "squared error", "hidden": 0, "lr": 0.01},
        {"rule": "squared error", "hidden": 0, "lr": 1.0},
        {"rule": "sigmoid", "hidden": 0, "lr": 0.1},
        {"rule": "sigmoid", "hidden": 8, "lr": 0.1},
    ]
    assert all(point in grid_of(study_file) for point in chosen)
    results = run(study_file, chosen, tmp_path)
    assert list(results.trials["reason"]) == ["target", "target", "diverged", "target", "target"]
    for number in (0, 1, 3, 4):
        last = results.history[results.history["number"] == number].iloc[-1]
        assert (last["train_accuracy"], last["validation_accuracy"]) == (1.0, 1.0)
    neuron = results.model(0).neuron
    assert isinstance(neuron, torch.nn.Linear)
    split = points().train
    assert isinstance(split, Split)
    assert torch.equal(neuron(split.inputs)[:, 0] > 0, split.targets > 0)
    for figure in results.study.figures.values():
        figure(results)
    panels = results.study.figures["boundaries"](results).axes
    assert "8 of 8 right" in panels[0].get_title()


def test_without_a_line_patience_ends_the_rule_and_a_hidden_layer_gets_there(tmp_path: Path) -> None:
    study_file = load("inseparable")
    results = run(study_file, grid_of(study_file, start=1), tmp_path)
    trials = results.trials.set_index("params.network")
    assert trials["reason"].to_dict() == {
        "perceptron rule": "patience",
        "sigmoid neuron": "patience",
        "hidden layer": "target",
    }
    assert trials.loc["perceptron rule", "best_value"] < 1
    stopped = trials.loc["perceptron rule"]
    assert stopped["intervals"] - stopped["best_interval"] == 50
    figure = results.study.figures["boundaries"](results)
    assert [ax.get_title().splitlines()[0] for ax in figure.axes[:3]] == list(trials.index)
