"""Splits, stratified by class and drawn with a seed, and their normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpsearch.datasets.dataset import Split
from hpsearch.errors import UsageError
from hpsearch.text import brief, plural


def stratified(inputs: Tensor, targets: Tensor, held_out: int, seed: int) -> tuple[Split, Split]:
    """Split off `held_out` examples, stratified by class. The same seed gives the same split."""
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(range(len(targets)), test_size=held_out, stratify=targets, random_state=seed)
    return Split(inputs[kept], targets[kept]), Split(inputs[held], targets[held])


def split_off(
    examples: Split, shares: dict[str, float], *, seed: int, classes: Sequence[str], noun: str
) -> tuple[Split, ...]:
    """Split off shares of all the examples, by name, stratified by class; return the rest, then these in their order.

    Raises UsageError for a share that is not between 0 and 1, for a seed that scikit-learn does not take, and if a
    class, which the message counts in `noun`, is too small to be in every split.
    """
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise UsageError(f"{name} must be a share between 0 and 1, got {brief(share)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seed must be a whole number from 0 to {2**32 - 1}, got {brief(seed)}")
    settings = " and ".join(f"{name}={share:g}" for name, share in shares.items())
    if sum(shares.values()) >= 1:
        raise UsageError(f"{settings} leave nothing to train on: their sum must be less than 1")
    rest, parts = examples, []
    for share in shares.values():
        size = round(share * len(examples))
        divisible = _counts(rest, classes).min() >= 2 and len(classes) <= size <= len(rest) - len(classes)
        if divisible:
            rest, part = stratified(*rest, size, seed)
            parts.append(part)
        if not divisible or not all(_counts(split, classes).all() for split in (rest, part)):
            counts = _counts(examples, classes)
            rarest = int(counts.argmin())
            raise UsageError(
                f"class {classes[rarest]!r} has {plural(int(counts[rarest]), noun)}, too few to be in every split with "
                f"{settings}: add {noun}s of it, or choose other shares"
            )
    return rest, *parts


def _counts(split: Split, classes: Sequence[str]) -> Tensor:
    return torch.bincount(split.targets, minlength=len(classes))


def normalised(train: Split, *others: Split) -> tuple[Split, ...]:
    """Standardise every split by the training split's mean and standard deviation."""
    # In double precision: otherwise the last bits, and so the data's fingerprint, differ between machines.
    mean, deviation = train.inputs.double().mean().float(), train.inputs.double().std().float()
    return tuple(Split((split.inputs - mean) / deviation, split.targets) for split in (train, *others))


def normalised_images(train: Split, *others: Split) -> tuple[Split, ...]:
    """Standardise uint8 images (N, C, H, W) by the mean and the standard deviation of the training split's channels.

    Returns float32 images. A constant channel becomes zero.
    """
    # Statistics from counts of the 256 levels need no copy of the images in double precision.
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in train.inputs.unbind(1)])
    levels = (torch.arange(256).float() / 255).double()
    size = counts.sum(1, keepdim=True)
    mean = (counts * levels).sum(1, keepdim=True) / size
    deviation = ((counts * (levels - mean) ** 2).sum(1, keepdim=True) / (size - 1)).sqrt()
    deviation[counts.amax(1, keepdim=True) == size] = 1
    shift, scale = mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)
    return tuple(
        Split(split.inputs.float().div_(255).sub_(shift).div_(scale), split.targets) for split in (train, *others)
    )
