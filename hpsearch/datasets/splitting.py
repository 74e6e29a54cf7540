"""Splits, stratified by class and drawn with a seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpsearch.datasets.dataset import Split
from hpsearch.errors import UsageError
from hpsearch.text import brief, plural


def stratified(inputs: Tensor, targets: Tensor, held_out: int, seed: int) -> tuple[Split, Split]:
    """Split off `held_out` examples, stratified by class unless targets are numbers. The same seed, the same split."""
    from sklearn.model_selection import train_test_split

    classes = None if targets.is_floating_point() else targets
    kept, held = train_test_split(range(len(targets)), test_size=held_out, stratify=classes, random_state=seed)
    return Split(inputs[kept], targets[kept]), Split(inputs[held], targets[held])


def split_off(
    examples: Split, shares: dict[str, float], *, seed: int, classes: Sequence[str], noun: str
) -> tuple[Split, ...]:
    """Split off shares of all the examples, by name, stratified by class; return the rest, then these in their order.

    Targets that are numbers are not stratified. Raises UsageError for a share that is not between 0 and 1, for a seed
    that scikit-learn does not take, and if a class, which the message counts in `noun`, is too small to be in every
    split.
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
        if not classes:
            if not 0 < size < len(rest):
                raise UsageError(f"{plural(len(examples), noun)} are too few to be split with {settings}")
            rest, part = stratified(*rest, size, seed)
            parts.append(part)
            continue
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
