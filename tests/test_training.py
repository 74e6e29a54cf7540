import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hpsearch import (
    L1,
    MLP,
    MSE,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Cosine,
    CrossEntropy,
    Dataset,
    LeNet,
    NormalizedGradient,
    OneCycle,
    Perceptron,
    PerceptronCriterion,
    Recipe,
    RMSprop,
    Split,
    Steps,
    Study,
    UsageError,
    Warmup,
    checkpoint,
    digits,
    points,
)
from hpsearch.meters import class_numbers
from hpsearch.search.pruners import intervals_of
from hpsearch.seeding import derive_seed
from hpsearch.training import IntervalReport, Run, evaluate, load_weights, train
from support.runs import PARAMS, SEED, assert_resumes, order_of, start, study_of, weights, without_seconds

BuildStudy = Callable[..., Study]


def bare_loop(
    study: Study, data: Dataset, optimizer: Callable[[Any], torch.optim.Optimizer], epochs: int, steps: int = 10**9
) -> nn.Module:
    """Train as one would by hand, for some epochs or at most some steps; return the model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(SEED, "weights"))
        model = study.replay(PARAMS).model
    live = optimizer(model.parameters())
    inputs, targets = data.train  # type: ignore[misc]
    done = 0
    for epoch in range(epochs):
        for batch in order_of(epoch, len(targets)).split(32):
            if done == steps:
                return model
            loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            live.zero_grad()
            loss.backward()
            live.step()
            done += 1
    return model


class TestAgainstABareLoop:
    @pytest.mark.parametrize(
        ("optimizer", "reference"),
        [
            (SGD, lambda parameters: torch.optim.SGD(parameters, lr=0.05, fused=True)),
            (Adam, lambda parameters: torch.optim.Adam(parameters, lr=0.05, fused=True)),
            (RMSprop, lambda parameters: torch.optim.RMSprop(parameters, lr=0.05)),
        ],
    )
    @pytest.mark.parametrize("interval", [1, 2, Steps(3)])
    def test_equal_weights_bit_for_bit(
        self, tiny_study: BuildStudy, few_digits: Dataset, optimizer: Any, reference: Any, interval: Any
    ) -> None:
        study = tiny_study(optimizer=optimizer, interval=interval)
        run = start(study, few_digits)
        initial = weights(run.model).clone()
        list(train(run))
        expected = weights(bare_loop(study, few_digits, reference, epochs=3))
        assert torch.equal(weights(run.model), expected)
        assert not torch.equal(initial, expected)

    def test_dropout_draws_from_the_intervals_seed(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        study = tiny_study(dropout=0.3, interval=Steps(3))
        run = start(study, few_digits)
        list(train(run))
        model = bare_loop(study, few_digits, SGD(lr=0.05), epochs=0)
        live = SGD(lr=0.05)(model.parameters())
        inputs, targets = few_digits.train  # type: ignore[misc]
        batches = [batch for epoch in range(3) for batch in order_of(epoch, 100).split(32)]
        with torch.random.fork_rng(devices=[]):
            for step, batch in enumerate(batches):
                if step % 3 == 0:
                    torch.manual_seed(derive_seed(SEED, "interval", step // 3))
                live.zero_grad()
                nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
                live.step()
        assert torch.equal(weights(run.model), weights(model))

    def test_a_convolutional_network_agrees_up_to_rounding(self, few_digits: Dataset) -> None:
        def recipe(space: Any) -> Recipe:
            return Recipe(model=LeNet(size=12), optimizer=SGD(lr=space.float("lr", 0.01, 1.0)), batch_size=32)

        data = replace(
            few_digits,
            **{
                name: Split(nn.functional.pad(split.inputs, (2, 2, 2, 2)), split.targets)
                for name, split in (("train", few_digits.train), ("validation", few_digits.validation))
                if isinstance(split, Split)
            },
        )
        study = Study(recipe=recipe, dataset=lambda: data, epochs=2)
        run = start(study, data)
        list(train(run))
        reference = bare_loop(study, data, lambda parameters: torch.optim.SGD(parameters, lr=0.05), epochs=2)
        torch.testing.assert_close(weights(run.model), weights(reference), rtol=1e-4, atol=1e-5)

    def test_the_learning_rates_are_the_schedules(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        reports = list(train(start(tiny_study(schedule=Cosine()), few_digits)))
        assert [report.learning_rate for report in reports] == pytest.approx(
            [0.05 * (1 + math.cos(math.pi * done / 3)) / 2 for done in (1, 2, 3)], abs=1e-9
        )

    def test_reports_count_and_average(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        """With a step size too small to matter, training figures are those of the initial weights."""
        study = tiny_study(epochs=2, interval=Steps(3))
        run = start(study, few_digits, {"lr": 1e-4})
        model = bare_loop(study, few_digits, lambda parameters: torch.optim.SGD(parameters, lr=1e-4), epochs=0)
        inputs, targets = few_digits.train  # type: ignore[misc]
        orders = [order_of(epoch, 100) for epoch in range(2)]
        # Four batches an epoch: 32, 32, 32, 4.
        seen = [orders[0][:96], torch.cat([orders[0][96:], orders[1][:64]]), orders[1][64:]]
        reports = list(train(run))
        assert [(report.interval, report.step, report.epoch) for report in reports] == [
            (1, 3, 0.75),
            (2, 6, 1.5),
            (3, 8, 2.0),
        ]
        for report, indices in zip(reports, seen, strict=True):
            outputs = model(inputs[indices])
            loss = nn.functional.cross_entropy(outputs, targets[indices]).item()
            assert report.train["loss"] == pytest.approx(loss, rel=1e-2)
            correct = (outputs.argmax(1) == targets[indices]).sum().item()
            assert report.train["accuracy"] == pytest.approx(correct / len(indices), abs=2.5 / len(indices))
        assert reports[-1].validation == evaluate(run.model, CrossEntropy(), few_digits.validation)

    def test_it_learns(self, digits8: Dataset, tiny_study: BuildStudy) -> None:
        study = tiny_study(optimizer=Adam, epochs=5)
        report = list(train(start(study, digits8, {"lr": 0.02})))[-1]
        assert report.validation["accuracy"] > 0.8


class TestPerceptronRule:
    def run(self, separable: bool) -> Run:
        study = Study(
            recipe=lambda space: Recipe(
                model=Perceptron(initialisation="zeros"),
                optimizer=SGD(lr=1.0),
                loss=PerceptronCriterion(),
                batch_size=1,
            ),
            dataset=lambda: points(separable=separable),
            epochs=60,
        )
        return start(study, study.load_data(), {})

    @pytest.mark.parametrize("separable", [True, False])
    def test_gradient_descent_is_rosenblatts_rule(self, separable: bool) -> None:
        run = self.run(separable)
        inputs, targets = (part.tolist() for part in points(separable=separable).train)  # type: ignore[union-attr]
        w, bias = [0.0, 0.0], 0.0
        accuracies = []
        for epoch, report in enumerate(train(run)):
            accuracies.append(report.validation["accuracy"])
            for index in order_of(epoch, 8).tolist():
                (x, y), wanted = inputs[index], 1 if targets[index] else -1
                said = 1 if w[0] * x + w[1] * y + bias > 0 else -1
                delta = (wanted - said) / 2
                w, bias = [w[0] + delta * x, w[1] + delta * y], bias + delta
            # All numbers are multiples of a half, so both computations are exact.
            assert weights(run.model).tolist() == [*w, bias]
        assert (accuracies[-1] == 1.0) is separable


class TestGradients:
    """One step of plain descent at step size 1 on one batch is minus the gradient."""

    @pytest.mark.parametrize(
        "loss",
        [CrossEntropy(), CrossEntropy(label_smoothing=0.1), CrossEntropy(weight=(1.0, 3.0, 0.5)), MSE()],
        ids=str,
    )
    @pytest.mark.parametrize(
        ("model", "size"),
        [
            (lambda: MLP(inputs=9, hidden=[4, 3], classes=3, activation="tanh"), 3),
            (lambda: LeNet(width=0.1, size=12, classes=3, activation="tanh"), 12),
        ],
        ids=["MLP", "LeNet"],
    )
    def test_equal_central_differences(self, loss: Any, model: Callable[[], nn.Module], size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(6, 1, size, size, generator=generator, dtype=torch.float64)
        split = Split(inputs, torch.tensor([0, 1, 2, 0, 1, 2]))
        data = Dataset(train=split, validation=split, test=None, classes=("a", "b", "c"))
        study = Study(
            recipe=lambda space: Recipe(model=model().double(), optimizer=SGD(lr=1.0), loss=loss, batch_size=6),
            dataset=lambda: data,
            epochs=1,
        )
        run = start(study, data, {})
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        list(train(run))
        gradients = [old - new.detach() for old, new in zip(before, run.model.parameters(), strict=True)]

        probe = start(study, data, {}).model

        def value() -> float:
            with torch.no_grad():
                return float(loss(probe(split.inputs), split.targets))

        step = 1e-5
        for parameter, gradient in zip(probe.parameters(), gradients, strict=True):
            for index in torch.randperm(parameter.numel(), generator=generator)[:8].tolist():
                place = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), parameter.shape))
                entry = parameter.detach()[place]
                original = entry.item()
                entry.fill_(original + step)
                above = value()
                entry.fill_(original - step)
                below = value()
                entry.fill_(original)
                assert gradient[place].item() == pytest.approx((above - below) / (2 * step), abs=1e-8)


OPTIMIZERS = {
    "sgd": SGD,
    "momentum": lambda lr: SGD(lr=lr, momentum=0.9, nesterov=True),
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": lambda lr: RMSprop(lr=lr, momentum=0.5),
    "adagrad": Adagrad,
    "normalized": NormalizedGradient,
    "l1": lambda lr: L1(Adam(lr=lr), 0.01),
}
SCHEDULES = {"constant": None, "cosine": Cosine(), "warmup": Cosine(warmup=0.3), "one-cycle": OneCycle()}


class TestResume:
    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_after_each_interval(
        self,
        optimizer: str,
        schedule: str,
        dropout: float,
        tiny_study: BuildStudy,
        few_digits: Dataset,
        tmp_path: Path,
    ) -> None:
        study = tiny_study(optimizer=OPTIMIZERS[optimizer], schedule=SCHEDULES[schedule], dropout=dropout)
        assert_resumes(study, few_digits, tmp_path)

    @pytest.mark.parametrize("interval", [Steps(1), Steps(3), Steps(5), Steps(7), 2, 5])
    def test_at_intervals_across_epochs(
        self, interval: Any, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path
    ) -> None:
        study = tiny_study(optimizer=Adam, schedule=OneCycle(), dropout=0.3, interval=interval)
        assert_resumes(study, few_digits, tmp_path)

    def test_of_a_convolutional_network_with_batch_norm(self, few_digits: Dataset, tmp_path: Path) -> None:
        def recipe(space: Any) -> Recipe:
            model = nn.Sequential(
                nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 10)
            )
            lr = space.float("lr", 0.01, 1.0)
            return Recipe(model=model, optimizer=AdamW(lr=lr), schedule=Cosine(), batch_size=32)

        study = Study(recipe=recipe, dataset=lambda: few_digits, epochs=3, interval=Steps(2))
        assert_resumes(study, few_digits, tmp_path)

    def test_of_lenet_on_digits(self, tmp_path: Path) -> None:
        data = digits(size=12)
        assert isinstance(data.train, Split)
        data = replace(data, train=Split(*(part[:64] for part in data.train)))

        def recipe(space: Any) -> Recipe:
            lr = space.float("lr", 0.01, 1.0)
            return Recipe(model=LeNet(size=12, dropout=0.3), optimizer=Adam(lr=lr), schedule=OneCycle())

        assert_resumes(Study(recipe=recipe, dataset=lambda: data, epochs=3), data, tmp_path)

    def test_of_a_torch_dataset(self, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
        data = replace(few_digits, train=TensorDataset(*few_digits.train))  # type: ignore[misc]
        assert_resumes(tiny_study(dropout=0.3), data, tmp_path)

    def test_with_torchs_own_schedule(self, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
        def schedule(optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
            return torch.optim.lr_scheduler.MultiStepLR(optimizer, [total_steps // 4, total_steps // 2])

        assert_resumes(tiny_study(schedule=schedule), few_digits, tmp_path)

    @pytest.mark.parametrize("then", [None, lambda optimizer, steps: torch.optim.lr_scheduler.StepLR(optimizer, 2)])
    def test_of_a_warm_up(self, then: Any, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
        assert_resumes(tiny_study(schedule=Warmup(0.5, then=then), interval=Steps(3)), few_digits, tmp_path)

    def test_a_schedule_whose_state_cannot_be_kept_is_named(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        class Holder:
            """A callable object, which torch's LambdaLR keeps the attributes of."""

            def __init__(self) -> None:
                self.factors = {1.0, 0.5}

            def __call__(self, step: int) -> float:
                return max(self.factors)

        def schedule(optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
            return torch.optim.lr_scheduler.LambdaLR(optimizer, Holder())

        run = start(tiny_study(schedule=schedule), few_digits)
        with pytest.raises(UsageError, match="the schedule's state holds a set"):
            run.state_dict()


class TestDeterminism:
    def test_same_seed_same_run(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        runs = [start(tiny_study(dropout=0.3), few_digits, seed=seed) for seed in (1, 1, 2)]
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1] != reports[2]
        assert torch.equal(weights(runs[0].model), weights(runs[1].model))
        assert not torch.equal(weights(runs[0].model), weights(runs[2].model))

    def test_the_callers_random_numbers_neither_change_nor_matter(
        self, tiny_study: BuildStudy, few_digits: Dataset
    ) -> None:
        study = tiny_study(dropout=0.3)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        run = start(study, few_digits)
        quiet = without_seconds(train(run))
        stopped = train(start(study, few_digits), lambda: True)
        assert list(stopped) == []
        closed = train(start(study, few_digits))
        next(closed)
        closed.close()  # type: ignore[attr-defined]
        assert torch.equal(torch.get_rng_state(), before)

        noisy_run = start(study, few_digits)
        noisy = []
        for report in train(noisy_run):
            noisy.append(report)
            torch.rand(3)
        assert without_seconds(noisy) == quiet
        assert torch.equal(weights(noisy_run.model), weights(run.model))

    def test_an_error_in_the_loop_restores_the_random_state(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        def stop() -> bool:
            raise RuntimeError("from outside")

        before = torch.get_rng_state()
        with pytest.raises(RuntimeError, match="from outside"):
            list(train(start(tiny_study(dropout=0.3), few_digits), stop))
        assert torch.equal(torch.get_rng_state(), before)

    def test_reports_between_do_not_change_the_weights(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        """Without dropout nothing random is left in an interval, so its length cannot matter."""
        results = []
        for interval in (1, 3, Steps(1), Steps(5)):
            run = start(tiny_study(optimizer=Adam, interval=interval), few_digits)
            list(train(run))
            results.append(weights(run.model))
        assert all(torch.equal(result, results[0]) for result in results)

    @pytest.mark.parametrize("as_tensor", [True, False])
    def test_a_torch_dataset_gives_what_a_split_gives(
        self, tiny_study: BuildStudy, few_digits: Dataset, as_tensor: bool
    ) -> None:
        class Pairs(torch.utils.data.Dataset[Any]):
            def __init__(self, split: Any) -> None:
                self.split = split

            def __len__(self) -> int:
                return len(self.split)

            def __getitem__(self, index: int) -> tuple[Tensor, Any]:
                target = self.split.targets[index]
                return self.split.inputs[index], target if as_tensor else int(target)

        # Evaluated in a single batch, as the split is: otherwise the losses' sums are rounded differently.
        study = tiny_study(optimizer=Adam, dropout=0.3, schedule=OneCycle(), batch_size=60)
        lazy = replace(few_digits, train=Pairs(few_digits.train), validation=Pairs(few_digits.validation))
        runs = [start(study, few_digits), start(study, lazy)]
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1]
        assert torch.equal(weights(runs[0].model), weights(runs[1].model))

    def test_a_derived_seed_depends_on_every_part(self) -> None:
        seeds = {
            derive_seed(seed, name, number)
            for seed in range(10)
            for name in ("order", "interval")
            for number in range(50)
        }
        assert len(seeds) == 10 * 2 * 50
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert derive_seed(1, 23) != derive_seed(12, 3)
        # The value decides old resume points, so it must never change.
        assert derive_seed(7, "order", 0) == 1966837976469494399


class TestStopping:
    @pytest.mark.parametrize("asked", [1, 2, 4, 6])
    def test_ends_at_the_next_batch(self, asked: int, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        study = tiny_study()
        answers = iter([False] * (asked - 1) + [True])
        run = start(study, few_digits)
        reports = list(train(run, lambda: next(answers)))
        assert len(reports) == (asked - 1) // 4
        assert next(answers, None) is None
        reference = bare_loop(
            study,
            few_digits,
            lambda parameters: torch.optim.SGD(parameters, lr=0.05, fused=True),
            epochs=3,
            steps=asked - 1,
        )
        assert torch.equal(weights(run.model), weights(reference))

    def test_a_finished_run_has_nothing_left(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        run = start(tiny_study(), few_digits)
        assert len(list(train(run))) == 3
        assert (run.step, run.total_steps) == (12, 12)
        assert list(train(run)) == []


class TestEvaluate:
    @pytest.mark.parametrize("loss", [CrossEntropy(), MSE()])
    def test_equals_the_figures_of_the_whole_split_at_once(self, loss: Any, digits8: Dataset) -> None:
        """On 1,077 examples, so three batches, the last one short."""
        torch.manual_seed(0)
        model = MLP(inputs=64, dropout=0.5)
        found_loss, found_accuracy = evaluate(model, loss, digits8.train).values()
        inputs, targets = digits8.train  # type: ignore[misc]
        outputs = model.eval()(inputs)
        assert found_loss == pytest.approx(loss(outputs, targets).item(), rel=1e-5)
        correct = sum(
            max(range(10), key=row.__getitem__) == target
            for row, target in zip(outputs.tolist(), targets.tolist(), strict=True)
        )
        assert found_accuracy == correct / 1077

    def test_changes_nothing(self, digits8: Dataset) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout(0.5))
        before = checkpoint.digest(model.state_dict())
        random = torch.get_rng_state()
        first = evaluate(model, CrossEntropy(), digits8.validation)
        assert evaluate(model, CrossEntropy(), digits8.validation) == first
        assert checkpoint.digest(model.state_dict()) == before
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), random)

    def test_training_goes_on_in_training_mode(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        """Otherwise dropout would act in the first interval only, and the same would come out without it."""
        with_dropout, without = (
            list(train(start(tiny_study(dropout=dropout, epochs=2), few_digits, {"lr": 1e-4})))[1].train["loss"]
            for dropout in (0.9, 0.0)
        )
        assert with_dropout != pytest.approx(without, rel=1e-3)

    @pytest.mark.parametrize(
        ("outputs", "targets", "expected"),
        [
            ([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 1], [1, 0, 1]),
            ([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [[1], [1], [0]], [1, 0, 0]),
            # Probabilities of the classes.
            ([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [[0.4, 0.6], [0.0, 1.0], [1.0, 0.0]], [1, 0, 0]),
            ([[0.5], [-0.5], [2.0]], [1, 1, 1], [1, 0, 1]),
            ([[0.5], [-0.5], [2.0]], [[1], [0], [0]], [1, 1, 0]),
            ([0.5, -0.5, -2.0], [1, 0, 0], [1, 1, 1]),
            ([0.5, -0.5, -2.0], [[1], [1], [0]], [1, 0, 1]),
            ([[0.5], [-0.5], [-1.0]], [1.0, -1.0, 1.0], [1, 1, 0]),
            # A batch of one, squeezed.
            (0.5, [1], [1]),
            # Two classes at two places each.
            ([[[0.1, 0.9], [0.8, 0.2]], [[0.3, 0.7], [0.6, 0.4]]], [[1, 0], [0, 0]], [1, 1, 0, 1]),
            ([[[0.5, -0.5]], [[1.0, 2.0]]], [[1, 0], [0, 1]], [1, 1, 0, 1]),
        ],
    )
    def test_right_answers(self, outputs: Any, targets: Any, expected: list[int]) -> None:
        predicted, true = class_numbers(torch.tensor(outputs), torch.tensor(targets))
        assert (predicted == true).int().tolist() == expected

    @pytest.mark.parametrize(
        ("outputs", "targets"),
        [
            ((8,), (7,)),
            ((8, 1), (7,)),
            ((8, 1), (8, 3)),
            ((8, 3), (8, 2)),
            ((8, 3), (2, 4)),
            ((8, 3), (7,)),
            ((3,), (1,)),
        ],
    )
    def test_shapes_that_do_not_fit_are_refused(self, outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
        with pytest.raises(UsageError) as raised:
            class_numbers(torch.zeros(outputs), torch.zeros(targets, dtype=torch.int64))
        assert f"outputs of shape {outputs} do not fit targets of shape {targets}" in str(raised.value)

    def test_outputs_that_are_no_tensor_are_refused(self) -> None:
        with pytest.raises(UsageError, match="the model must return one tensor of outputs, got a tuple"):
            class_numbers((torch.zeros(3), torch.zeros(3)), torch.zeros(3))  # type: ignore[arg-type]

    @pytest.mark.parametrize("output_shape", [(8,), (8, 1)])
    @pytest.mark.parametrize("target_shape", [(8,), (8, 1)])
    def test_accuracy_is_a_share_whatever_the_shapes(
        self, output_shape: tuple[int, ...], target_shape: tuple[int, ...]
    ) -> None:
        inputs, targets = points().train  # type: ignore[misc]
        split = Split(inputs, targets.reshape(target_shape))

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(2, 1)

            def forward(self, inputs: Tensor) -> Tensor:
                return self.layer(inputs).reshape(len(inputs), *output_shape[1:])

        torch.manual_seed(0)
        net = Net()
        values = net(inputs).flatten().tolist()
        right = sum((value > 0) == (target > 0) for value, target in zip(values, targets.tolist(), strict=True))
        squares = sum(
            (value - (1 if target else -1)) ** 2 for value, target in zip(values, targets.tolist(), strict=True)
        )
        loss, accuracy = evaluate(net, MSE(), split).values()
        assert accuracy == right / 8
        assert loss == pytest.approx(squares / 8, rel=1e-5)

    def test_accuracy_over_places_is_a_share_of_all_places(self) -> None:
        split = Split(torch.randn(4, 3, 5, 5), torch.randint(0, 2, (4, 5, 5)))
        model = nn.Conv2d(3, 2, 1)
        loss, accuracy = evaluate(model, CrossEntropy(), split).values()
        outputs = model(split.inputs)
        right = (outputs[:, 1] > outputs[:, 0]).eq(split.targets == 1)
        assert accuracy == sum(right.flatten().tolist()) / 100
        assert loss == pytest.approx(nn.functional.cross_entropy(outputs, split.targets).item())


class Viewing(nn.Module):
    """As tutorials have it: rows are expected after the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4 * 3 * 3, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.drop(self.norm(self.conv(images)).relu()), 2)
        return self.head(x.view(-1, 4 * 3 * 3))


class TestUpdates:
    """Clipping, accumulation and averaging, against a loop by hand; an epoch is of batches of 32, 32, 32 and 4."""

    @staticmethod
    def study(data: Dataset, interval: Any = 1, dropout: float = 0.0, **settings: Any) -> Study:
        study = study_of(lambda: MLP(inputs=64, hidden=[8], dropout=dropout), data, **settings)
        return replace(study, epochs=3, interval=interval)

    @staticmethod
    def by_hand(
        study: Study, data: Dataset, *, clip_norm: float = math.inf, accumulate: int = 1, decay: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the weights, and their average, after three epochs."""
        model = bare_loop(study, data, lambda parameters: torch.optim.SGD(parameters, lr=0.05), epochs=0)
        live = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
        inputs, targets = data.train  # type: ignore[misc]
        average: Tensor | None = None
        for epoch in range(3):
            batches = order_of(epoch, 100).split(32)
            for first in range(0, len(batches), accumulate):
                together = batches[first : first + accumulate]
                gradients = [torch.zeros_like(parameter) for parameter in model.parameters()]
                for batch in together:
                    loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch], reduction="sum")
                    for total, part in zip(gradients, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
                        total += part / sum(map(len, together))
                norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.grad = gradient * min(1.0, clip_norm / norm)
                live.step()
                now = weights(model).double()
                average = now if average is None or decay is None else decay * average + (1 - decay) * now
        assert average is not None
        return weights(model), average.float()

    @pytest.mark.parametrize(
        "settings",
        [{"clip_norm": 0.1}, {"accumulate": 2}, {"accumulate": 3}, {"clip_norm": 0.1, "accumulate": 9}],
        ids=str,
    )
    def test_equal_those_by_hand(self, settings: dict[str, Any], few_digits: Dataset) -> None:
        study = self.study(few_digits, **settings)
        run = start(study, few_digits)
        list(train(run))
        expected, _ = self.by_hand(study, few_digits, **settings)
        torch.testing.assert_close(weights(run.model), expected, rtol=1e-5, atol=1e-6)
        off = start(self.study(few_digits), few_digits)
        list(train(off))
        assert (weights(run.model) - weights(off.model)).abs().max() > 1e-3

    def test_a_norm_that_is_not_reached_changes_nothing(self, few_digits: Dataset) -> None:
        runs = [start(self.study(few_digits, clip_norm=norm), few_digits) for norm in (None, 1e6)]
        assert len({repr(without_seconds(train(run))) for run in runs}) == 1
        assert torch.equal(*(weights(run.model) for run in runs))

    @pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9), Adam(lr=0.05)], ids=str)
    def test_accumulated_batches_are_one_large_batch(self, optimizer: Any, digits8: Dataset) -> None:
        """An epoch is 30 batches of 16, eight updates; the last of two batches, of which one has 4 examples."""
        assert isinstance(digits8.train, Split)
        data = replace(digits8, train=Split(*(part[:468] for part in digits8.train)))
        runs = [
            start(
                self.study(data, optimizer=optimizer, schedule=OneCycle(), clip_norm=0.5, ema=0.9, **settings),
                data,
            )
            for settings in ({"batch_size": 16, "accumulate": 4}, {"batch_size": 64})
        ]
        small, large = (list(train(run)) for run in runs)
        assert [run.total_updates for run in runs] == [24, 24]
        assert [report.step for report in small] == [30, 60, 90]
        for report, other in zip(small, large, strict=True):
            assert report.train["loss"] == pytest.approx(other.train["loss"], rel=1e-4)
            assert report.learning_rate == pytest.approx(other.learning_rate, rel=1e-9)
        for models in ([run.model for run in runs], [run.evaluated for run in runs]):
            torch.testing.assert_close(*map(weights, models), rtol=1e-3, atol=1e-5)

    def test_intervals_need_not_end_with_an_update(self, few_digits: Dataset) -> None:
        results = []
        for interval in (1, 3, Steps(1), Steps(5)):
            run = start(self.study(few_digits, interval, accumulate=3, optimizer=Adam(lr=0.01)), few_digits)
            assert len(list(train(run))) == run.intervals
            results.append(weights(run.model))
        assert all(torch.equal(result, results[0]) for result in results)

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_the_average_is_the_one_by_hand_and_is_what_is_evaluated(
        self, accumulate: int, few_digits: Dataset
    ) -> None:
        study = self.study(few_digits, accumulate=accumulate, ema=0.8)
        run = start(study, few_digits)
        reports = list(train(run))
        raw, average = self.by_hand(study, few_digits, accumulate=accumulate, decay=0.8)
        torch.testing.assert_close(weights(run.evaluated), average, rtol=1e-5, atol=1e-6)
        assert (raw - average).abs().max() > 1e-3
        # Training is that without it.
        plain = start(self.study(few_digits, accumulate=accumulate), few_digits)
        plain_reports = list(train(plain))
        assert torch.equal(weights(run.model), weights(plain.model))
        assert [report.train["loss"] for report in reports] == [report.train["loss"] for report in plain_reports]
        assert plain.evaluated is plain.model
        found = reports[-1].validation
        assert found == evaluate(run.evaluated, run.loss, few_digits.validation)
        assert found != evaluate(run.model, run.loss, few_digits.validation)

    @pytest.mark.parametrize(
        ("name", "values"), [("clip_norm", (0.1, 0.2)), ("accumulate", (2, 3)), ("ema", (0.5, 0.9))]
    )
    def test_a_setting_acts(self, name: str, values: tuple[Any, Any], few_digits: Dataset) -> None:
        runs = [start(self.study(few_digits, **{name: value}), few_digits) for value in (*values, values[0])]
        for run in runs:
            list(train(run))
        first, other, again = (weights(run.evaluated) for run in runs)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_the_average_has_the_buffers_of_the_model(self, few_digits: Dataset) -> None:
        def model() -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))

        run = start(study_of(model, few_digits, ema=0.9), few_digits)
        list(train(run))
        for mine, averages in zip(run.model.buffers(), run.evaluated.buffers(), strict=True):
            assert torch.equal(mine, averages)

    @pytest.mark.parametrize("interval", [1, Steps(1), Steps(3), Steps(5)], ids=str)
    @pytest.mark.parametrize(
        "settings",
        [{"clip_norm": 0.1}, {"accumulate": 3}, {"ema": 0.9}, {"clip_norm": 0.1, "accumulate": 3, "ema": 0.9}],
        ids=str,
    )
    def test_resume(self, settings: dict[str, Any], interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        settings = {"optimizer": Adam(lr=0.01), "schedule": OneCycle(), **settings}
        assert_resumes(self.study(few_digits, interval, dropout=0.3, **settings), few_digits, tmp_path)

    def test_resume_of_a_convolutional_network(self, few_digits: Dataset, tmp_path: Path) -> None:
        """Its gradients and its average are in the channels-last format."""

        def model() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10)
            )

        settings = {"optimizer": AdamW(lr=0.01), "clip_norm": 0.1, "accumulate": 3, "ema": 0.9}
        study = replace(study_of(model, few_digits, **settings), interval=Steps(2))
        run = start(study, few_digits)
        for net in (run.model, run.evaluated):
            assert not net[2].weight.is_contiguous()  # type: ignore[index,union-attr]
        assert_resumes(study, few_digits, tmp_path)

    def test_an_accumulated_gradient_is_in_the_state_only_between_updates(self, few_digits: Dataset) -> None:
        run = start(self.study(few_digits, Steps(1), accumulate=3), few_digits)
        held = ["gradients" in run.state_dict()] + ["gradients" in run.state_dict() for _ in islice(train(run), 5)]
        assert held == [False, True, True, False, False, True]
        assert start(self.study(few_digits), few_digits).state_dict().keys() == {
            "interval",
            "model",
            "optimizer",
            "schedule",
        }


def channels_last(run: Run) -> bool:
    weight = next(layer.weight for layer in run.model.modules() if isinstance(layer, nn.Conv2d))
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


class TestMemoryFormat:
    def test_channels_last_where_it_works(self, few_digits: Dataset) -> None:
        run = start(
            study_of(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LazyLinear(10)), few_digits), few_digits
        )
        # One channel in and rows are the same format, but for their strides.
        assert run.model[0].weight.stride() == (9, 1, 3, 1)  # type: ignore[index, union-attr]

    def test_rows_where_the_model_needs_them(self, few_digits: Dataset, tmp_path: Path) -> None:
        study = study_of(Viewing, few_digits)
        assert start(study, few_digits).model.conv.weight.stride() == (9, 9, 3, 1)  # type: ignore[union-attr]
        assert_resumes(study, few_digits, tmp_path)

    def test_finding_out_leaves_no_trace(self, few_digits: Dataset) -> None:
        run = start(study_of(Viewing, few_digits), few_digits)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(SEED, "weights"))
            fresh = Viewing()
        assert checkpoint.digest(run.model.state_dict()) == checkpoint.digest(fresh.state_dict())
        assert all(parameter.grad is None for parameter in run.model.parameters())
        assert run.model.norm.num_batches_tracked == 0  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        "layer", [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 1)], ids=str
    )
    def test_rows_where_channels_last_is_no_faster(self, layer: nn.Module, few_digits: Dataset) -> None:
        data = with_inputs(few_digits, lambda inputs: inputs.expand(-1, 4, -1, -1).clone())
        run = start(study_of(lambda: nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(10)), data), data)
        assert not channels_last(run)

    def test_a_torch_dataset_is_trained_in_the_same_format(self, few_digits: Dataset) -> None:
        data = with_inputs(few_digits, lambda inputs: inputs.expand(-1, 3, -1, -1).clone())
        lazy = replace(data, train=TensorDataset(*data.train), validation=TensorDataset(*data.validation))  # type: ignore[misc]
        study = study_of(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10)), data)
        runs = [start(study, data), start(study, lazy)]
        assert all(channels_last(run) for run in runs)
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1]

    def test_weights_are_loaded_in_the_format_they_were_trained_in(self, few_digits: Dataset, tmp_path: Path) -> None:
        data = with_inputs(few_digits, lambda inputs: inputs.expand(-1, 3, -1, -1).clone())

        def model() -> nn.Module:
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(10))

        run = start(study_of(model, data), data)
        list(train(run))
        checkpoint.save(tmp_path / "best.pt", {"model": run.model.state_dict()})
        loaded = model()
        load_weights(loaded, checkpoint.load(tmp_path / "best.pt")["model"])
        for ours, theirs in zip(loaded.parameters(), run.model.parameters(), strict=True):
            assert ours.stride() == theirs.stride()
        assert evaluate(loaded, CrossEntropy(), data.validation) == evaluate(run.model, CrossEntropy(), data.validation)

    def test_volumes(self, few_digits: Dataset, tmp_path: Path) -> None:
        data = with_inputs(few_digits, lambda inputs: inputs.unsqueeze(2).expand(-1, -1, 3, -1, -1).clone())

        def model() -> nn.Module:
            return nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(2), nn.Flatten(), nn.LazyLinear(10))

        assert_resumes(study_of(model, data), data, tmp_path)


def with_inputs(data: Dataset, change: Callable[[Tensor], Tensor]) -> Dataset:
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    train_split, validation = (Split(change(split.inputs), split.targets) for split in (data.train, data.validation))
    return replace(data, train=train_split, validation=validation)


class Augmented(torch.utils.data.Dataset[Any]):
    """Images with noise and a flip, drawn from torch's, numpy's and Python's generators."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target = self.split.inputs[index], self.split.targets[index]
        if random.random() < 0.5:
            image = image.flip(-1)
        image = image + 0.1 * torch.from_numpy(np.random.standard_normal(image.shape)).float()
        return image + 0.1 * torch.randn(()), target


class TestAugmentation:
    def test_resumes(self, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
        data = replace(few_digits, train=Augmented(few_digits.train), validation=Augmented(few_digits.validation))
        assert_resumes(tiny_study(dropout=0.3, interval=Steps(3)), data, tmp_path)

    def test_differs_from_epoch_to_epoch_and_between_seeds(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        data = replace(few_digits, train=Augmented(few_digits.train))
        losses = [
            report.train["loss"]
            for seed in (1, 2)
            for report in train(start(tiny_study(), data, {"lr": 1e-4}, seed=seed))
        ]
        assert len(set(losses)) == len(losses)

    def test_leaves_the_processs_random_states_alone(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        data = replace(few_digits, train=Augmented(few_digits.train), validation=Augmented(few_digits.validation))

        def states() -> list[object]:
            numpy_state = np.random.get_state(legacy=False)
            return [random.getstate(), repr(numpy_state), torch.get_rng_state().tolist()]

        before = states()
        list(train(start(tiny_study(), data)))
        assert states() == before

    def test_weights_drawn_from_numpy_and_random_are_the_seeds(self, few_digits: Dataset) -> None:
        def model() -> nn.Module:
            linear = nn.Linear(64, 10)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(np.random.standard_normal((10, 64))))
                linear.bias.fill_(random.random())
            return nn.Sequential(nn.Flatten(), linear)

        study = study_of(model, few_digits)
        first, again, other = (weights(start(study, few_digits, seed=seed).model) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


class TestBatchNorm:
    """The last batch of an epoch would be a single example, which has no variance."""

    def test_a_last_single_example_joins_the_batch_before(self, few_digits: Dataset, tmp_path: Path) -> None:
        seen: list[int] = []

        class Net(nn.Sequential):
            def forward(self, inputs: Tensor) -> Tensor:
                if self.training:
                    seen.append(len(inputs))
                return super().forward(inputs)

        study = study_of(
            lambda: Net(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)), few_digits, batch_size=33
        )
        run = start(study, few_digits)
        assert (run.steps_per_epoch, run.total_steps) == (3, 6)
        reports = list(train(run))
        assert seen == [33, 33, 34] * 2
        assert [report.step for report in reports] == [3, 6]
        assert_resumes(study, few_digits, tmp_path)

    def test_pruners_count_the_same_intervals(self, few_digits: Dataset) -> None:
        def model() -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

        study = replace(study_of(model, few_digits, batch_size=33), interval=Steps(3))
        assert start(study, few_digits).intervals == 2
        assert intervals_of(study.replay(PARAMS), study, 100) == 2
        assert intervals_of(replace(study.replay(PARAMS), model=MLP(inputs=64)), study, 100) == 3

    def test_without_it_the_batches_are_as_ever(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        run = start(tiny_study(batch_size=33), few_digits)
        assert run.steps_per_epoch == 4
        assert len(list(train(run))) == 3

    @pytest.mark.parametrize(("batch_size", "steps"), [(1, 100), (32, 4), (99, 1), (100, 1), (101, 1)])
    def test_other_remainders(self, batch_size: int, steps: int, few_digits: Dataset) -> None:
        def model() -> nn.Module:
            return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(10))

        run = start(study_of(model, few_digits, batch_size=batch_size), few_digits)
        assert run.steps_per_epoch == steps
        next(iter(train(run)))


class TestUnusualModels:
    def test_lazy_layers(self, few_digits: Dataset, tmp_path: Path) -> None:
        def model() -> nn.Module:
            return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))

        study = study_of(model, few_digits, optimizer=Adam(lr=0.01))
        run = start(study, few_digits)
        assert run.parameters == 4 * 10 + 8 + 4 * 36 * 10 + 10
        assert_resumes(study, few_digits, tmp_path)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_complex_parameters(self, optimizer: str, few_digits: Dataset, tmp_path: Path) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(64, 10, dtype=torch.complex64) / 8)

            def forward(self, inputs: Tensor) -> Tensor:
                return (torch.fft.fft(inputs.flatten(1)) @ self.weight).abs()

        assert_resumes(study_of(Net, few_digits, optimizer=OPTIMIZERS[optimizer](lr=0.01)), few_digits, tmp_path)

    def test_tensors_kept_while_evaluated(self, few_digits: Dataset, tmp_path: Path) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(64, 10)
                self.scale: Tensor | None = None

            def forward(self, inputs: Tensor) -> Tensor:
                if not self.training:
                    self.scale = torch.linspace(0.5, 1.5, 10)
                outputs = self.layer(inputs.flatten(1))
                return outputs if self.scale is None else outputs * self.scale

        list(train(start(study_of(Net, few_digits), few_digits)))

    def test_a_loss_with_parameters_is_trained_and_resumed(self, few_digits: Dataset, tmp_path: Path) -> None:
        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
                return nn.functional.cross_entropy(outputs * self.scale, targets)

        def recipe(space: Any) -> Recipe:
            lr = space.float("lr", 0.01, 1.0)
            return Recipe(model=MLP(inputs=64), optimizer=Adam(lr=lr), loss=Scaled(), batch_size=32)

        study = Study(recipe=recipe, dataset=lambda: few_digits, epochs=2)
        run = start(study, few_digits)
        list(train(run))
        assert isinstance(run.loss, Scaled)
        assert run.loss.scale.item() != 1
        assert_resumes(study, few_digits, tmp_path)

    def test_a_loss_goes_to_the_models_device(self, few_digits: Dataset) -> None:
        study = study_of(lambda: MLP(inputs=64), few_digits, loss=nn.CrossEntropyLoss(weight=torch.ones(10)))
        run = Run(study, PARAMS, few_digits, seed=SEED, device="meta")
        assert isinstance(run.loss, nn.CrossEntropyLoss)
        assert run.loss.weight is not None
        assert run.loss.weight.device.type == next(run.model.parameters()).device.type == "meta"

    @pytest.mark.parametrize(
        ("example", "said"),
        [
            ({"image": torch.zeros(3), "label": 1}, r"example \d is a dict of 2; it must be a pair"),
            ((torch.zeros(3), torch.zeros(3), 1), r"example \d is a tuple of 3; it must be a pair"),
            (("a cat", 1), r"example \d has a str as its input; it must be one tensor"),
            ((torch.zeros(3), "cat"), r"example \d has a str as its target; it must be one tensor"),
        ],
    )
    def test_examples_that_are_no_pairs_are_refused(self, example: Any, said: str, few_digits: Dataset) -> None:
        data = replace(few_digits, train=[example] * 4)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"dataset: {said}"):
            list(train(start(study_of(lambda: MLP(inputs=64), data, batch_size=1), data)))


class TestDivergence:
    @pytest.mark.parametrize(
        ("train_loss", "validation_loss", "diverged"),
        [
            (0.5, 0.6, False),
            (-3.0, 0.0, False),
            (math.nan, 0.5, True),
            (0.5, math.nan, True),
            (math.inf, 0.5, True),
            (0.5, math.inf, True),
            (-math.inf, 0.5, True),
            (math.inf, -math.inf, True),
        ],
    )
    def test_is_a_loss_that_is_not_finite(self, train_loss: float, validation_loss: float, diverged: bool) -> None:
        report = IntervalReport(
            interval=1,
            epoch=1.0,
            step=1,
            train={"loss": train_loss, "accuracy": 0.1},
            validation={"loss": validation_loss, "accuracy": 0.1},
            learning_rate=0.1,
            seconds=1.0,
        )
        assert report.diverged is diverged

    def test_of_a_real_run(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        def squares(space: Any) -> Recipe:
            return Recipe(model=MLP(inputs=64), optimizer=SGD(lr=space.float("lr", 0.01, 1e9)), loss=MSE())

        study = tiny_study(recipe=squares, epochs=10)
        assert not any(report.diverged for report in train(start(study, few_digits, {"lr": 0.01})))
        assert any(report.diverged for report in train(start(study, few_digits, {"lr": 1e9})))


class TestRun:
    def test_counts(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        run = start(tiny_study(epochs=5, interval=Steps(3)), few_digits)
        assert (run.steps_per_epoch, run.total_steps, run.intervals, run.step) == (4, 20, 7, 0)
        assert run.parameters == 8 * 65 + 10 * 9
        assert run.learning_rate == 0.05

    def test_a_batch_larger_than_the_data_is_all_of_it(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        run = start(tiny_study(batch_size=1000), few_digits)
        assert [report.step for report in train(run)] == [1, 2, 3]

    def test_the_recipes_epochs_come_before_the_studys(self, few_digits: Dataset) -> None:
        def recipe(space: Any) -> Recipe:
            epochs = space.int("epochs", 1, 9)
            return Recipe(model=MLP(inputs=64, hidden=[]), optimizer=SGD(lr=0.1), epochs=epochs)

        study = Study(recipe=recipe, dataset=lambda: few_digits, epochs=3)
        assert len(list(train(start(study, few_digits, {"epochs": 5})))) == 5

    def test_frozen_parameters_are_not_counted_nor_changed(self, few_digits: Dataset) -> None:
        def recipe(space: Any) -> Recipe:
            model = MLP(inputs=64, hidden=[8])
            model.layers[1].requires_grad_(False)
            return Recipe(model=model, optimizer=SGD(lr=0.1))

        run = start(Study(recipe=recipe, dataset=lambda: few_digits, epochs=1), few_digits, {})
        assert run.parameters == 10 * 9
        frozen, free = run.model.layers[1].weight.clone(), run.model.layers[-1].weight.clone()  # type: ignore[index,union-attr]
        list(train(run))
        assert torch.equal(run.model.layers[1].weight, frozen)  # type: ignore[index,union-attr]
        assert not torch.equal(run.model.layers[-1].weight, free)  # type: ignore[index,union-attr]

    def test_params_that_do_not_fit(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        with pytest.raises(UsageError, match="the params lack lr"):
            start(tiny_study(), few_digits, {})

    def test_a_state_is_a_checkpoint(self, tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
        run = start(tiny_study(optimizer=Adam, schedule=OneCycle()), few_digits)
        next(iter(train(run)))
        checkpoint.save(tmp_path / "last.pt", run.state_dict())
        loaded = checkpoint.load(tmp_path / "last.pt")
        assert checkpoint.digest(loaded) == checkpoint.digest(run.state_dict())
        assert loaded["interval"] == 1
