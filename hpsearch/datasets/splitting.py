"""Splits, stratified by class and drawn with a seed, and their normalisation."""

from torch import Tensor

from hpsearch.datasets.dataset import Split


def stratified(inputs: Tensor, targets: Tensor, held_out: int, seed: int) -> tuple[Split, Split]:
    """Split off `held_out` examples, stratified by class. The same seed gives the same split."""
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(range(len(targets)), test_size=held_out, stratify=targets, random_state=seed)
    return Split(inputs[kept], targets[kept]), Split(inputs[held], targets[held])


def normalised(train: Split, *others: Split) -> tuple[Split, ...]:
    """Standardise every split by the training split's mean and standard deviation."""
    # In double precision: otherwise the last bits, and so the data's fingerprint, differ between machines.
    mean, deviation = train.inputs.double().mean().float(), train.inputs.double().std().float()
    return tuple(Split((split.inputs - mean) / deviation, split.targets) for split in (train, *others))
