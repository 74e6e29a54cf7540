"""Augmentation of whole batches where the data are, on the CPU or the GPU: each image has its own draw.

An augmentation is any callable `(inputs, targets) -> (inputs, targets)`, applied in training only. Those here are
frozen dataclasses, so that their settings can be searched and show in a study's fingerprint; at 0 (`padding`, `p`,
`degrees`, `alpha`) they do nothing and draw nothing. Random numbers come from the global generator of the batch's
device, which the training loop seeds for each interval. torchvision's v2 transforms have the same form, but draw once
for a whole batch. Images are (N, channels, height, width) and keep their size; `fill` and `value` are in the units of
the inputs, in which 0 is usually the mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional

from hpsearch.errors import UsageError

Augmentation = Callable[[Any, Tensor], tuple[Any, Tensor]]


@dataclass(frozen=True)
class RandomCrop:
    """Pad images by `padding` pixels of value `fill` on each side and cut each to its size again at a random place.

    The distribution is that of `torchvision.transforms.RandomCrop(size, padding=padding)`. He et al., arXiv 1512.03385,
    section 4.2.
    """

    padding: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise UsageError(f"RandomCrop: padding must be a number of pixels, at least 0, got {self.padding!r}")
        _check_finite("RandomCrop", fill=self.fill)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images cropped, and the targets."""
        count, _, height, width = _image_shape("RandomCrop", inputs, targets)
        if self.padding == 0:
            return inputs, targets
        top, left = torch.randint(2 * self.padding + 1, (2, count, 1), device=inputs.device)
        padded = functional.pad(inputs, (self.padding,) * 4, value=self.fill)
        rows, columns = (torch.arange(size, device=inputs.device) for size in (height, width))
        return _pixels(padded, top + rows, left + columns), targets


@dataclass(frozen=True)
class RandomFlip:
    """Mirror each image, left to right or, if `vertical`, top to bottom, with probability `p`.

    The distribution is that of `torchvision.transforms.RandomHorizontalFlip(p)` and `RandomVerticalFlip(p)`.
    """

    p: float = 0.5
    vertical: bool = False

    def __post_init__(self) -> None:
        _check_probability("RandomFlip", self.p)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, some of them mirrored, and the targets."""
        count, _, height, width = _image_shape("RandomFlip", inputs, targets)
        if self.p == 0:
            return inputs, targets
        flipped = torch.rand(count, 1, device=inputs.device) < self.p
        rows, columns = (torch.arange(size, device=inputs.device).expand(count, size) for size in (height, width))
        if self.vertical:
            return _pixels(inputs, torch.where(flipped, rows.flip(1), rows), columns), targets
        return _pixels(inputs, rows, torch.where(flipped, columns.flip(1), columns)), targets


@dataclass(frozen=True)
class RandomRotation:
    """Rotate each image about its centre by an angle drawn uniformly from [-degrees, degrees].

    Pixels are interpolated bilinearly; those from outside the image have the value `fill`. The distribution is that of
    `torchvision.transforms.RandomRotation(degrees)`.
    """

    degrees: float
    fill: float = 0.0

    def __post_init__(self) -> None:
        if not _is_number(self.degrees) or not 0 <= self.degrees <= 180:
            raise UsageError(f"RandomRotation: degrees must be from 0 to 180, got {self.degrees!r}")
        _check_finite("RandomRotation", fill=self.fill)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images rotated, and the targets."""
        count, _, height, width = _image_shape("RandomRotation", inputs, targets)
        _check_floating("RandomRotation", "inputs", inputs)
        if self.degrees == 0:
            return inputs, targets
        angle = (torch.rand(count, device=inputs.device, dtype=inputs.dtype) * 2 - 1) * math.radians(self.degrees)
        sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
        # Where each pixel comes from, in coordinates that run from -1 to 1 along either side.
        rows = [cosine, -sine * height / width, zero, sine * width / height, cosine, zero]
        grid = functional.affine_grid(
            torch.stack(rows, dim=1).view(count, 2, 3), list(inputs.shape), align_corners=False
        )
        rotated = functional.grid_sample(inputs - self.fill, grid, align_corners=False)
        return rotated + self.fill, targets


@dataclass(frozen=True)
class RandomErasing:
    """Set a random rectangle of each image to `value`, with probability `p`.

    Its share of the image is drawn uniformly from `scale`, its ratio of height to width log-uniformly from `ratio`; if
    ten such rectangles do not fit into the image, it stays as it is. The distribution is that of
    `torchvision.transforms.RandomErasing(p, scale, ratio, value)`. Zhong et al., arXiv 1708.04896.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float = 0.0

    def __post_init__(self) -> None:
        _check_probability("RandomErasing", self.p)
        _check_finite("RandomErasing", value=self.value)
        for name, limits, high in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if len(limits) != 2 or not all(map(_is_number, limits)) or not 0 < limits[0] <= limits[1] <= high:
                raise UsageError(f"RandomErasing: {name} must be two rising numbers above 0, got {limits!r}")

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, some of them with a rectangle erased, and the targets."""
        count, _, height, width = _image_shape("RandomErasing", inputs, targets)
        if self.p == 0:
            return inputs, targets
        sizes = torch.rand(2, _TRIES, count, device=inputs.device)
        top, left, chance = torch.rand(3, count, device=inputs.device)
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * sizes[0])
        low, high = map(math.log, self.ratio)
        ratio = torch.exp(low + (high - low) * sizes[1])
        tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (tall < height) & (wide < width)
        # The first that fits, by falling numbers: `argmax` may return any of equal ones.
        order = torch.arange(_TRIES, 0, -1, device=inputs.device)[:, None]
        first = torch.where(fits, order, 0).argmax(dim=0, keepdim=True)
        tall, wide = tall.gather(0, first)[0], wide.gather(0, first)[0]
        top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
        erased = (chance < self.p) & fits.any(dim=0)
        inside = _inside(top, top + tall, height)[:, :, None] & _inside(left, left + wide, width)[:, None, :]
        return inputs.masked_fill((inside & erased[:, None, None])[:, None], self.value), targets


_TRIES = 10


@dataclass(frozen=True)
class MixUp:
    """Replace each example, and its target, by a mean of itself and a random other one of the batch.

    The weight of the former is drawn from Beta(alpha, alpha) for each example. Given to a recipe, class numbers become
    class probabilities first, (N, classes), or 0 and 1 if the model has one output; floating-point targets are mixed as
    they are. Zhang et al., arXiv 1710.09412.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha("MixUp", self.alpha)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples and targets mixed."""
        if self.alpha == 0:
            return inputs, targets
        _check_tensor("MixUp", inputs)
        _check_floating("MixUp", "inputs", inputs)
        _check_floating("MixUp", "targets", targets)
        share, partner = _draw_mix(self.alpha, inputs)
        return _mean(inputs, inputs[partner], share), _mean(targets, targets[partner], share)


@dataclass(frozen=True)
class CutMix:
    """Replace a random rectangle of each image by that of a random other one of the batch, and mix their targets alike.

    The share of the image that stays is drawn from Beta(alpha, alpha) for each image, the rectangle's centre uniformly;
    it is cut off at the border, and the weights of the targets are those of the pixels. Targets are as in `MixUp`. The
    distribution is that of `torchvision.transforms.v2.CutMix`, which draws once for a batch. Yun et al., arXiv
    1905.04899.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha("CutMix", self.alpha)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images with a rectangle of another one, and the targets mixed."""
        count, _, height, width = _image_shape("CutMix", inputs, targets)
        if self.alpha == 0:
            return inputs, targets
        _check_floating("CutMix", "targets", targets)
        share, partner = _draw_mix(self.alpha, inputs)
        half = (1 - share).sqrt() / 2
        sides = []
        for size in (height, width):
            centre = torch.randint(size, (count,), device=inputs.device)
            reach = (half * size).floor()
            sides.append(((centre - reach).clamp(min=0), (centre + reach).clamp(max=size), size))
        rows, columns = (_inside(*side) for side in sides)
        stays = 1 - rows.sum(dim=1) * columns.sum(dim=1) / (height * width)
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(inside, inputs[partner], inputs), _mean(targets, targets[partner], stays)


def mixes_targets(augmentation: Augmentation) -> bool:
    """Whether an augmentation mixes floating-point targets."""
    return isinstance(augmentation, MixUp | CutMix) and augmentation.alpha > 0


def _pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images made of the given rows, (N, height), and columns, (N, width), of each image."""
    count, channels, _, width = images.shape
    # One index into flat images is the fastest of the ways on a CPU.
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view(count, channels, rows.shape[1], columns.shape[1])


def _inside(start: Tensor, stop: Tensor, size: int) -> Tensor:
    """Return which of the places 0 to `size` - 1 are from `start` to before `stop`, (N, size) for N of each."""
    places = torch.arange(size, device=start.device)
    return (places >= start[:, None]) & (places < stop[:, None])


def _draw_mix(alpha: float, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each example the share of it that stays, and another one to mix it with."""
    concentration = torch.full((len(inputs),), float(alpha), device=inputs.device)
    # Validation would wait for the GPU.
    beta = Beta(concentration, concentration, validate_args=False)
    return beta.sample(), torch.randperm(len(inputs), device=inputs.device)


def _mean(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Return the mean of each two examples, the first with weight `share`, (N,)."""
    return torch.lerp(second, first, share.to(first.dtype).view(-1, *[1] * (first.dim() - 1)))


def _image_shape(name: str, inputs: Any, targets: Tensor) -> tuple[int, int, int, int]:
    """Return the shape (N, channels, height, width). Raises UsageError for other inputs, and for targets of pixels."""
    _check_tensor(name, inputs)
    if inputs.dim() != 4:
        raise UsageError(f"{name}: needs images, (N, channels, height, width), got inputs {tuple(inputs.shape)}")
    if targets.dim() > 2:
        raise UsageError(
            f"{name}: moves images, but not targets {tuple(targets.shape)}, which have a place in them; "
            f"a function (inputs, targets) -> (inputs, targets) can do both"
        )
    count, channels, height, width = inputs.shape
    return count, channels, height, width


def _check_tensor(name: str, inputs: Any) -> None:
    if not isinstance(inputs, Tensor):
        raise UsageError(f"{name}: the inputs must be one tensor, got a {type(inputs).__name__}")


def _check_floating(name: str, what: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise UsageError(
            f"{name}: the {what} must be of a floating-point type, got {str(tensor.dtype).removeprefix('torch.')} "
            f"{tuple(tensor.shape)}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_probability(name: str, p: float) -> None:
    if not _is_number(p) or not 0 <= p <= 1:
        raise UsageError(f"{name}: p must be a probability from 0 to 1, got {p!r}")


def _check_alpha(name: str, alpha: float) -> None:
    if not _is_number(alpha) or not 0 <= alpha < math.inf:
        raise UsageError(f"{name}: alpha must be a number of at least 0, got {alpha!r}")


def _check_finite(name: str, **numbers: float) -> None:
    for key, number in numbers.items():
        if not _is_number(number) or not math.isfinite(number):
            raise UsageError(f"{name}: {key} must be a number, got {number!r}")
