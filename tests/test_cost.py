"""What a trained model costs: multiply-adds counted by hand, and latencies by a clock that is set."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpsearch import MLP, SGD, Dataset, LeNet, Recipe, Split, Study, cost
from hpsearch.cost import Cost, count_multiply_adds, measure_cost
from hpsearch.training import Run


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (MLP(inputs=64, hidden=(32,)), (1, 8, 8), 64 * 32 + 32 * 10),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 10, 10), 8 * 8 * 8 * 2 * 9),
        # Two of its layers would be computed by one operation each, which is not counted.
        (nn.LSTM(10, 20, batch_first=True), (5, 10), 5 * 4 * 20 * (10 + 20)),
        (
            nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True),
            (5, 16),
            5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16,
        ),
        (nn.ReLU(), (3,), None),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(model: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert count_multiply_adds(model.eval(), torch.randn(1, *shape)) == expected
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled  # type: ignore[attr-defined]


class Sleeps(nn.Module):
    """A model that takes a millisecond, and two for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        passes.append((len(inputs), self.training))
        clock[0] += 0.001 + 0.002 * len(inputs)
        return self.layer(inputs.flatten(1))


passes: list[tuple[int, bool]] = []
clock = [0.0]


def a_run(data: Dataset, model: Callable[[], nn.Module], batch_size: int = 16) -> Run:
    def recipe(space: Any) -> Recipe:
        return Recipe(model=model(), optimizer=SGD(lr=0.1), batch_size=batch_size)

    return Run(Study(recipe=recipe, dataset=lambda: data), {}, data, seed=0)


def test_latencies_are_those_of_one_example_and_of_a_batch(
    few_digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    passes.clear()
    found = measure_cost(a_run(few_digits, Sleeps))
    assert found.multiply_adds == 640
    assert found.latency_ms == pytest.approx(3)
    assert found.batch_latency_ms == pytest.approx(33)
    assert not any(training for _, training in passes)
    # Each until a given time is over, and in this order: for the multiply-adds, one example, a batch.
    assert passes == [(1, False)] * 8 + [(16, False)] * 3


def test_it_takes_a_moment(few_digits: Dataset) -> None:
    run = a_run(few_digits, lambda: MLP(inputs=64, hidden=(16,)))
    measure_cost(run)
    began = time.perf_counter()
    found = measure_cost(run)
    assert time.perf_counter() - began < 0.5
    assert found.latency_ms is not None
    assert 0 < found.latency_ms < 100


def test_what_cannot_be_measured_is_none(few_digits: Dataset) -> None:
    class OnlyBatches(MLP):
        def forward(self, inputs: Tensor) -> Tensor:
            assert len(inputs) > 1
            return super().forward(inputs)

    found = measure_cost(a_run(few_digits, lambda: OnlyBatches(inputs=64)))
    assert found.batch_latency_ms is not None
    assert replace(found, batch_latency_ms=None) == Cost()


def test_a_larger_model_costs_more(few_digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "SECONDS", 0.1)
    assert isinstance(few_digits.train, Split)
    small, large = (
        measure_cost(a_run(few_digits, lambda width=width: MLP(inputs=64, hidden=(width,)), batch_size=60))  # type: ignore[misc]
        for width in (8, 8000)
    )
    assert large.multiply_adds == 1000 * (small.multiply_adds or math.nan)
    assert (large.batch_latency_ms or 0) > (small.batch_latency_ms or math.inf)
    assert count_multiply_adds(LeNet(width=1).eval(), torch.randn(1, 1, 28, 28)) == 416_520
