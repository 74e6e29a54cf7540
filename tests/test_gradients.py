"""The gradients the shared loop descends along, against numbers worked out otherwise."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hpsearch import (
    MLP,
    MSE,
    SGD,
    BinaryCrossEntropy,
    CrossEntropy,
    Dataset,
    LeNet,
    PerceptronCriterion,
    Recipe,
    Split,
    Study,
    gradient_norms,
)
from hpsearch.optim import Loss
from hpsearch.training import Run, train


def gradients_of_the_loop(model: Callable[[], nn.Module], loss: Loss, split: Split) -> tuple[nn.Module, list[Tensor]]:
    """Return a model, and the gradient the loop saw at it: what one step of size 1 takes off the weights."""
    data = Dataset(train=split, validation=split, test=None, classes=("a", "b"))
    study = Study(
        recipe=lambda space: Recipe(model=model(), optimizer=SGD(lr=1.0), loss=loss, batch_size=len(split)),
        dataset=lambda: data,
        epochs=1,
    )
    start, run = (Run(study, {}, data, seed=3) for _ in range(2))
    list(train(run))
    pairs = zip(start.model.parameters(), run.model.parameters(), strict=True)
    return start.model, [(before - after).detach() for before, after in pairs]


def central_differences(model: nn.Module, loss: Loss, split: Split, by: float = 1e-6) -> list[Tensor]:
    """Return the derivative of the loss by each weight, from its change as the weight goes up and down by a little."""
    gradients = []
    with torch.no_grad():
        for parameter in model.parameters():
            flat = parameter.view(-1)
            gradient = torch.empty_like(flat)
            for index, value in enumerate(flat.tolist()):
                flat[index] = value + by
                above = loss(model(split.inputs), split.targets)
                flat[index] = value - by
                below = loss(model(split.inputs), split.targets)
                flat[index] = value
                gradient[index] = (above - below) / (2 * by)
            gradients.append(gradient.view_as(parameter))
    return gradients


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "leaky_relu", "elu", "maxout"])
@pytest.mark.parametrize(
    ("loss", "classes"),
    [(CrossEntropy(), 3), (MSE(), 3), (MSE(), 1), (BinaryCrossEntropy(), 1), (PerceptronCriterion(), 1)],
)
def test_the_loops_gradients_equal_finite_differences(activation: str, loss: Loss, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    split = Split(inputs, torch.randint(0, max(classes, 2), (7,), generator=generator))

    def model() -> nn.Module:
        return MLP(inputs=4, hidden=(5, 5), classes=classes, activation=activation).double()

    start, gradients = gradients_of_the_loop(model, loss, split)
    for ours, theirs in zip(gradients, central_differences(start, loss, split), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


class Circuit(nn.Module):
    """f = (x + y) z, of the course's lecture on backpropagation (CS231n, lecture 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y, self.z = (nn.Parameter(torch.tensor(value)) for value in (-2.0, 5.0, -4.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return ((self.x + self.y) * self.z).expand(len(inputs), 1)


def test_the_course_example_of_backpropagation() -> None:
    split = Split(torch.zeros(1, 1), torch.tensor([1]))
    _, gradients = gradients_of_the_loop(Circuit, lambda outputs, targets: outputs.mean(), split)
    assert [gradient.item() for gradient in gradients] == [-4.0, -4.0, 3.0]


def test_gradient_norms_are_those_of_autograd_and_leave_the_model_alone() -> None:
    torch.manual_seed(0)
    model, images, targets = LeNet(width=0.5), torch.randn(4, 1, 28, 28), torch.tensor([1, 2, 3, 4])
    norms = gradient_norms(model, CrossEntropy(), images, targets)
    assert all(parameter.grad is None for parameter in model.parameters())
    CrossEntropy()(model(images), targets).backward()
    expected = {
        name.removesuffix(".weight"): parameter.grad.square().sum().sqrt().item()
        for name, parameter in model.named_parameters()
        if name.endswith(".weight") and parameter.grad is not None
    }
    assert list(norms) == ["features.0", "features.3", "classifier.1", "classifier.3", "classifier.5"]
    assert norms == pytest.approx(expected)


def test_a_chain_of_sigmoids_takes_a_quarter_and_the_weight_at_each_layer() -> None:
    """At an output of zero before it, a sigmoid's slope is 1/4: the closed form of the vanishing gradient."""
    depth, weight = 6, 0.5
    model = MLP(inputs=1, hidden=(1,) * depth, classes=1, activation="sigmoid").double()
    with torch.no_grad():
        for layer in model.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.fill_(weight)
                # Undoes the sigmoid's 1/2 times the weight, so that every neuron sits at zero.
                layer.bias.fill_(-0.5 * weight)
        model.layers[1].bias.zero_()  # type: ignore[union-attr]
    inputs = torch.zeros(1, 1, dtype=torch.float64)
    norms = gradient_norms(model, lambda outputs, targets: outputs.sum(), inputs, torch.tensor([0]))
    # From the second layer on, the input of each is 1/2.
    expected = [0.5 * (0.25 * weight) ** (depth - layer) for layer in range(1, depth + 1)]
    assert list(norms.values())[1:] == pytest.approx(expected)
