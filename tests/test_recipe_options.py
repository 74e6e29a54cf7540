"""The options of a recipe in training: each against a loop by hand, and resumed exactly."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from hpsearch import (
    L1,
    MLP,
    MSE,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    CutMix,
    Dataset,
    MixUp,
    NormalizedGradient,
    OneCycle,
    Plateau,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    Recipe,
    RMSprop,
    Split,
    Steps,
    Study,
    UsageError,
    Warmup,
    checkpoint,
    training,
)
from hpsearch.datasets import import_torchvision
from hpsearch.seeding import derive_seed, seeded
from hpsearch.training import Run, evaluate, train
from support.runs import PARAMS, SEED, assert_resumes, order_of, start, study_of, weights, without_seconds

import_torchvision("transforms")

from torchvision import transforms  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

EPOCHS = 2


def study(data: Dataset, interval: Any = 1, dropout: float = 0.0, **settings: Any) -> Study:
    """Return a study of two epochs of batches of 32, 32, 32 and 4, of a small network."""
    model = settings.pop("model", lambda: MLP(inputs=64, hidden=[8], dropout=dropout))
    return replace(study_of(model, data, **settings), epochs=EPOCHS, interval=interval)


def trained(study: Study, data: Dataset) -> Tensor:
    run = start(study, data)
    list(train(run))
    return weights(run.model)


def by_hand(
    study: Study,
    data: Dataset,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    augment: Sequence[Any] = (),
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Return the weights after two epochs, of an interval each."""
    with seeded(derive_seed(SEED, "weights")):
        model = study.replay(PARAMS).model
    live = optimizer(model)
    scheduler = schedule(live) if schedule else None
    inputs, targets = data.train  # type: ignore[misc]
    for epoch in range(EPOCHS):
        with seeded(derive_seed(SEED, "interval", epoch)):
            for batch in order_of(epoch, len(targets)).split(32):
                examples, answers = inputs[batch], targets[batch]
                for augmentation in augment:
                    examples, answers = augmentation(examples, answers)
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                    outputs = model(examples)
                loss = functional.cross_entropy(outputs.float(), answers)
                live.zero_grad()
                if scaler is None:
                    loss.backward()
                    live.step()
                else:
                    scaler.scale(loss).backward()
                    scaler.step(live)
                    scaler.update()
                if scheduler is not None:
                    scheduler.step()
    return weights(model)


def plain_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, fused=True)


class TestAugmentation:
    def test_each_batch_is_augmented_by_hand(self, few_digits: Dataset) -> None:
        augment = [RandomCrop(1), RandomFlip(), RandomRotation(10), RandomErasing()]
        ours = trained(study(few_digits, augment=augment), few_digits)
        assert torch.equal(ours, by_hand(study(few_digits), few_digits, plain_sgd, augment=augment))
        assert not torch.equal(ours, trained(study(few_digits), few_digits))

    @pytest.mark.parametrize("mix", [MixUp(0.4), CutMix(1.0)], ids=str)
    def test_mixed_targets_are_probabilities_of_the_classes(self, mix: Any, few_digits: Dataset) -> None:
        augment = [lambda inputs, targets: (inputs, functional.one_hot(targets, 10).float()), mix]
        ours = trained(study(few_digits, augment=[mix]), few_digits)
        assert torch.equal(ours, by_hand(study(few_digits), few_digits, plain_sgd, augment=augment))

    def test_those_that_are_off_change_nothing(self, few_digits: Dataset) -> None:
        off = [RandomCrop(0), RandomFlip(0), RandomRotation(0), RandomErasing(0), MixUp(0), CutMix(0)]
        runs = [start(study(few_digits, dropout=0.3, augment=augment), few_digits) for augment in ((), off)]
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1]
        assert torch.equal(*(weights(run.model) for run in runs))

    def test_only_training_batches_are_augmented(self, few_digits: Dataset) -> None:
        seen: list[Tensor] = []

        def noisy(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(targets)
            return inputs + torch.randn_like(inputs), targets

        run = start(study(few_digits, augment=[noisy]), few_digits)
        report = list(train(run))[-1]
        assert list(map(len, seen)) == [32, 32, 32, 4] * EPOCHS
        assert evaluate(run.model, run.loss, few_digits.validation) == report.validation

    @pytest.mark.parametrize(
        "augment",
        [
            [RandomCrop(1), RandomFlip(), RandomRotation(10), RandomErasing()],
            [RandomFlip(vertical=True), MixUp(0.4)],
            [CutMix(1.0)],
            [v2.RandomHorizontalFlip()],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("interval", [1, Steps(3)], ids=str)
    def test_resumes(self, interval: Any, augment: list[Any], few_digits: Dataset, tmp_path: Path) -> None:
        settings = {"optimizer": Adam(lr=0.01), "schedule": OneCycle(), "ema": 0.9}
        assert_resumes(study(few_digits, interval, dropout=0.3, augment=augment, **settings), few_digits, tmp_path)

    def test_of_a_torch_dataset_is_that_of_tensors(self, few_digits: Dataset) -> None:
        lazy = replace(few_digits, train=TensorDataset(*few_digits.train))  # type: ignore[misc]
        runs = [start(study(data, augment=[RandomCrop(1), MixUp(0.4)]), data) for data in (few_digits, lazy)]
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1]
        assert torch.equal(*(weights(run.model) for run in runs))

    @pytest.mark.parametrize(
        ("off", "on"),
        [
            (RandomCrop(1), RandomCrop(2)),
            (RandomCrop(1), RandomCrop(1, fill=3.0)),
            (RandomFlip(0.2), RandomFlip(0.3)),
            (RandomFlip(), RandomFlip(vertical=True)),
            (RandomRotation(10), RandomRotation(20)),
            (RandomRotation(10), RandomRotation(10, fill=3.0)),
            (RandomErasing(0.5), RandomErasing(0.9)),
            (RandomErasing(), RandomErasing(scale=(0.4, 0.5))),
            (RandomErasing(), RandomErasing(ratio=(1.0, 1.0))),
            (RandomErasing(), RandomErasing(value=3.0)),
            (MixUp(0.2), MixUp(0.4)),
            (CutMix(0.2), CutMix(0.4)),
        ],
        ids=str,
    )
    def test_a_setting_acts(self, off: Any, on: Any, few_digits: Dataset) -> None:
        first, again, other = (trained(study(few_digits, augment=[mine]), few_digits) for mine in (off, off, on))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("mix", [MixUp(1.0), CutMix(1.0), v2.MixUp(num_classes=10)], ids=str)
    def test_training_measures_under_mixing_are_those_of_examples_as_they_are(
        self, mix: Any, few_digits: Dataset
    ) -> None:
        run = start(study(few_digits, dropout=0.5, augment=[RandomFlip(), mix], ema=0.5), few_digits)
        for report in train(run):
            found = evaluate(run.evaluated, run.loss, few_digits.train, indices=run.examples_as_they_are)
            assert found == report.train
        # As many as there are validation examples, each once, and not just the first.
        places = run.examples_as_they_are.tolist()
        assert len({*places}) == len(places) == 60
        assert max(places) > 60
        assert isinstance(few_digits.train, Split)
        part = Split(*(part[run.examples_as_they_are] for part in few_digits.train))
        assert evaluate(run.evaluated, run.loss, part) == found

    def test_a_mixed_network_that_fits_is_said_to_fit(self, digits8: Dataset) -> None:
        """Against mixed targets, no network is right."""
        assert isinstance(digits8.train, Split)
        data = replace(digits8, train=Split(*(part[:200] for part in digits8.train)))
        run = start(replace(study(data, optimizer=Adam(lr=0.02), augment=[MixUp(1.0)]), epochs=25), data)
        assert list(train(run))[-1].train["accuracy"] > 0.95

    @pytest.mark.parametrize(
        ("loss", "outputs", "targets"),
        [
            (BinaryCrossEntropy(), 1, lambda classes: classes % 2),
            (MSE(), 1, lambda classes: classes % 2),
            (MSE(), 1, lambda classes: classes.float()[:, None] - 4.5),
            (MSE(), 10, lambda classes: classes),
            (CrossEntropy(label_smoothing=0.1), 10, lambda classes: classes[:, None]),
            (nn.BCEWithLogitsLoss(), 1, lambda classes: (classes % 2).float()[:, None]),
        ],
    )
    def test_mixes_for_any_loss(
        self, loss: Any, outputs: int, targets: Any, few_digits: Dataset, tmp_path: Path
    ) -> None:
        data = replace(
            few_digits,
            **{
                name: Split(split.inputs, targets(split.targets))  # type: ignore[union-attr]
                for name, split in (("train", few_digits.train), ("validation", few_digits.validation))
            },
        )
        model = {"model": lambda: MLP(inputs=64, hidden=[8], classes=outputs)}
        run = start(study(data, augment=[MixUp(0.5)], loss=loss, **model), data)
        reports = list(train(run))
        assert reports[-1].train["loss"] < 1.2 * reports[0].train["loss"]
        assert_resumes(study(data, augment=[MixUp(0.5)], loss=loss, **model), data, tmp_path)

    def test_what_is_no_pair_is_refused(self, few_digits: Dataset) -> None:
        run = start(study(few_digits, augment=[lambda inputs, targets: inputs]), few_digits)
        with pytest.raises(UsageError, match=r"an augmentation must return \(inputs, targets\); this one does not: <f"):
            next(train(run))

    def test_an_augmentation_of_another_form_is_explained_before_a_run(self, few_digits: Dataset) -> None:
        from hpsearch.tryout import try_batch

        broken = study(few_digits, augment=[transforms.RandomVerticalFlip()])
        with pytest.raises(UsageError) as raised:
            try_batch(broken, PARAMS, few_digits)
        said = (
            r"the augmentation, \(inputs, targets\) -> \(inputs, targets\), fails on \(32, 1, 8, 8\) of float32: Type"
        )
        assert raised.match(said)
        try_batch(study(few_digits, augment=[RandomCrop(1), MixUp(0.3)]), PARAMS, few_digits)


OPTIMIZERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (SGD(lr=0.05), lambda groups: torch.optim.SGD(groups, lr=0.05, fused=True), {"lr": 0.5}),
    "momentum": (
        SGD(lr=0.05, momentum=0.9),
        lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, fused=True),
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1},
    ),
    "adam": (Adam(), lambda groups: torch.optim.Adam(groups, fused=True), {"lr": 0.1, "betas": (0.5, 0.9)}),
    "adamw": (AdamW(), lambda groups: torch.optim.AdamW(groups, fused=True), {"weight_decay": 0.5, "eps": 0.1}),
    "rmsprop": (RMSprop(), torch.optim.RMSprop, {"lr": 0.1, "alpha": 0.5}),
    "adagrad": (Adagrad(), torch.optim.Adagrad, {"lr": 0.1}),
    "of torch": (lambda p: torch.optim.NAdam(p, lr=0.01), lambda g: torch.optim.NAdam(g, lr=0.01), {"lr": 0.1}),
}
SCHEDULES: dict[str, tuple[Any, Any]] = {
    "constant": (None, None),
    "cosine": (Cosine(), lambda live: torch.optim.lr_scheduler.CosineAnnealingLR(live, 4 * EPOCHS)),
    "one-cycle": (
        OneCycle(),
        lambda live: torch.optim.lr_scheduler.OneCycleLR(
            live, [group["lr"] for group in live.param_groups], total_steps=4 * EPOCHS + 1, cycle_momentum=False
        ),
    ),
    "warm-up": (
        Warmup(0.5),
        lambda live: torch.optim.lr_scheduler.LinearLR(live, 1 / (2 * EPOCHS + 1), total_iters=2 * EPOCHS),
    ),
}


class TestGroups:
    """The network has layers.1, with 8 neurons, and layers.3, the head."""

    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_equal_those_of_torch_bit_for_bit(self, optimizer: str, schedule: str, few_digits: Dataset) -> None:
        ours, reference, options = OPTIMIZERS[optimizer]
        our_schedule, their_schedule = SCHEDULES[schedule]
        mine = study(few_digits, optimizer=ours, schedule=our_schedule, groups={"layers.3": options})

        def grouped(model: Any) -> torch.optim.Optimizer:
            return reference(
                [
                    {"params": [*model.layers[1].parameters()]},
                    {"params": [*model.layers[3].parameters()], **options},
                ]
            )

        expected = by_hand(study(few_digits), few_digits, grouped, schedule=their_schedule)
        found = trained(mine, few_digits)
        assert torch.equal(found, expected)
        assert not torch.equal(found, trained(study(few_digits, optimizer=ours, schedule=our_schedule), few_digits))

    @pytest.mark.parametrize("optimizer", [NormalizedGradient(lr=0.01), L1(SGD(lr=0.05), 0.01)], ids=str)
    def test_of_the_other_optimizers(self, optimizer: Any, few_digits: Dataset, tmp_path: Path) -> None:
        def moved(groups: Any) -> list[float]:
            run = start(study(few_digits, Steps(1), optimizer=optimizer, groups=groups), few_digits)
            before = [parameter.detach().clone() for parameter in run.model.parameters()]
            next(train(run))
            return [float((p.detach() - b).abs().max()) for p, b in zip(run.model.parameters(), before, strict=True)]

        plain, grouped = moved({}), moved({"layers.3": {"lr": 10 * PARAMS["lr"]}})
        assert grouped[:2] == plain[:2]
        assert all(mine > 2 * theirs for mine, theirs in zip(grouped[2:], plain[2:], strict=True))
        assert_resumes(study(few_digits, optimizer=optimizer, groups={"layers.3": {"lr": 0.1}}), few_digits, tmp_path)

    def test_the_first_name_that_fits_counts(self, few_digits: Dataset) -> None:
        groups = {"layers.3": {"lr": 0.3}, "*.bias": {"lr": 0.2}, "layers.1.w*": {"lr": 0.1}, "*": {"lr": 9.0}}
        run = start(study(few_digits, groups=groups), few_digits)
        rates = {tuple(p.shape): group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
        assert rates == {(8, 64): 0.1, (8,): 0.2, (10, 8): 0.3, (10,): 0.3}
        assert len(run.trained) == 4

    def test_the_first_groups_rate_is_the_one_that_is_reported(self, few_digits: Dataset) -> None:
        run = start(study(few_digits, schedule=Cosine(), groups={"layers.3": {"lr": 7.0}}), few_digits)
        assert next(train(run)).learning_rate == pytest.approx(0.05 / 2)
        assert run.optimizer.param_groups[1]["lr"] == pytest.approx(7.0 / 2)

    @pytest.mark.parametrize("interval", [1, Steps(3)], ids=str)
    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_resume(self, schedule: str, interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        settings = {"optimizer": Adam(lr=0.01), "schedule": SCHEDULES[schedule][0], "accumulate": 3, "ema": 0.9}
        groups = {"layers.4": {"lr": 0.1, "betas": (0.8, 0.9)}}
        assert_resumes(study(few_digits, interval, 0.3, groups=groups, **settings), few_digits, tmp_path)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (
                {"groups": {"fc": {"lr": 0.1}}},
                "groups: no parameter of the model is named 'fc'; it has layers.1.weight, layers.1.bias, layers",
            ),
            (
                {"groups": {"layers.3": {"momentun": 0.1}}},
                r"groups\['layers.3'\]: the optimiser has no option 'momentun'; it has lr, momentum, nesterov",
            ),
            ({"groups": {"layers.3": {"lr": -1.0}}}, r"SGD: lr must be above 0, got -1\.0"),
            (
                {"groups": {"layers.3": {"betas": 1}}, "optimizer": L1(SGD(lr=0.1), 0.1)},
                "the optimiser has no option 'betas'",
            ),
            ({"groups": ["layers.3"]}, r"groups must be a dict such as \{.head.: .* got \['layers.3'\]"),
            ({"groups": {"layers.3": 0.1}}, r"groups must be a dict .* got \{'layers.3': 0.1\}"),
            ({"augment": RandomFlip()}, r"augment must be a list, such as \[RandomFlip\(\)\], got RandomFlip\("),
            ({"augment": [0.5]}, r"augment must be a list, .* got \[0.5\]"),
            ({"precision": "half"}, "precision must be one of None, bfloat16, float16, got 'half'"),
            ({"precision": torch.float16}, "precision must be one of .*, got torch.float16"),
            ({"compile": 1}, "compile must be True or False, got 1"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_named(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError, match=said):
            Recipe(**{"model": MLP(inputs=64, hidden=[8]), "optimizer": SGD(lr=0.1)} | settings)

    def test_an_option_that_the_users_optimizer_does_not_have(self, few_digits: Dataset) -> None:
        mine = study(few_digits, optimizer=torch.optim.NAdam, groups={"layers.3": {"momentum": 0.1}})
        with pytest.raises(UsageError, match=r"groups\['layers.3'\]: .* has no option 'momentum'; it has lr, betas"):
            next(train(start(mine, few_digits)))

    def test_a_group_may_be_a_loss_of_its_own(self, few_digits: Dataset, tmp_path: Path) -> None:
        """The parameters of a loss have no name, and go with the rest."""

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
                return functional.cross_entropy(outputs * self.scale, targets)

        def recipe(space: Any) -> Recipe:
            lr = space.float("lr", 0.01, 1.0)
            model = MLP(inputs=64, hidden=[8])
            return Recipe(model=model, optimizer=SGD(lr=lr), loss=Scaled(), groups={"layers": {"lr": 0.1}})

        run = start(Study(recipe=recipe, dataset=lambda: few_digits, epochs=1), few_digits)
        assert [len(group["params"]) for group in run.optimizer.param_groups] == [1, 4]


def frozen(*layers: int) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
        for layer in layers:
            net[layer].requires_grad_(False)
        return net

    return model


class TestFrozen:
    @pytest.mark.parametrize(
        "optimizer", [SGD(lr=0.05, weight_decay=0.1), AdamW(lr=0.05), L1(SGD(lr=0.05), 0.1)], ids=str
    )
    def test_frozen_parameters_stay_bit_for_bit(self, optimizer: Any, few_digits: Dataset, tmp_path: Path) -> None:
        mine = study(few_digits, model=frozen(1, 2), optimizer=optimizer, ema=0.9, groups={"1": {"lr": 0.5}})
        run = start(mine, few_digits)
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        assert len(run.trained) == 2
        list(train(run))
        after = run.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        # What batch norm counts and averages is no parameter.
        assert changed == {"4.weight", "4.bias", "2.running_mean", "2.running_var", "2.num_batches_tracked"}
        averages = run.evaluated.state_dict()
        assert all(torch.equal(averages[f"{layer}.weight"], before[f"{layer}.weight"]) for layer in (1, 2))
        assert_resumes(mine, few_digits, tmp_path)

    def test_batch_norm_stays_where_the_model_keeps_it_in_evaluation_mode(self, few_digits: Dataset) -> None:
        class Net(nn.Sequential):
            def train(self, mode: bool = True) -> "Net":
                super().train(mode)
                self[2].eval()
                return self

        run = start(study(few_digits, model=lambda: Net(*frozen(1, 2)()), ema=0.9), few_digits)
        before = {name: tensor.clone() for name, tensor in run.model[2].state_dict().items()}  # type: ignore[index]
        list(train(run))
        assert all(torch.equal(tensor, before[name]) for name, tensor in run.model[2].state_dict().items())  # type: ignore[index]

    def test_a_model_without_anything_to_train_is_refused(self, few_digits: Dataset) -> None:
        for model in (frozen(1, 2, 4), nn.Flatten):
            with pytest.raises(UsageError, match="nothing to train: the model has no parameters, or all of them have"):
                start(study(few_digits, model=model), few_digits)


class TestPlateau:
    @pytest.mark.parametrize("patience", [1, 2])
    @pytest.mark.parametrize(("measure", "mode"), [("accuracy", "max"), ("loss", "min")])
    def test_is_torchs_stepped_with_the_measure_after_each_interval(
        self, measure: str, mode: Any, patience: int, few_digits: Dataset
    ) -> None:
        settings = {"optimizer": SGD(lr=0.3), "groups": {"layers.3": {"lr": 0.5}}}
        mine = study(few_digits, schedule=Plateau(factor=0.5, patience=patience), **settings)
        run = start(replace(mine, epochs=12, measure=measure), few_digits)
        reports = list(train(run))
        live = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
            live, mode, factor=0.5, patience=patience - 1, threshold=0.0
        )
        expected = []
        for report in reports:
            reference.step(report.value)
            expected.append(live.param_groups[0]["lr"])
        assert [report.learning_rate for report in reports] == expected
        assert 0 < expected[-1] < 0.3
        rates = [group["lr"] for group in run.optimizer.param_groups]
        assert rates[1] / 0.5 == pytest.approx(rates[0] / 0.3)

    def test_training_until_then_is_at_a_constant_rate(self, few_digits: Dataset) -> None:
        runs = [start(study(few_digits, schedule=schedule), few_digits) for schedule in (Plateau(), None)]
        reports = [without_seconds(train(run)) for run in runs]
        assert reports[0] == reports[1]
        assert torch.equal(*(weights(run.model) for run in runs))

    @pytest.mark.parametrize(
        ("off", "on"),
        [
            (Plateau(factor=0.5, patience=1), Plateau(factor=0.4, patience=1)),
            (Plateau(factor=0.5, patience=1), Plateau(factor=0.5, patience=2)),
            (Plateau(factor=0.5, patience=1), Plateau(factor=0.5, patience=1, min_improvement=0.5)),
        ],
        ids=str,
    )
    def test_a_setting_acts(self, off: Any, on: Any, few_digits: Dataset) -> None:
        settings = {"optimizer": SGD(lr=0.3)}
        first, again, other = (
            trained(replace(study(few_digits, schedule=mine, **settings), epochs=8), few_digits)
            for mine in (off, off, on)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_after_a_warm_up(self, few_digits: Dataset) -> None:
        schedule = Warmup(0.25, then=Plateau(factor=0.5, patience=1))
        run = start(replace(study(few_digits, schedule=schedule, optimizer=SGD(lr=0.3)), epochs=12), few_digits)
        rates = [report.learning_rate for report in train(run)]
        assert rates[0] < rates[1] < 0.3
        assert min(rates[3:]) <= 0.15

    @pytest.mark.parametrize("interval", [1, Steps(3)], ids=str)
    @pytest.mark.parametrize("warm_up", [False, True])
    def test_resumes(self, warm_up: bool, interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        plateau = Plateau(factor=0.5, patience=2)
        schedule = Warmup(0.3, then=plateau) if warm_up else plateau
        mine = study(few_digits, interval, 0.3, schedule=schedule, optimizer=SGD(lr=0.3, momentum=0.5))
        assert_resumes(replace(mine, epochs=6), few_digits, tmp_path)

    def test_torchs_own_is_refused(self, few_digits: Dataset) -> None:
        mine = study(few_digits, schedule=lambda live, steps: torch.optim.lr_scheduler.ReduceLROnPlateau(live))
        with pytest.raises(UsageError, match=r"torch's ReduceLROnPlateau, .*: use hpsearch's Plateau\(\)"):
            next(train(start(mine, few_digits)))


class TestPrecision:
    def test_of_bfloat16_is_autocast(self, few_digits: Dataset) -> None:
        ours = trained(study(few_digits, precision="bfloat16"), few_digits)
        assert torch.equal(ours, by_hand(study(few_digits), few_digits, plain_sgd, dtype=torch.bfloat16))
        single = trained(study(few_digits), few_digits)
        assert not torch.equal(ours, single)
        torch.testing.assert_close(ours, single, rtol=0.1, atol=0.02)

    def test_weights_and_what_the_loss_gets_are_in_single_precision(self, few_digits: Dataset) -> None:
        types: list[torch.dtype] = []
        inside: list[torch.dtype] = []

        class Net(MLP):
            def forward(self, inputs: Tensor) -> Tensor:
                outputs = super().forward(inputs)
                inside.append(outputs.dtype)
                return outputs

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            types.append(outputs.dtype)
            return functional.cross_entropy(outputs, targets)

        run = start(study(few_digits, model=lambda: Net(inputs=64), loss=loss, precision="bfloat16"), few_digits)
        list(train(run))
        assert {*types} == {torch.float32}
        # In evaluation too.
        assert inside == [torch.bfloat16] * 5 * EPOCHS
        assert {tensor.dtype for tensor in run.model.state_dict().values()} == {torch.float32}

    @pytest.mark.parametrize("interval", [1, Steps(3)], ids=str)
    def test_resumes(self, interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        settings = {"optimizer": Adam(lr=0.01), "accumulate": 3, "clip_norm": 0.5, "ema": 0.9}
        assert_resumes(study(few_digits, interval, 0.3, precision="bfloat16", **settings), few_digits, tmp_path)

    def test_where_a_device_does_not_have_it(self, few_digits: Dataset) -> None:
        with pytest.raises(UsageError, match='precision "float16" needs a CUDA device, this is cpu; "bfloat16" also'):
            start(study(few_digits, precision="float16"), few_digits)
        with pytest.raises(UsageError, match='precision "bfloat16" does not work on this device, meta'):
            Run(study(few_digits, precision="bfloat16"), PARAMS, few_digits, seed=SEED, device="meta")


class TestScaledGradients:
    """Of float16, on a CPU as a stand-in for the only device where it is worth while."""

    @pytest.fixture(autouse=True)
    def _allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training, "_precision", lambda name, device: name and torch.float16)

    def test_are_those_of_torchs_scaler(self, few_digits: Dataset) -> None:
        ours = trained(study(few_digits, precision="float16"), few_digits)
        scaler = torch.amp.GradScaler("cpu")
        assert torch.equal(ours, by_hand(study(few_digits), few_digits, plain_sgd, dtype=torch.float16, scaler=scaler))
        torch.testing.assert_close(ours, trained(study(few_digits), few_digits), rtol=0.1, atol=0.02)

    def test_are_scaled_back_before_clipping_and_the_penalty(self, few_digits: Dataset) -> None:
        settings = {"clip_norm": 0.1, "optimizer": L1(SGD(lr=0.05), 0.01), "accumulate": 2}
        ours, single = (
            trained(study(few_digits, precision=precision, **settings), few_digits) for precision in ("float16", None)
        )
        torch.testing.assert_close(ours, single, rtol=0.1, atol=2e-3)

    @staticmethod
    def overflowing(data: Dataset, interval: Any = 1, accumulate: int = 1) -> Study:
        """Return a study whose first gradients, times the first scale, exceed the range of float16."""

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return 40 * functional.cross_entropy(outputs, targets)

        settings = {"loss": loss, "optimizer": SGD(lr=0.001, momentum=0.9), "schedule": OneCycle(), "ema": 0.9}
        return study(data, interval, 0.3, precision="float16", accumulate=accumulate, **settings)

    def test_an_update_that_overflows_is_left_out(self, few_digits: Dataset) -> None:
        run = start(self.overflowing(few_digits), few_digits)
        reports = list(train(run))
        assert all(not report.diverged for report in reports)
        assert run.average is not None
        assert run.schedule is not None
        updates = int(run.average.n_averaged)
        assert 0 < updates < 4 * EPOCHS
        assert run.schedule.last_epoch == updates
        assert run.scaler.get_scale() < 2**16

    @pytest.mark.parametrize("interval", [1, Steps(1), Steps(3)], ids=str)
    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_the_scale_is_resumed(self, accumulate: int, interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        assert_resumes(self.overflowing(few_digits, interval, accumulate), few_digits, tmp_path)

    def test_only_then_the_scale_is_in_the_state(self, few_digits: Dataset) -> None:
        assert "scaler" in start(study(few_digits, precision="float16"), few_digits).state_dict()
        assert "scaler" not in start(study(few_digits), few_digits).state_dict()


# torch's own, when it imports its compiler.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
class TestCompile:
    @pytest.fixture
    def graphs(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Have models traced but not translated to C++, which takes some ten seconds; return the traced graphs."""
        found: list[Any] = []
        compile_ = torch.compile

        def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
            found.append(graph)
            return graph.forward

        monkeypatch.setattr(torch, "compile", lambda model, **settings: compile_(model, backend=backend, **settings))
        return found

    def test_trains_the_same_and_leaves_the_model_plain(self, graphs: list[Any], few_digits: Dataset) -> None:
        runs = [start(study(few_digits, dropout=0.3, compile=compile_), few_digits) for compile_ in (False, True)]
        reports = []
        for run, shapes in zip(runs, (0, 3), strict=True):
            reports.append(list(train(run)))
            # Batches of 32 and of 4 in training, and of 60 in evaluation.
            assert len(graphs) == shapes
        for report, other in zip(*reports, strict=True):
            assert report.train["loss"] == pytest.approx(other.train["loss"], rel=1e-4)
            assert report.validation["loss"] == pytest.approx(other.validation["loss"], rel=1e-4)
        assert runs[0].state_dict()["model"].keys() == runs[1].state_dict()["model"].keys()
        assert type(runs[1].model) is type(runs[1].evaluated) is MLP
        torch.testing.assert_close(*(weights(run.model) for run in runs), rtol=1e-4, atol=1e-5)

    @pytest.mark.usefixtures("graphs")
    @pytest.mark.parametrize("interval", [1, Steps(3)], ids=str)
    def test_resumes(self, interval: Any, few_digits: Dataset, tmp_path: Path) -> None:
        settings = {"optimizer": Adam(lr=0.01), "ema": 0.9, "precision": "bfloat16", "augment": [MixUp(0.4)]}
        assert_resumes(study(few_digits, interval, 0.3, compile=True, **settings), few_digits, tmp_path)

    @pytest.mark.usefixtures("graphs")
    def test_a_worker_compiles_in_its_own_process(self, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unless the user asks for more; torch would start a process for each core."""
        for given, found in ((None, "1"), ("3", "3")):
            monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
            if given:
                monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", given)
            start(study(few_digits, compile=True), few_digits).compiled()
            assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == found

    def test_of_many_models_of_a_class_each_is_compiled(self, graphs: list[Any], few_digits: Dataset) -> None:
        """In one process, torch gives up after eight."""
        for width in range(1, 12):
            model = partial(MLP, inputs=64, hidden=[width])
            next(train(start(study(few_digits, model=model, batch_size=50, compile=True), few_digits)))
        assert len(graphs) == 2 * 11

    @pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
    def test_by_the_real_compiler(self, few_digits: Dataset, tmp_path: Path) -> None:
        """With what torch draws in the compiled code, dropout, resumed at one place."""
        mine = replace(study(few_digits, dropout=0.3, batch_size=50, compile=True), epochs=2)
        run = start(mine, few_digits)
        training_ = train(run)
        reports = [next(training_)]
        checkpoint.save(tmp_path / "last.pt", run.state_dict())
        reports += training_
        resumed = start(mine, few_digits)
        resumed.load_state_dict(checkpoint.load(tmp_path / "last.pt"))
        assert without_seconds(train(resumed)) == without_seconds(reports[1:])
        assert torch.equal(weights(resumed.model), weights(run.model))

    def test_without_a_compiler_it_is_said_in_a_line(
        self, few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._inductor.exc import InvalidCxxCompiler

        def broken(model: nn.Module, **settings: Any) -> Any:
            def forward(*inputs: Tensor) -> Tensor:
                raise InvalidCxxCompiler

            compiled = nn.Module()
            compiled.forward = forward  # type: ignore[method-assign]
            return compiled

        monkeypatch.setattr(torch, "compile", broken)
        with pytest.raises(UsageError, match=r"torch.compile fails: .*C\+\+.*; leave out compile=True") as raised:
            next(train(start(study(few_digits, compile=True), few_digits)))
        assert "\n" not in str(raised.value)

    def test_an_error_of_the_model_is_its_own(self, few_digits: Dataset) -> None:
        class Broken(MLP):
            def forward(self, inputs: Tensor) -> Tensor:
                raise NotImplementedError("not yet")

        with pytest.raises(NotImplementedError, match="not yet"):
            next(train(start(study(few_digits, model=lambda: Broken(inputs=64), compile=True), few_digits)))


class Named(torch.utils.data.Dataset[Any]):
    """Examples whose inputs are a dict, the image with noise."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        image = self.split.inputs[index]
        return {"image": image + 0.1 * torch.randn(image.shape), "scale": 0.5}, self.split.targets[index]


class Scaling(MLP):
    """A network of two inputs."""

    def forward(self, image: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image * scale[:, None, None, None].float())


def scaled(inputs: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """An augmentation of inputs that are a dict."""
    return inputs | {"scale": inputs["scale"] * torch.rand_like(inputs["scale"])}, targets


def mixed(inputs: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Mix images, and class probabilities made here."""
    image, probabilities = MixUp(0.4)(inputs["image"], functional.one_hot(targets, 10).float())
    return inputs | {"image": image}, probabilities


class TestOfALoader:
    """Examples that are read in other processes, and inputs that are several tensors."""

    @pytest.mark.parametrize("workers", [0, 2])
    def test_mixed_images_resume(self, workers: int, few_digits: Dataset, tmp_path: Path) -> None:
        data = replace(few_digits, train=TensorDataset(*few_digits.train), loader_workers=workers)  # type: ignore[misc]
        mine = study(data, Steps(3), 0.3, augment=[RandomCrop(1), MixUp(0.4)], schedule=Plateau(patience=1))
        assert_resumes(mine, data, tmp_path)
        assert torch.equal(trained(mine, data), trained(mine, few_digits))

    @pytest.mark.parametrize("augment", [[scaled], [scaled, mixed]], ids=["scaled", "mixed"])
    def test_nested_inputs_resume(self, augment: list[Any], few_digits: Dataset, tmp_path: Path) -> None:
        data = replace(few_digits, train=Named(few_digits.train), validation=Named(few_digits.validation))
        settings = {"precision": "bfloat16", "ema": 0.9, "groups": {"layers.3": {"lr": 0.1}}}
        mine = study(data, model=lambda: Scaling(inputs=64, hidden=[8]), augment=augment, **settings)
        assert_resumes(mine, data, tmp_path)

    def test_images_alone_are_augmented(self, few_digits: Dataset) -> None:
        data = replace(few_digits, train=Named(few_digits.train), validation=Named(few_digits.validation))
        mine = study(data, model=lambda: Scaling(inputs=64, hidden=[8]), augment=[RandomFlip()])
        with pytest.raises(UsageError, match="RandomFlip: the inputs must be one tensor, got a dict"):
            next(train(start(mine, data)))
