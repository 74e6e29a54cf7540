import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpsearch import (
    L1,
    MSE,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    NormalizedGradient,
    OneCycle,
    PerceptronCriterion,
    Plateau,
    RMSprop,
    UsageError,
    Warmup,
)
from hpsearch.optim import Optimizer, Schedule, as_numbers

STEPS = 10


def weights_after(
    optimizer: Callable[[Any], torch.optim.Optimizer],
    schedule: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None,
    steps: int = STEPS,
) -> torch.Tensor:
    """Return a small network's weights after some steps on a fixed problem."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(16, 5, generator=generator)
    targets = torch.randint(3, (16,), generator=generator)
    live = optimizer(model.parameters())
    scheduler = schedule(live)
    for _ in range(steps):
        live.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        live.step()
        if scheduler is not None:
            scheduler.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("ours", "reference", "settings"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.5}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (Adam, torch.optim.Adam, {}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.1, "weight_decay": 0.1}),
        (AdamW, torch.optim.AdamW, {}),
        (AdamW, torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.1, "weight_decay": 0.1}),
        (RMSprop, torch.optim.RMSprop, {}),
        (
            RMSprop,
            torch.optim.RMSprop,
            {"lr": 0.05, "alpha": 0.9, "eps": 0.1, "momentum": 0.5, "weight_decay": 0.1},
        ),
        (Adagrad, torch.optim.Adagrad, {}),
        (Adagrad, torch.optim.Adagrad, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    ],
)
def test_an_optimizer_takes_the_steps_of_torchs(
    ours: Callable[..., Optimizer], reference: Callable[..., torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    expected = weights_after(lambda parameters: reference(parameters, **settings, **plain(reference)))
    assert not torch.equal(expected, weights_after(ours(**settings), steps=0))
    torch.testing.assert_close(weights_after(ours(**settings)), expected, rtol=1e-5, atol=1e-6)


def plain(reference: Any) -> dict[str, Any]:
    """Return the setting for torch's one-tensor-at-a-time implementation."""
    return {"foreach": False} if reference is torch.optim.RMSprop else {"fused": False, "foreach": False}


def stepped(optimizer: Optimizer, weights: list[float], gradients: list[list[float]]) -> list[float]:
    """Return weights after one step for each of the gradients."""
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    live = optimizer([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        live.step()
    return parameter.tolist()


class TestNormalizedGradient:
    @pytest.mark.parametrize("eps", [0.0, 1e-8])
    def test_every_component_moves_by_the_step_size(self, eps: float) -> None:
        optimizer = NormalizedGradient(lr=0.1, eps=eps)
        moved = stepped(optimizer, [1.0, 1.0, 1.0, 1.0], [[5.0, -1e-3, 0.0, 1e3]])
        assert moved == pytest.approx([0.9, 1.1, 1.0, 0.9], abs=1e-5)

    def test_eps_slows_where_the_gradient_is_small(self) -> None:
        moved = stepped(NormalizedGradient(lr=0.1, eps=0.5), [0.0, 0.0], [[0.5, -1.5], [0.5, -1.5]])
        assert moved == pytest.approx([-0.1, 0.15])

    def test_a_parameter_without_a_gradient_stays(self) -> None:
        used, unused = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        live = NormalizedGradient(lr=0.5)([used, unused])
        used.sum().backward()
        live.step()
        assert (used.item(), unused.item()) == (pytest.approx(0.5), 1.0)


class TestL1:
    @pytest.mark.parametrize("inner", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.1), NormalizedGradient(lr=0.1)])
    def test_equals_the_penalty_in_the_loss(self, inner: Optimizer) -> None:
        """By autograd, on a quadratic, over steps in which signs change."""
        centre = torch.tensor([0.3, -0.2, 1.0])

        def descend(optimizer: Optimizer, strength: float) -> torch.Tensor:
            parameter = nn.Parameter(torch.tensor([0.5, 0.5, -0.5]))
            live = optimizer([parameter])
            for _ in range(20):
                live.zero_grad()
                loss = (parameter - centre).square().sum() + strength * parameter.abs().sum()
                loss.backward()
                live.step()
            return parameter.detach()

        torch.testing.assert_close(descend(L1(inner, 0.3), 0.0), descend(inner, 0.3))

    def test_a_weight_at_zero_is_not_pushed(self) -> None:
        assert stepped(L1(SGD(lr=1.0), 0.25), [0.0, 2.0, -2.0], [[0.0, 0.0, 0.0]]) == [0.0, 1.75, -1.75]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SGD(lr=0.0), r"SGD: lr must be above 0, got 0\.0"),
        (lambda: SGD(lr=-0.1), r"SGD: lr must be above 0, got -0\.1"),
        (lambda: SGD(lr=math.nan), "SGD: lr .* got nan"),
        (lambda: SGD(lr=math.inf), "SGD: lr .* got inf"),
        (lambda: SGD(lr=0.1, momentum=-0.9), r"SGD: momentum must be in \[0, 1\), got -0\.9"),
        (lambda: SGD(lr=0.1, weight_decay=-1), "SGD: weight_decay .* got -1"),
        (lambda: SGD(lr=0.1, nesterov=True), "SGD: nesterov needs a momentum above 0"),
        (lambda: Adam(lr=-1), "Adam: lr .* got -1"),
        (lambda: Adam(eps=-1), "Adam: eps .* got -1"),
        (lambda: Adam(betas=(0.9, 1.0)), r"Adam: betas .* 1\.0"),
        (lambda: AdamW(lr=-1), "AdamW: lr .* got -1"),
        (lambda: AdamW(weight_decay=-1), "AdamW: weight_decay .* got -1"),
        (lambda: AdamW(betas=(-0.1, 0.9)), r"AdamW: betas .* -0\.1"),
        (lambda: RMSprop(lr=-1), "RMSprop: lr .* got -1"),
        (lambda: RMSprop(alpha=-1), "RMSprop: alpha .* got -1"),
        (lambda: RMSprop(eps=-1), "RMSprop: eps .* got -1"),
        (lambda: Adagrad(lr=0), "Adagrad: lr .* got 0"),
        (lambda: Adagrad(eps=-1), "Adagrad: eps .* got -1"),
        (lambda: NormalizedGradient(lr=0), "NormalizedGradient: lr .* got 0"),
        (lambda: NormalizedGradient(eps=-1), "NormalizedGradient: eps .* got -1"),
        (lambda: L1(SGD(lr=0.1), -1), "L1: strength .* got -1"),
        (lambda: CrossEntropy(label_smoothing=1.5), r"CrossEntropy: label_smoothing .* 1\.5"),
        (lambda: CrossEntropy(weight=(1.0, 0.0)), r"CrossEntropy: weight must be .* above 0, got \(1\.0, 0\.0\)"),
        (lambda: CrossEntropy(weight=(1.0, -2.0)), r"CrossEntropy: weight .* got \(1\.0, -2\.0\)"),
        (lambda: CrossEntropy(weight=(1.0, math.nan)), r"CrossEntropy: weight .* got \(1\.0, nan\)"),
        (lambda: CrossEntropy(weight=(1.0, True)), r"CrossEntropy: weight .* got \(1\.0, True\)"),
        (lambda: CrossEntropy(weight=2.0), r"CrossEntropy: weight must be a tuple .* got 2\.0"),  # type: ignore[arg-type]
        (lambda: CrossEntropy(weight="12"), "CrossEntropy: weight must be a tuple .* got '12'"),  # type: ignore[arg-type]
        (lambda: BinaryCrossEntropy(pos_weight=0.0), r"BinaryCrossEntropy: pos_weight .* above 0, got 0\.0"),
        (lambda: BinaryCrossEntropy(pos_weight=-1.0), r"BinaryCrossEntropy: pos_weight .* got -1\.0"),
        (lambda: BinaryCrossEntropy(pos_weight=math.nan), "BinaryCrossEntropy: pos_weight .* got nan"),
        (lambda: BinaryCrossEntropy(pos_weight=True), "BinaryCrossEntropy: pos_weight .* got True"),
        (lambda: Warmup(1.0), r"Warmup: share .* \[0, 1\), got 1\.0"),
        (lambda: Warmup(-0.1), r"Warmup: share .* \[0, 1\), got -0\.1"),
        (lambda: Warmup(5), r"Warmup: share is a share of all steps .* got 5"),
        (lambda: Warmup(0.1, then="cosine"), "Warmup: then must be a schedule .* got 'cosine'"),  # type: ignore[arg-type]
        (lambda: Warmup(0.1, then=OneCycle()), "Warmup: then .* without a rise of its own, or None, got OneCycle"),
        (lambda: Cosine(warmup=1.0), r"Cosine: warmup .* \[0, 1\), got 1\.0"),
        (lambda: Cosine(warmup=-0.1), r"Cosine: warmup .* got -0\.1"),
        (lambda: Plateau(factor=1.0), r"Plateau: factor must be a number in \(0, 1\), got 1\.0"),
        (lambda: Plateau(patience=0), "Plateau: patience must be a number of intervals, at least 1, got 0"),
        (lambda: Plateau(min_improvement=-0.1), "Plateau: min_improvement must be at least 0, got -0.1"),
        (lambda: OneCycle(rise=0.0), r"OneCycle: rise .* \(0, 1\), got 0\.0"),
        (lambda: OneCycle(rise=1.0), r"OneCycle: rise .* got 1\.0"),
    ],
)
def test_a_wrong_argument_is_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()


class TestLosses:
    outputs = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    targets = torch.tensor([1, 0])

    def test_cross_entropy_is_the_mean_of_minus_log_softmax(self) -> None:
        expected = 0.0
        for row, target in zip(self.outputs.tolist(), self.targets.tolist(), strict=True):
            expected += math.log(sum(map(math.exp, row))) - row[target]
        assert CrossEntropy()(self.outputs, self.targets).item() == pytest.approx(expected / 2, rel=1e-6)

    def test_label_smoothing_mixes_in_the_mean_over_classes(self) -> None:
        expected = 0.0
        for row, target in zip(self.outputs.tolist(), self.targets.tolist(), strict=True):
            losses = [math.log(sum(map(math.exp, row))) - logit for logit in row]
            expected += 0.8 * losses[target] + 0.2 * sum(losses) / 3
        smoothed = CrossEntropy(label_smoothing=0.2)(self.outputs, self.targets)
        assert smoothed.item() == pytest.approx(expected / 2, rel=1e-6)

    def test_class_weights_make_a_weighted_mean(self) -> None:
        weight = (1.0, 3.0, 0.5)
        expected = total = 0.0
        for row, target in zip(self.outputs.tolist(), self.targets.tolist(), strict=True):
            expected += weight[target] * (math.log(sum(map(math.exp, row))) - row[target])
            total += weight[target]
        found = CrossEntropy(weight=weight)(self.outputs, self.targets)
        assert found.item() == pytest.approx(expected / total, rel=1e-6)

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_class_weights_are_torchs(self, smoothing: float) -> None:
        ours = CrossEntropy(weight=(1.0, 3.0, 0.5), label_smoothing=smoothing)
        reference = nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5]), label_smoothing=smoothing)
        places, classes = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
        for outputs, targets in (
            (self.outputs, self.targets),
            (self.outputs, torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])),
            (places, classes),
        ):
            assert ours(outputs, targets) == reference(outputs, targets)

    def test_class_weights_of_another_number_than_classes_are_refused(self) -> None:
        with pytest.raises(UsageError, match="CrossEntropy: weight needs a number for each of the 3 classes, got 2"):
            CrossEntropy(weight=(1.0, 2.0))(self.outputs, self.targets)

    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_the_positive_class_counts_pos_weight_times(self, shape: tuple[int, ...]) -> None:
        outputs, targets = [0.5, -3.0, 2.0, 0.0], [1, 0, 0, 1]
        expected = sum(
            2.5 * math.log(1 + math.exp(-f)) if target else math.log(1 + math.exp(f))
            for f, target in zip(outputs, targets, strict=True)
        )
        loss = BinaryCrossEntropy(pos_weight=2.5)(torch.tensor(outputs).reshape(shape), torch.tensor(targets))
        assert loss.item() == pytest.approx(expected / 4, rel=1e-6)

    def test_a_target_of_binary_cross_entropy_may_be_a_probability(self) -> None:
        outputs, targets = torch.tensor([0.5, -3.0, 2.0, 0.0]), torch.tensor([0.3, -1.0, 0.9, 1.0])
        expected = sum(
            p * math.log(1 + math.exp(-f)) + (1 - p) * math.log(1 + math.exp(f))
            for f, p in zip(outputs.tolist(), [0.3, 0.0, 0.9, 1.0], strict=True)
        )
        assert BinaryCrossEntropy()(outputs, targets).item() == pytest.approx(expected / 4, rel=1e-6)

    @pytest.mark.parametrize(
        ("targets", "outputs", "loss", "expected"),
        [
            ([2, 0], (2, 3), CrossEntropy(), [[0, 0, 1], [1, 0, 0]]),
            ([[2], [0]], (2, 3), nn.CrossEntropyLoss(), [[0, 0, 1], [1, 0, 0]]),
            ([[0, 1], [1, 1]], (2, 2, 2), CrossEntropy(), [[[1, 0], [0, 1]], [[0, 0], [1, 1]]]),
            ([1, 0], (2, 1), BinaryCrossEntropy(), [1, 0]),
            ([[7], [0]], (2,), BinaryCrossEntropy(), [[1], [0]]),
            ([1, 0], (2, 1), MSE(), [1, -1]),
            ([1, 0], (2, 2), MSE(), [[0, 1], [1, 0]]),
            ([0.5, -2.0], (2, 1), MSE(), [0.5, -2.0]),
            ([[0.5, 0.5], [1.0, 0.0]], (2, 2), CrossEntropy(), [[0.5, 0.5], [1.0, 0.0]]),
        ],
    )
    def test_targets_as_numbers_have_the_same_loss(
        self, targets: Any, outputs: tuple[int, ...], loss: Any, expected: Any
    ) -> None:
        given, values = torch.tensor(targets), torch.randn(outputs)
        found = as_numbers(given, values, loss)
        assert found.is_floating_point()
        assert found.tolist() == expected
        if not isinstance(loss, nn.Module):
            assert loss(values, found).item() == pytest.approx(loss(values, given).item(), rel=1e-6)

    def test_a_criterion_of_classes_only_is_refused_for_mixed_targets(self) -> None:
        with pytest.raises(UsageError, match="PerceptronCriterion has no loss between two classes"):
            as_numbers(torch.tensor([1, 0]), torch.randn(2, 1), PerceptronCriterion())

    def test_mse_against_one_hot_rows(self) -> None:
        # Targets (0, 1, 0) and (1, 0, 0).
        expected = (1 + 1 + 1 + 0.25 + 0 + 9) / 6
        assert MSE()(self.outputs, self.targets).item() == pytest.approx(expected)

    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_mse_against_numbers(self, shape: tuple[int, ...]) -> None:
        outputs = torch.tensor([[1.0], [3.0]])
        assert MSE()(outputs, torch.tensor([0.0, 1.0]).view(shape)).item() == pytest.approx((1 + 4) / 2)

    def test_mse_against_plus_and_minus_one_for_a_single_neuron(self) -> None:
        outputs = torch.tensor([[0.5], [-3.0], [2.0]])
        assert MSE()(outputs, torch.tensor([1, 0, 0])).item() == pytest.approx((0.25 + 4 + 9) / 3)

    @pytest.mark.parametrize("output_shape", [(3,), (3, 1), (3, 2)])
    @pytest.mark.parametrize("target_shape", [(3,), (3, 1)])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
    @pytest.mark.parametrize("name", ["cross-entropy", "mse", "binary", "perceptron"])
    def test_every_combination_of_shapes(
        self, output_shape: tuple[int, ...], target_shape: tuple[int, ...], dtype: torch.dtype, name: str
    ) -> None:
        """The loss of plain Python, or a refusal that names both shapes."""
        outputs = torch.tensor([[0.5, -2.0], [-1.0, 0.25], [3.0, 2.0]])
        outputs = outputs if output_shape == (3, 2) else outputs[:, 0].reshape(output_shape)
        numbers = [1, 0, 1]
        targets = torch.tensor(numbers, dtype=dtype).reshape(target_shape)
        rows = outputs.tolist() if output_shape == (3, 2) else [[value] for value in outputs.flatten().tolist()]
        floating, several = dtype == torch.float32, output_shape == (3, 2)

        def cross_entropy(row: list[float], number: int) -> float:
            return -math.log(math.exp(row[number]) / sum(map(math.exp, row)))

        def squares(row: list[float], number: int) -> float:
            if several:
                return sum((value - (number == place)) ** 2 for place, value in enumerate(row)) / 2
            return (row[0] - (number if floating else 2 * number - 1)) ** 2

        loss, expected, fits = {
            "cross-entropy": (CrossEntropy(), cross_entropy, several and not floating),
            "mse": (MSE(), squares, not (several and floating)),
            "binary": (
                BinaryCrossEntropy(),
                lambda row, number: math.log(1 + math.exp(-row[0] if number else row[0])),
                not several,
            ),
            "perceptron": (
                PerceptronCriterion(),
                lambda row, number: max(0.0, -row[0] if number else row[0]),
                not several,
            ),
        }[name]
        if fits:
            found = loss(outputs, targets).item()
            wanted = [expected(row, number) for row, number in zip(rows, numbers, strict=True)]  # type: ignore[operator]
            assert found == pytest.approx(sum(wanted) / 3, rel=1e-6)
        else:
            with pytest.raises(UsageError) as raised:
                loss(outputs, targets)
            assert f"got outputs {output_shape} and targets {target_shape}" in str(raised.value)

    def test_losses_against_probabilities_and_at_places_are_torchs(self) -> None:
        probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
        outputs = torch.randn(2, 3)
        assert CrossEntropy()(outputs, probabilities) == functional.cross_entropy(outputs, probabilities)
        assert MSE()(outputs, probabilities) == functional.mse_loss(outputs, probabilities)
        places, classes = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
        assert CrossEntropy()(places, classes) == functional.cross_entropy(places, classes)
        one_hot = torch.stack([classes == number for number in range(3)], dim=1).float()
        assert MSE()(places, classes) == functional.mse_loss(places, one_hot)

    def test_binary_cross_entropy_is_the_mean_of_minus_log_sigmoid(self) -> None:
        outputs, targets = [0.5, -3.0, 2.0, 0.0], [1, 0, 0, 1]
        expected = sum(math.log(1 + math.exp(-f if target else f)) for f, target in zip(outputs, targets, strict=True))
        loss = BinaryCrossEntropy()(torch.tensor(outputs).unsqueeze(1), torch.tensor(targets))
        assert loss.item() == pytest.approx(expected / 4, rel=1e-6)

    @pytest.mark.parametrize("targets", [[1, 0, 0, 1], [1.0, -1.0, -1.0, 1.0]])
    def test_perceptron_criterion_counts_the_wrong_side_only(self, targets: list[Any]) -> None:
        outputs = torch.tensor([[0.5], [-3.0], [2.0], [-0.25]])
        assert PerceptronCriterion()(outputs, torch.tensor(targets)).item() == pytest.approx((2 + 0.25) / 4)

    @pytest.mark.parametrize(("target", "moves"), [(1, -1.0), (0, 0.0)])
    def test_perceptron_criterion_takes_zero_for_the_negative_class(self, target: int, moves: float) -> None:
        output = torch.zeros(1, 1, requires_grad=True)
        PerceptronCriterion()(output, torch.tensor([target])).backward()
        assert output.grad is not None
        assert output.grad.item() == moves

    @pytest.mark.parametrize(
        "loss", [BinaryCrossEntropy(), BinaryCrossEntropy(pos_weight=3.0), MSE(), PerceptronCriterion()]
    )
    def test_a_loss_of_a_single_neuron_can_be_differentiated(self, loss: Any) -> None:
        outputs = torch.tensor([[0.5], [-3.0], [2.0]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda outputs: loss(outputs, torch.tensor([1, 1, 0])), (outputs,))

    @pytest.mark.parametrize(
        "loss",
        [CrossEntropy(), CrossEntropy(label_smoothing=0.1), CrossEntropy(weight=(1.0, 3.0, 0.5)), MSE()],
    )
    def test_a_loss_can_be_differentiated(self, loss: Any) -> None:
        outputs = self.outputs.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda outputs: loss(outputs, self.targets), (outputs,))


def rates(schedule: Schedule, total_steps: int, lr: float = 0.5) -> list[float]:
    """Return the step size used at each step, and the one after the last."""
    optimizer = SGD(lr=lr)([nn.Parameter(torch.zeros(1))])
    scheduler = schedule(optimizer, total_steps)
    used = []
    for _ in range(total_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*used, optimizer.param_groups[0]["lr"]]


class TestCosine:
    @pytest.mark.parametrize("total_steps", [1, 2, 7, 40])
    def test_falls_along_half_a_cosine(self, total_steps: int) -> None:
        expected = [0.5 * (1 + math.cos(math.pi * k / total_steps)) / 2 for k in range(total_steps + 1)]
        assert rates(Cosine(), total_steps) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(
        ("warmup", "total_steps", "rising"), [(0.25, 8, 2), (0.5, 7, 4), (0.9, 10, 9), (0.99, 10, 10), (0.1, 3, 0)]
    )
    def test_rises_in_equal_parts_first(self, warmup: float, total_steps: int, rising: int) -> None:
        rise = [0.5 * (k + 1) / (rising + 1) for k in range(rising)]
        falling = total_steps - rising
        fall = [0.5 * (1 + math.cos(math.pi * k / max(1, falling))) / 2 for k in range(falling + 1)]
        used = rates(Cosine(warmup=warmup), total_steps)
        assert used == pytest.approx(rise + fall, abs=1e-9)
        assert all(rate > 0 for rate in used[:-1])


class TestWarmup:
    @pytest.mark.parametrize(
        ("share", "total_steps", "rising"),
        [(0.25, 8, 2), (0.5, 7, 4), (0.1, 3, 0), (0.99, 10, 10), (0.0, 6, 0), (0, 1, 0)],
    )
    @pytest.mark.parametrize("then", [None, "steps", "cosine"])
    def test_rises_in_equal_parts_then_follows(
        self, then: str | None, share: float, total_steps: int, rising: int
    ) -> None:
        def halves(optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
            return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

        rise = [0.5 * (k + 1) / (rising + 1) for k in range(rising)]
        falling = total_steps - rising
        rest = {
            None: [0.5] * (falling + 1),
            "steps": [0.5 * 0.5 ** (k // 2) for k in range(falling + 1)],
            "cosine": [0.5 * (1 + math.cos(math.pi * k / max(1, falling))) / 2 for k in range(falling + 1)],
        }[then]
        schedule = Warmup(share, then={None: None, "steps": halves, "cosine": Cosine()}[then])
        assert rates(schedule, total_steps) == pytest.approx(rise + rest, abs=1e-9)


def one_cycle(total_steps: int, rise: float, lr: float) -> list[float]:
    """Return cosine pieces from lr/25 up to lr and down to lr/250,000."""

    def piece(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    top = rise * (total_steps + 1) - 1
    return [
        piece(lr / 25, lr, k / top) if k <= top else piece(lr, lr / 25e4, (k - top) / (total_steps - top))
        for k in range(total_steps + 1)
    ]


class TestOneCycle:
    @pytest.mark.parametrize(("rise", "total_steps"), [(0.3, 10), (0.3, 33), (0.5, 8), (0.9, 20), (0.05, 50)])
    def test_rises_and_falls_along_cosines(self, rise: float, total_steps: int) -> None:
        expected = one_cycle(total_steps, rise, 0.5)
        assert rates(OneCycle(rise=rise), total_steps) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize(("rise", "total_steps"), [(0.5, 1), (0.25, 3), (0.1, 9)])
    def test_a_rise_that_ends_on_the_first_step(self, rise: float, total_steps: int) -> None:
        used = rates(OneCycle(rise=rise), total_steps)
        assert used[0] == pytest.approx(0.5)
        assert used == sorted(used, reverse=True)

    @pytest.mark.parametrize("total_steps", [1, 2, 3])
    def test_the_shortest_runs_have_a_last_step(self, total_steps: int) -> None:
        used = rates(OneCycle(), total_steps)
        assert all(0 < rate <= 0.5 for rate in used)
        assert used[-1] == pytest.approx(0.5 / 25e4)


SCHEDULES = [Cosine(), Cosine(warmup=0.3), Warmup(0.3), OneCycle(), OneCycle(rise=0.5)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(lr=0.1),
        SGD(lr=0.1, momentum=0.5),
        SGD(lr=0.1, momentum=0.99, nesterov=True),
        RMSprop(lr=0.1, momentum=0.7),
        Adagrad(lr=0.1),
        Adam(lr=0.1, betas=(0.6, 0.9)),
        AdamW(lr=0.1, betas=(0.8, 0.99)),
    ],
)
def test_a_schedule_changes_the_step_size_alone(optimizer: Optimizer, schedule: Schedule) -> None:
    live = optimizer([nn.Parameter(torch.zeros(1))])

    def rest() -> dict[str, Any]:
        changed = ("params", "lr", "initial_lr", "max_lr", "min_lr")
        return {key: value for key, value in live.param_groups[0].items() if key not in changed}

    before = rest()
    scheduler = schedule(live, 9)
    for _ in range(9):
        assert rest() == before
        live.step()
        scheduler.step()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_under_a_schedule_equals_torchs_optimizer_at_those_rates(schedule: Schedule, momentum: float) -> None:
    def by_hand(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=momentum, foreach=False)

    class Rates:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer
            self.rates = iter(rates(schedule, STEPS, lr=0.05))
            self.step()

        def step(self) -> None:
            self.optimizer.param_groups[0]["lr"] = next(self.rates)

    expected = weights_after(by_hand, Rates)
    ours = weights_after(SGD(lr=0.05, momentum=momentum), lambda optimizer: schedule(optimizer, STEPS))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
