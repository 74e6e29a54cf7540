"""Runs of small studies in a test's own process, and what they are compared by."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch import SGD, Dataset, Recipe, Study, checkpoint
from hpsearch.seeding import derive_seed
from hpsearch.training import IntervalReport, Run, train

SEED = 7
PARAMS = {"lr": 0.05}


def study_of(model: Callable[[], nn.Module], data: Dataset, **settings: Any) -> Study:
    """Return a study of a model, with other settings of its recipe."""

    def recipe(space: Any) -> Recipe:
        lr = space.float("lr", 0.01, 1.0)
        given: dict[str, Any] = {"model": model(), "optimizer": SGD(lr=lr), "batch_size": 32}
        return Recipe(**given | settings)

    return Study(recipe=recipe, dataset=lambda: data, epochs=2)


def start(study: Study, data: Dataset, params: dict[str, Any] | None = None, seed: int = SEED) -> Run:
    """Return a run that has not begun."""
    return Run(study, PARAMS if params is None else params, data, seed=seed)


def weights(model: nn.Module) -> Tensor:
    """Return all parameters of a model in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def without_seconds(reports: Iterable[IntervalReport]) -> list[IntervalReport]:
    """Return reports without what differs between equal runs."""
    return [replace(report, seconds=0.0) for report in reports]


def order_of(epoch: int, examples: int, seed: int = SEED) -> Tensor:
    """Return an epoch's order of examples, as documented."""
    return torch.randperm(examples, generator=torch.Generator().manual_seed(derive_seed(seed, "order", epoch)))


def assert_resumes(study: Study, data: Dataset, folder: Path) -> None:
    """Interrupt a run after each interval and check that it ends as the uninterrupted one."""
    run = start(study, data)
    expected_reports = without_seconds(train(run))
    expected = run.state_dict()
    assert len(expected_reports) == run.intervals
    for done in range(run.intervals + 1):
        first = start(study, data)
        training = train(first)
        reports = list(islice(training, done))
        checkpoint.save(folder / "last.pt", first.state_dict())
        # What trained on after the save must not show.
        next(training, None)
        second = start(study, data)
        second.load_state_dict(checkpoint.load(folder / "last.pt"))
        reports += train(second)
        assert without_seconds(reports) == expected_reports
        assert checkpoint.digest(second.state_dict()) == checkpoint.digest(expected)
