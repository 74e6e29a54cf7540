"""The cost of using a trained model: multiply-adds and time of a forward pass. Measured after training, in a moment."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hpsearch.datasets import length
from hpsearch.loading import take
from hpsearch.own_run import OwnRun
from hpsearch.training import Run, forward

# For each latency, forward passes are timed for `SECONDS`, at most `PASSES` of them, and at least `FEWEST` after a
# warm-up unless these take longer than `MOST_SECONDS`.
SECONDS, FEWEST, MOST_SECONDS, PASSES = 0.02, 3, 0.08, 100


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of forward passes in evaluation mode; what cannot be measured is None.

    `multiply_adds` are those of one example, in matrix products, convolutions and attention. `latency_ms` is the median
    time for one example, `batch_latency_ms` that for a batch as in training, both on the device of the run.
    """

    multiply_adds: int | None = None
    latency_ms: float | None = None
    batch_latency_ms: float | None = None


def measure_cost(run: Run | OwnRun) -> Cost:
    """Measure the cost of a run's model on its validation examples; leaves the model in evaluation mode.

    That of a user's own training is not known.
    """
    if isinstance(run, OwnRun):
        return Cost()
    run.model.eval()
    batch = min(run.batch_size, length(run.validation_split))
    return Cost(
        multiply_adds=_or_none(lambda: count_multiply_adds(run.model, _inputs(run, 1))),
        latency_ms=_or_none(lambda: _latency_ms(run, _inputs(run, 1))),
        batch_latency_ms=_or_none(lambda: _latency_ms(run, _inputs(run, batch))),
    )


def _inputs(run: Run, count: int) -> Any:
    inputs, _ = take(run.validation_split, torch.arange(count), run.device)
    return inputs


def _or_none(measure: Callable[[], Any]) -> Any:
    # Whatever a model's forward pass raises here, its training is done.
    try:
        return measure()
    except Exception:
        return None


def count_multiply_adds(model: nn.Module, inputs: Any) -> int | None:
    """Return the multiply-adds of a forward pass, by torch's `FlopCounterMode`, or None if it counts none.

    Element-wise operations are not counted.
    """
    # Imported late: with it torch imports its compiler, which takes seconds, unless an optimiser has done so before.
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), _countable(), FlopCounterMode(display=False) as counter:
        forward(model, inputs)
    return int(counter.get_total_flops()) // 2 or None


@contextmanager
def _countable() -> Iterator[None]:
    """Compute recurrent layers and attention by operations that are counted, instead of all at once."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # Setting the flags, all of them at once, warns of one that this machine may not have.
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _latency_ms(run: Run, inputs: Any) -> float:
    """Return the median time of a forward pass."""
    times = [_timed(run, inputs)]
    while sum(times) < (SECONDS if len(times) > FEWEST else MOST_SECONDS) and len(times) < PASSES:
        times.append(_timed(run, inputs))
    # The first pass is a warm-up.
    return 1000 * statistics.median(times[1:] or times)


def _timed(run: Run, inputs: Any) -> float:
    _synchronize(run.device)
    began = time.perf_counter()
    with torch.no_grad():
        forward(run.model, inputs, run.precision)
    _synchronize(run.device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
