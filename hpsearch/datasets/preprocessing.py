"""Preprocessing: what makes a model's inputs of raw examples, as a module that the final model's file holds too."""

from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.datasets.dataset import Dataset, Split

# So many examples are preprocessed at once, because what is computed on the way takes memory as well.
_EXAMPLES = 16_384


def preprocessed(
    preprocessing: nn.Module,
    *,
    train: Split,
    validation: Split,
    test: Split | None,
    classes: tuple[str, ...],
    note: str = "",
) -> Dataset:
    """Return the data set whose inputs are what `preprocessing`, in evaluation mode, makes of those of raw splits."""
    preprocessing.eval()
    return Dataset(
        train=_inputs(preprocessing, train),
        validation=_inputs(preprocessing, validation),
        test=None if test is None else _inputs(preprocessing, test),
        classes=classes,
        note=note,
        preprocessing=preprocessing,
        # A clone, because the examples of all splits may be in the same memory.
        raw_test=None if test is None else test.inputs.clone(),
    )


def _inputs(preprocessing: nn.Module, raw: Split) -> Split:
    with torch.no_grad():
        inputs: Tensor = torch.empty(0)
        for start in range(0, len(raw), _EXAMPLES):
            part = preprocessing(raw.inputs[start : start + _EXAMPLES])
            if start == 0:
                inputs = part.new_empty((len(raw), *part.shape[1:]))
            inputs[start : start + _EXAMPLES] = part
    return Split(inputs, raw.targets)


class ImageScaling(nn.Module):
    """Makes float32 images of uint8 ones, (N, C, H, W): each channel has zero mean and unit variance over `train`.

    A channel that is constant in `train` becomes zero.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, train: Tensor, about: dict[str, Any]) -> None:
        super().__init__()
        # Statistics from counts of the 256 levels need no copy of the images in double precision.
        counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in train.unbind(1)])
        levels = (torch.arange(256).float() / 255).double()
        size = counts.sum(1, keepdim=True)
        mean = (counts * levels).sum(1, keepdim=True) / size
        deviation = ((counts * (levels - mean) ** 2).sum(1, keepdim=True) / (size - 1)).sqrt()
        deviation[counts.amax(1, keepdim=True) == size] = 1
        self.register_buffer("mean", mean.float().view(-1, 1, 1))
        self.register_buffer("deviation", deviation.float().view(-1, 1, 1))
        self.about = about | {"mean": self.mean.flatten().tolist(), "deviation": self.deviation.flatten().tolist()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the inputs of images."""
        return (images / 255).sub_(self.mean).div_(self.deviation)


def about_images(images: Tensor, *, resized: bool) -> dict[str, Any]:
    """Describe raw images (N, C, H, W) for `ImageScaling`; `resized` if they were made so by `images`."""
    channels, height, width = images.shape[1:]
    mode = "L" if channels == 1 else "RGB"
    return {"kind": "image", "mode": mode, "height": height, "width": width, "resized": resized}
