import pytest
import torch
from torch import nn

from hpsearch import MLP, CrossEntropy, LeNet, Perceptron, UsageError, gradient_norms
from hpsearch.models import ACTIVATIONS, INITIALISATIONS, Maxout, activation, initialise


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class TestLeNet:
    def test_parameters_equal_a_count_by_hand(self) -> None:
        by_hand = {
            "conv 6@5x5": 6 * (1 * 25 + 1),
            "conv 16@5x5": 16 * (6 * 25 + 1),
            "120": 120 * (16 * 5 * 5 + 1),
            "84": 84 * (120 + 1),
            "classes": 10 * (84 + 1),
        }
        assert sum(by_hand.values()) == 61_706
        assert count(LeNet()) == 61_706

    def test_the_layers_shapes_on_28x28_images(self) -> None:
        model = LeNet().eval()
        shapes = []
        values = torch.zeros(2, 1, 28, 28)
        for layer in [*model.features, *model.classifier]:
            values = layer(values)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Linear):
                shapes.append(tuple(values.shape[1:]))
        assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]

    def test_width_channels_size_and_classes(self) -> None:
        model = LeNet(width=2, channels=3, size=32, classes=7)
        assert count(model) == 12 * 76 + 32 * 301 + 240 * (32 * 36 + 1) + 168 * 241 + 7 * 169
        assert model(torch.zeros(4, 3, 32, 32)).shape == (4, 7)

    def test_a_width_below_one_leaves_at_least_one_of_each(self) -> None:
        model = LeNet(width=0.05)
        assert [layer.out_channels for layer in model.features if isinstance(layer, nn.Conv2d)] == [1, 1]
        assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)

    @pytest.mark.parametrize("size", [12, 13, 28, 33])
    def test_every_size_from_twelve_runs(self, size: int) -> None:
        assert LeNet(size=size)(torch.zeros(2, 1, size, size)).shape == (2, 10)

    @pytest.mark.parametrize("size", [0, 8, 11])
    def test_smaller_images_are_refused(self, size: int) -> None:
        with pytest.raises(UsageError, match=f"LeNet: images must be at least 12x12 pixels, got size={size}"):
            LeNet(size=size)

    @pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 28, 28), (2, 28, 28), (2, 784)])
    def test_images_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match=r"LeNet was built for images \(1, 28, 28\), got .*: set channels, size"):
            LeNet()(torch.zeros(shape))

    def test_forward_equals_the_textbook_formula(self) -> None:
        torch.manual_seed(0)
        model = LeNet(activation="tanh")
        w = list(model.parameters())
        images = torch.randn(3, 1, 28, 28)
        x = nn.functional.max_pool2d(torch.tanh(nn.functional.conv2d(images, w[0], w[1], padding=2)), 2)
        x = nn.functional.max_pool2d(torch.tanh(nn.functional.conv2d(x, w[2], w[3])), 2).reshape(3, 400)
        x = torch.tanh(torch.tanh(x @ w[4].T + w[5]) @ w[6].T + w[7]) @ w[8].T + w[9]
        torch.testing.assert_close(model(images), x)

    def test_dropout_acts_in_training_only(self) -> None:
        torch.manual_seed(0)
        model = LeNet(dropout=0.5)
        images = torch.randn(2, 1, 28, 28)
        assert not torch.equal(model(images), model(images))
        model.eval()
        assert torch.equal(model(images), model(images))
        assert count(model) == 61_706


class TestMLP:
    def test_parameters_equal_a_count_by_hand(self) -> None:
        assert count(MLP()) == 128 * 785 + 10 * 129
        assert count(MLP(inputs=64, hidden=[8, 4], classes=3)) == 8 * 65 + 4 * 9 + 3 * 5

    def test_no_hidden_layer_is_a_linear_model(self) -> None:
        assert count(MLP(inputs=64, hidden=[], classes=3)) == 3 * 65

    def test_forward_equals_the_textbook_formula(self) -> None:
        torch.manual_seed(0)
        model = MLP(inputs=64, hidden=[8, 4], classes=3, activation="sigmoid", dropout=0.5).eval()
        w = list(model.parameters())
        images = torch.randn(5, 1, 8, 8)
        x = images.reshape(5, 64)
        x = torch.sigmoid(torch.sigmoid(x @ w[0].T + w[1]) @ w[2].T + w[3]) @ w[4].T + w[5]
        torch.testing.assert_close(model(images), x)

    def test_dropout_acts_in_training_only(self) -> None:
        torch.manual_seed(0)
        model = MLP(inputs=64, hidden=[32], dropout=0.5)
        inputs = torch.randn(2, 64)
        assert not torch.equal(model(inputs), model(inputs))
        model.eval()
        assert torch.equal(model(inputs), model(inputs))


class TestActivations:
    values = torch.tensor([-2.0, -0.5, 0.0, 1.5])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("relu", values.clamp(min=0)),
            ("tanh", (values.exp() - (-values).exp()) / (values.exp() + (-values).exp())),
            ("sigmoid", 1 / (1 + (-values).exp())),
            ("leaky_relu", torch.where(values > 0, values, 0.01 * values)),
            ("elu", torch.where(values > 0, values, values.exp() - 1)),
            ("maxout", torch.tensor([-0.5, 1.5])),
        ],
    )
    def test_each_equals_its_formula(self, name: str, expected: torch.Tensor) -> None:
        torch.testing.assert_close(activation(name)(self.values.unsqueeze(0)), expected.unsqueeze(0))

    def test_the_formulas_above_are_all(self) -> None:
        assert set(ACTIVATIONS) == {"relu", "tanh", "sigmoid", "leaky_relu", "elu", "maxout"}

    @pytest.mark.parametrize("name", sorted(ACTIVATIONS))
    def test_models_use_it(self, name: str) -> None:
        kind = type(activation(name))
        assert LeNet(activation=name)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        for model in (LeNet(activation=name), MLP(hidden=[4, 4, 4, 4], activation=name)):
            assert sum(isinstance(module, kind) for module in model.modules()) == 4

    def test_an_unknown_name(self) -> None:
        with pytest.raises(UsageError, match=r"activation must be one of relu, .*; got 'swish'"):
            LeNet(activation="swish")

    def test_maxout_takes_the_larger_of_neighbouring_channels(self) -> None:
        images = torch.randn(2, 6, 3, 3)
        expected = torch.stack([images[:, 2 * i : 2 * i + 2].amax(1) for i in range(3)], dim=1)
        assert torch.equal(Maxout()(images), expected)
        assert torch.equal(Maxout(pieces=6)(images), images.amax(1, keepdim=True))

    def test_maxout_doubles_the_parameters_before_it(self) -> None:
        assert count(MLP(inputs=64, hidden=[8], classes=3, activation="maxout")) == 2 * 8 * 65 + 3 * 9


class TestPerceptron:
    def test_is_one_linear_neuron(self) -> None:
        model = Perceptron(inputs=3)
        with torch.no_grad():
            model.neuron.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
            model.neuron.bias.fill_(4.0)
        assert model(torch.tensor([[1.0, 1.0, 2.0], [0.0, 3.0, 0.0]])).tolist() == [[4.0], [-2.0]]
        assert model(torch.zeros(5, 1, 3)).shape == (5, 1)
        assert count(model) == 4


class TestInitialisation:
    @pytest.mark.parametrize(
        ("name", "linear", "convolution"),
        [
            ("xavier", (2 / 500) ** 0.5, (2 / (25 * 8 + 25 * 40)) ** 0.5),
            ("he", (2 / 300) ** 0.5, (2 / (25 * 8)) ** 0.5),
            ("normal", 0.01, 0.01),
            ("zeros", 0.0, 0.0),
        ],
    )
    def test_the_weights_spread_as_documented(self, name: str, linear: float, convolution: float) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(8, 40, 5))
        initialise(model, name)
        for layer, deviation in zip(model, (linear, convolution), strict=True):
            weight, bias = layer.weight, layer.bias
            assert weight.mean().item() == pytest.approx(0, abs=deviation / 30)
            assert weight.std().item() == pytest.approx(deviation, rel=0.03)
            assert not bias.any()

    def test_the_table_above_is_all(self) -> None:
        assert set(INITIALISATIONS) == {"xavier", "he", "normal", "zeros"}

    def test_default_is_what_torch_drew(self) -> None:
        torch.manual_seed(0)
        expected = nn.Linear(64, 10)
        torch.manual_seed(0)
        model = MLP(inputs=64, hidden=[], initialisation="default")
        assert torch.equal(model.layers[-1].weight, expected.weight)
        assert torch.equal(model.layers[-1].bias, expected.bias)

    def test_models_use_it(self) -> None:
        assert not any(parameter.any() for parameter in Perceptron(initialisation="zeros").parameters())
        assert not any(parameter.any() for parameter in MLP(initialisation="zeros").parameters())

    def test_an_unknown_name(self) -> None:
        with pytest.raises(UsageError, match=r"initialisation must be one of default, xavier, .*; got 'orthogonal'"):
            MLP(initialisation="orthogonal")


class TestGradientNorms:
    def test_equal_those_of_backward_and_leave_the_gradients_alone(self) -> None:
        torch.manual_seed(0)
        model = LeNet(size=12, activation="tanh")
        inputs, targets = torch.randn(4, 1, 12, 12), torch.tensor([0, 1, 2, 3])
        norms = gradient_norms(model, CrossEntropy(), inputs, targets)
        assert all(parameter.grad is None for parameter in model.parameters())
        CrossEntropy()(model(inputs), targets).backward()
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        assert list(norms) == list(layers)
        for name, layer in layers.items():
            assert layer.weight.grad is not None
            assert norms[name] == pytest.approx(layer.weight.grad.square().sum().sqrt().item(), rel=1e-5)

    def test_they_vanish_through_many_sigmoids(self) -> None:
        torch.manual_seed(0)
        model = MLP(inputs=8, hidden=[8] * 8, activation="sigmoid")
        norms = list(gradient_norms(model, CrossEntropy(), torch.randn(16, 8), torch.arange(16) % 10).values())
        assert len(norms) == 9
        assert norms[0] < 1e-3 * norms[-1]

    def test_frozen_layers_are_left_out(self) -> None:
        model = MLP(inputs=8, hidden=[4])
        model.layers[1].requires_grad_(False)
        assert len(gradient_norms(model, CrossEntropy(), torch.randn(2, 8), torch.tensor([0, 1]))) == 1
