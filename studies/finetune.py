"""A pretrained backbone, fine-tuned with two step sizes: one for the body, one for the new head.

Your own: weights from a file, or `import_torchvision("models").resnet18(weights="DEFAULT")`. Here a small network is
first trained on the digits 0 to 4 and saved; its body then learns 5 to 9 from 100 examples.
"""

from pathlib import Path

import torch
from torch import nn

from hpsearch import Adam, Dataset, Recipe, Space, Split, Study, digits

WEIGHTS = Path("data/backbone.pt")


def network() -> nn.Sequential:
    """Return a body of convolutions, and a head of five classes."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 32)
    )
    return nn.Sequential(body, nn.Sequential(nn.ReLU(), nn.Linear(32, 5)))


def only(split: Split, first: int, count: int | None = None) -> Split:
    """Return the examples of five digits from `first` on, at most `count`."""
    chosen = ((split.targets >= first) & (split.targets < first + 5)).nonzero()[:count, 0]
    return Split(split.inputs[chosen], split.targets[chosen] - first)


def pretrain() -> None:
    """Train on the digits 0 to 4 and save the body."""
    torch.manual_seed(0)
    model, train = network(), only(digits(size=8).train, 0)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train.inputs), train.targets).backward()
        optimizer.step()
    WEIGHTS.parent.mkdir(exist_ok=True)
    with WEIGHTS.with_suffix(".unfinished").open("wb") as file:
        torch.save(model[0].state_dict(), file)
    WEIGHTS.with_suffix(".unfinished").replace(WEIGHTS)


def few_digits() -> Dataset:
    """Return the digits 5 to 9, of which 100 are to train on."""
    data = digits(size=8)
    train, validation, test = data.train, data.validation, data.test
    return Dataset(
        train=only(train, 5, 100),  # type: ignore[arg-type]
        validation=only(validation, 5),  # type: ignore[arg-type]
        test=only(test, 5),  # type: ignore[arg-type]
        classes=("5", "6", "7", "8", "9"),
    )


def recipe(space: Space) -> Recipe:
    """The body is frozen or has a step size of its own."""
    model = network()
    model[0].load_state_dict(torch.load(WEIGHTS))
    lr, groups = space.float("head_lr", 1e-3, 1e-1, log=True), {}
    if space.choice("frozen", [True, False]):
        model[0].requires_grad_(False)
    else:
        groups = {"0": {"lr": space.float("body_lr", 1e-5, 1e-2, log=True)}}
    return Recipe(model=model, optimizer=Adam(lr=lr), groups=groups, batch_size=20)


if not WEIGHTS.exists():
    pretrain()
study = Study(recipe=recipe, dataset=few_digits, epochs=10, n_trials=12)
