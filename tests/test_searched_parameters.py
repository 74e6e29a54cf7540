"""Every parameter that a study in `studies/` searches changes what is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch import Dataset, digits
from hpsearch.space import Choice, Float, Parameter, Params, Space, describe
from hpsearch.study import Study, load_study
from hpsearch.training import Run, train

STUDIES = Path(__file__).parent.parent / "studies"
# Those that train LeNet on images of 28x28: digits stand in for data sets that are not at hand everywhere.
NAMES = ["lenet", "mnist", "fashion"]


class _At(Space):
    """Answers with `params`, and with the middle of every other parameter."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._fixed = params

    def _pick(self, parameter: Parameter) -> Any:
        return self._fixed.get(parameter.name, _values(parameter)[1])


def _values(parameter: Parameter) -> tuple[Any, Any]:
    """Return two values of a parameter, of different effect in a few steps."""
    if isinstance(parameter, Choice):
        first, *_, last = parameter.options
        return first, last
    if isinstance(parameter, Float):
        low, high = parameter.low, parameter.high
        # Not an end, which may have a meaning of its own, as a momentum of zero has.
        return tuple(low * (high / low) ** at if parameter.log else low + (high - low) * at for at in (1 / 3, 2 / 3))
    return parameter.low, parameter.high


@pytest.fixture(scope="module")
def few() -> Dataset:
    data = digits()
    few = [type(split)(*(part[:256] for part in split)) for split in (data.train, data.validation)]  # type: ignore[union-attr, misc]
    return Dataset(train=few[0], validation=few[1], test=None, classes=data.classes)


def weights(study: Study, params: Params, few: Dataset) -> torch.Tensor:
    run = Run(study, params, few, seed=0)
    # In an epoch of a few steps: a schedule over another number of epochs has other step sizes.
    next(train(run))
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


@pytest.mark.parametrize("name", NAMES)
def test_every_searched_parameter_changes_the_weights(name: str, few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    study = load_study(str(STUDIES / f"{name}.py")).study
    found = describe(study.trace)
    assert "momentum" in found
    for name, described in found.items():
        condition = {other: values[0] for other, values in described.conditions.items()}
        trained = []
        for value in _values(described.parameter):
            space = _At({**condition, name: value})
            study.trace(space)
            assert name in space.params
            trained.append(weights(study, space.params, few))
        same = trained[0].shape == trained[1].shape and torch.equal(*trained)
        assert not same, f"{name} changes nothing"
