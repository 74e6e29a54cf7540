import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from hpsearch.seeding import seeded

Draw = tuple[float, float, float, float]


def draw() -> Draw:
    return torch.rand(1).item(), float(torch.randn(1)), float(np.random.rand()), random.random()


def draw_under(seed: int, device: torch.device | None = None) -> Draw:
    with seeded(seed, device):
        return draw()


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_equal_seeds_draw_alike_whatever_was_drawn_before(seed: int) -> None:
    first = draw_under(seed)
    draw()
    assert draw_under(seed) == first
    assert draw_under(seed, torch.device("cpu")) == first
    assert all(a != b for a, b in zip(first, draw_under(seed - 1 if seed else 1), strict=True))


def test_torch_draws_what_manual_seed_gives() -> None:
    expected = torch.Generator().manual_seed(5)
    with seeded(5):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=expected))


def test_the_process_draws_on_as_if_nothing_had_happened() -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = draw()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    # Held, since what is garbage cleans up after itself.
    inside = seeded(3)
    with inside:
        draw()
    assert draw() == expected


def test_nor_does_an_error_change_what_is_drawn_after_it() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1).item()
    torch.manual_seed(1)
    before, before_numpy = random.getstate(), np.random.get_state()[1].tolist()
    with suppress(ZeroDivisionError), seeded(3):
        draw()
        _ = 1 / 0
    assert torch.rand(1).item() == expected
    assert random.getstate() == before
    assert np.random.get_state()[1].tolist() == before_numpy


def test_one_inside_another() -> None:
    with seeded(1):
        whole = draw(), draw()
    with seeded(1):
        first = draw()
        draw_under(2)
        assert (first, draw()) == whole
