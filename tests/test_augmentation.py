"""The distribution of every augmentation is that of torchvision's; each image has its own draw."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from hpsearch import CutMix, MixUp, RandomCrop, RandomErasing, RandomFlip, RandomRotation, UsageError
from hpsearch.datasets import import_torchvision

import_torchvision("transforms")

from torchvision.transforms import v2  # noqa: E402

COUNT = 4000
# A true hypothesis is rejected once in ten thousand times; the seeds are fixed, so that it is not.
LEVEL = 1e-4

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ALL: list[Transform] = [RandomCrop(2), RandomFlip(), RandomRotation(30), RandomErasing(0.9), MixUp(1.0), CutMix(1.0)]
OFF: list[Transform] = [
    RandomCrop(0),
    RandomFlip(0.0),
    RandomRotation(0),
    RandomErasing(0.0),
    MixUp(0),
    CutMix(0.0),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def classes(count: int = COUNT, number: int = 10) -> Tensor:
    return torch.randint(number, (count,))


def coordinates(height: int, width: int, count: int = COUNT) -> Tensor:
    """Images whose pixels are numbered from 1 on, so that a result shows where its pixels come from."""
    return torch.arange(1.0, height * width + 1).view(1, 1, height, width).repeat(count, 1, 1, 1)


def images(count: int = COUNT, channels: int = 3, height: int = 8, width: int = 6) -> Tensor:
    return torch.randn(count, channels, height, width)


def one_by_one(transform: Any, inputs: Tensor) -> Tensor:
    return torch.stack([transform(image) for image in inputs])


def same_counts(first: list[Any], second: list[Any]) -> None:
    """Check by a chi-squared test that two samples of discrete values are of one distribution."""
    values = sorted(set(first) | set(second))
    table = [[sample.count(value) for value in values] for sample in (first, second)]
    assert stats.chi2_contingency(table).pvalue > LEVEL, (values, table)


def same_numbers(first: Any, second: Any) -> None:
    """Check by a Kolmogorov-Smirnov test that two samples of numbers are of one distribution."""
    assert stats.ks_2samp(first, second).pvalue > LEVEL


class TestRandomCrop:
    def test_each_image_is_torchvisions_crop_at_its_own_place(self) -> None:
        inputs, targets = images(height=7, width=5), classes()
        outputs, same = RandomCrop(2, fill=9.0)(inputs, targets)
        assert same is targets
        padded = functional.pad(inputs, (2,) * 4, value=9.0)
        crops = torch.stack([padded[:, :, y : y + 7, x : x + 5] for y in range(5) for x in range(5)])
        matches = (crops == outputs).flatten(2).all(dim=2)
        assert matches.sum(dim=0).tolist() == [1] * COUNT

    def test_the_places_are_distributed_as_torchvisions(self) -> None:
        inputs = coordinates(6, 6)
        ours = RandomCrop(3)(inputs, classes())[0][:, 0, 3, 3]
        theirs = one_by_one(v2.RandomCrop(6, padding=3), inputs)[:, 0, 3, 3]
        same_counts(ours.tolist(), theirs.tolist())


@pytest.mark.parametrize("vertical", [False, True])
class TestRandomFlip:
    def test_an_image_is_mirrored_or_the_same(self, vertical: bool) -> None:
        inputs, targets = images(), classes()
        outputs, same = RandomFlip(vertical=vertical)(inputs, targets)
        assert same is targets
        mirrored = inputs.flip(2 if vertical else 3)
        flipped = (outputs == mirrored).flatten(1).all(dim=1)
        assert torch.equal(outputs, torch.where(flipped[:, None, None, None], mirrored, inputs))

    @pytest.mark.parametrize("p", [0.5, 0.1])
    def test_as_often_as_torchvisions(self, p: float, vertical: bool) -> None:
        inputs = coordinates(2, 2)
        ours = RandomFlip(p, vertical=vertical)(inputs, classes())[0]
        theirs = one_by_one((v2.RandomVerticalFlip if vertical else v2.RandomHorizontalFlip)(p), inputs)
        same_counts(ours[:, 0, 0, 0].tolist(), theirs[:, 0, 0, 0].tolist())


class TestRandomRotation:
    @pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 12), (12, 7)])
    def test_each_image_is_torchvisions_rotated_by_its_own_angle(self, height: int, width: int) -> None:
        inputs, targets = images(50, 2, height, width), classes(50)
        torch.manual_seed(1)
        outputs, same = RandomRotation(180)(inputs, targets)
        torch.manual_seed(1)
        angles = (torch.rand(50) * 2 - 1) * 180
        assert same is targets
        for angle, image, output in zip(angles.tolist(), inputs, outputs, strict=True):
            expected = v2.functional.rotate(image, angle, v2.InterpolationMode.BILINEAR)
            torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)

    def test_the_angles_are_distributed_as_torchvisions(self) -> None:
        # A slope rotated by an angle is a slope in that direction, here measured in the middle, away from the border.
        line = torch.arange(9.0) - 4
        inputs = line.expand(COUNT, 1, 9, 9)

        def angles(rotated: Tensor) -> Any:
            middle = rotated[:, 0, 3:6, 3:6]
            across = middle[:, 1, 2] - middle[:, 1, 0]
            down = middle[:, 2, 1] - middle[:, 0, 1]
            return torch.rad2deg(torch.atan2(down, across)).numpy()

        ours = angles(RandomRotation(25)(inputs, classes())[0])
        theirs = angles(one_by_one(v2.RandomRotation(25, v2.InterpolationMode.BILINEAR), inputs))
        assert 24 < ours.max() < 25.001
        same_numbers(ours, theirs)

    def test_what_comes_from_outside_is_fill(self) -> None:
        outputs, _ = RandomRotation(180, fill=3.0)(torch.full((50, 1, 9, 9), 3.0), classes(50))
        torch.testing.assert_close(outputs, torch.full((50, 1, 9, 9), 3.0))
        dark, _ = RandomRotation(180)(torch.full((50, 1, 9, 9), 3.0), classes(50))
        assert dark[:, 0, 0, 0].min() < 0.5


class TestRandomErasing:
    @staticmethod
    def boxes(outputs: Tensor) -> list[tuple[int, int, int, int]]:
        """Return the place and size of what is zero in each image, and check that it is a rectangle."""
        found = []
        for image in outputs[:, 0] == 0:
            rows, columns = image.any(dim=1).nonzero(), image.any(dim=0).nonzero()
            if len(rows) == 0:
                found.append((0, 0, 0, 0))
                continue
            assert image.sum() == len(rows) * len(columns)
            found.append((int(rows[0]), int(columns[0]), len(rows), len(columns)))
        return found

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"p": 1.0, "scale": (0.1, 0.5), "ratio": (0.5, 1.0)},
            # Most of these rectangles do not fit.
            {"p": 1.0, "scale": (0.6, 1.0), "ratio": (0.2, 5.0)},
        ],
        ids=str,
    )
    def test_places_and_sizes_are_distributed_as_torchvisions(self, settings: dict[str, Any]) -> None:
        inputs, targets = coordinates(16, 12), classes()
        outputs, same = RandomErasing(**settings)(inputs, targets)
        assert same is targets
        assert bool(((outputs == inputs) | (outputs == 0)).all())
        ours, theirs = self.boxes(outputs), self.boxes(one_by_one(v2.RandomErasing(**settings), inputs))
        for part in range(4):
            same_counts([box[part] for box in ours], [box[part] for box in theirs])
        same_numbers([box[2] * box[3] for box in ours], [box[2] * box[3] for box in theirs])

    def test_all_channels_are_erased_alike_to_the_value(self) -> None:
        inputs = images(200)
        outputs, _ = RandomErasing(1.0, value=5.0)(inputs, classes(200))
        erased = outputs == 5.0
        assert torch.equal(erased, erased[:, :1].expand_as(erased))
        assert torch.equal(outputs[~erased], inputs[~erased])


class TestMixUp:
    @pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
    def test_the_weights_are_beta_distributed(self, alpha: float) -> None:
        # Example i is the number i, so a mean of two shows the weight only with the targets.
        targets = functional.one_hot(torch.arange(COUNT), COUNT).float()
        inputs = torch.arange(float(COUNT))[:, None]
        mixed, probabilities = MixUp(alpha)(inputs, targets)
        own = probabilities.diagonal()
        moved = probabilities.gt(0).sum(dim=1) == 2
        assert moved.float().mean() > 0.9
        assert stats.kstest(own[moved].numpy(), stats.beta(alpha, alpha).cdf).pvalue > LEVEL
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(COUNT))
        # Inputs and targets have the same weights and partners.
        torch.testing.assert_close(mixed, probabilities @ inputs, rtol=1e-4, atol=1e-1)

    def test_one_batch_is_torchvisions_with_these_weights(self) -> None:
        inputs, targets = images(8), functional.one_hot(classes(8), 10).float()
        torch.manual_seed(3)
        share = torch.distributions.Beta(torch.full((8,), 0.7), 0.7).sample()
        partner = torch.randperm(8)
        torch.manual_seed(3)
        mixed, probabilities = MixUp(0.7)(inputs, targets)
        for index in range(8):
            weight, other = share[index], partner[index]
            torch.testing.assert_close(mixed[index], weight * inputs[index] + (1 - weight) * inputs[other])
            torch.testing.assert_close(probabilities[index], weight * targets[index] + (1 - weight) * targets[other])

    @pytest.mark.parametrize("shape", [(), (1,), (3,)])
    def test_numbers_are_mixed_as_they_are(self, shape: tuple[int, ...]) -> None:
        inputs, targets = torch.randn(50, 4), torch.randn(50, *shape)
        weights = torch.randn(4, *(shape or (1,)))
        mixed, numbers = MixUp(1.0)(inputs, (inputs @ weights).reshape(targets.shape))
        torch.testing.assert_close(numbers, (mixed @ weights).reshape(targets.shape), rtol=1e-4, atol=1e-5)


class TestCutMix:
    def test_shares_are_distributed_as_torchvisions(self) -> None:
        inputs = torch.arange(COUNT).view(COUNT, 1, 1, 1).expand(COUNT, 1, 16, 12).float()
        targets = functional.one_hot(torch.arange(COUNT), COUNT).float()
        outputs, probabilities = CutMix(1.0)(inputs, targets)
        own = (outputs == inputs).flatten(1).float().mean(dim=1)
        moved = probabilities.gt(0).sum(dim=1) == 2
        # The weights of targets are the shares of pixels.
        torch.testing.assert_close(probabilities.diagonal()[moved], own[moved])
        assert torch.equal(probabilities @ torch.arange(float(COUNT)) < 0, torch.zeros(COUNT).bool())
        theirs = []
        pair, labels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 16, 12), torch.tensor([0, 1])
        transform = v2.CutMix(alpha=1.0, num_classes=2)
        for _ in range(COUNT):
            theirs.append(round(float(transform(pair, labels)[1][0, 0]) * 192))
        ours = own.mul(192).round().int()
        # Where an image is its own partner nothing shows.
        partner = probabilities.clone().fill_diagonal_(0).sum(dim=1) > 0
        same_numbers(ours[partner].tolist(), [value for value in theirs if value < 192])
        share = sum(value < 192 for value in theirs) / COUNT
        assert partner.float().mean().item() == pytest.approx(share, abs=0.02)

    def test_the_other_part_is_a_rectangle_of_one_other_image(self) -> None:
        inputs = torch.arange(200.0).view(200, 1, 1, 1).expand(200, 3, 8, 6)
        outputs, _ = CutMix(1.0)(inputs, functional.one_hot(classes(200), 10).float())
        TestRandomErasing.boxes(torch.where(outputs == inputs, 1.0, 0.0))
        for index, output in enumerate(outputs):
            assert len({*output.unique().tolist()} - {float(index)}) <= 1


@pytest.mark.parametrize("transform", ALL, ids=str)
class TestAll:
    def test_same_seed_same_batch(self, transform: Transform) -> None:
        inputs, targets = images(64), functional.one_hot(classes(64), 10).float()
        before = inputs.clone(), targets.clone()
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(transform(inputs, targets))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        assert not torch.equal(results[0][0], results[2][0])
        assert torch.equal(inputs, before[0])
        assert torch.equal(targets, before[1])
        assert results[0][0].shape == inputs.shape
        assert results[0][0].dtype == inputs.dtype

    def test_each_image_has_its_own_draw(self, transform: Transform) -> None:
        inputs = torch.linspace(0, 1, 48).view(1, 1, 8, 6).repeat(64, 1, 1, 1)
        if isinstance(transform, MixUp | CutMix):
            inputs = inputs + torch.arange(64.0).view(64, 1, 1, 1)
        outputs, _ = transform(inputs, torch.zeros(64, 2))
        changes = {tuple(change.flatten().tolist()) for change in outputs - inputs}
        assert len(changes) >= (2 if isinstance(transform, RandomFlip) else 20)

    def test_a_batch_of_one(self, transform: Transform) -> None:
        inputs, _ = transform(images(1), torch.ones(1, 2))
        assert inputs.shape == (1, 3, 8, 6)

    def test_double_precision(self, transform: Transform) -> None:
        inputs, targets = transform(images(8).double(), torch.ones(8, 2, dtype=torch.float64))
        assert (inputs.dtype, targets.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize("transform", OFF, ids=str)
def test_at_zero_nothing_is_changed_nor_drawn(transform: Transform) -> None:
    inputs, targets = images(8), classes(8)
    state = torch.get_rng_state()
    outputs, same = transform(inputs, targets)
    assert outputs is inputs
    assert same is targets
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomCrop(-1), "RandomCrop: padding must be a number of pixels, at least 0, got -1"),
        (lambda: RandomCrop(0.5), r"RandomCrop: padding .* got 0\.5"),  # type: ignore[arg-type]
        (lambda: RandomCrop(True), "RandomCrop: padding .* got True"),
        (lambda: RandomCrop(1, fill=math.nan), "RandomCrop: fill must be a number, got nan"),
        (lambda: RandomFlip(1.5), r"RandomFlip: p must be a probability from 0 to 1, got 1\.5"),
        (lambda: RandomRotation(-5), "RandomRotation: degrees must be from 0 to 180, got -5"),
        (lambda: RandomRotation(270), "RandomRotation: degrees must be from 0 to 180, got 270"),
        (lambda: RandomErasing(-0.1), r"RandomErasing: p .* got -0\.1"),
        (lambda: RandomErasing(scale=(0.5, 0.1)), r"RandomErasing: scale must be two rising .* got \(0\.5, 0\.1\)"),
        (lambda: RandomErasing(scale=(0.5, 1.1)), r"RandomErasing: scale .* got \(0\.5, 1\.1\)"),
        (lambda: RandomErasing(ratio=(0.0, 1.0)), r"RandomErasing: ratio .* got \(0\.0, 1\.0\)"),
        (lambda: MixUp(-1), "MixUp: alpha must be a number of at least 0, got -1"),
        (lambda: CutMix(math.nan), "CutMix: alpha .* got nan"),
        (lambda: RandomCrop(2)(torch.zeros(8, 5), classes(8)), r"RandomCrop: needs images, .* got inputs \(8, 5\)"),
        (lambda: RandomFlip()({"a": 1}, classes(8)), "RandomFlip: the inputs must be one tensor, got a dict"),  # type: ignore[arg-type]
        (lambda: MixUp(1.0)([1], classes(8)), "MixUp: the inputs must be one tensor, got a list"),  # type: ignore[arg-type]
        (
            lambda: RandomFlip()(images(8), torch.zeros(8, 8, 6)),
            r"RandomFlip: moves images, but not targets \(8, 8, 6\), which have a place in them",
        ),
        (lambda: RandomRotation(9)(images(8).byte(), classes(8)), "RandomRotation: the inputs .* got uint8"),
        (
            lambda: MixUp(1.0)(classes(8), torch.ones(8)),
            "MixUp: the inputs must be of a floating-point type, got int64",
        ),
        (lambda: MixUp(1.0)(images(8), classes(8)), r"MixUp: the targets must be of a floating.* got int64 \(8,\)"),
        (lambda: CutMix(1.0)(images(8), classes(8)), r"CutMix: the targets must be of a floating.* got int64 \(8,\)"),
    ],
)
def test_a_wrong_argument_is_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()
