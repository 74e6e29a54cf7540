"""The torture run (`tests/torture.py`), small: kills on SQLite, and an outage of a real PostgreSQL."""

import random
from pathlib import Path

import pytest
from torture import torture

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set")


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    found = torture(tmp_path, trials=12, worker_kills=3, supervisor_kills=1, seed=random.randrange(1000))
    assert not found.lost, "\n".join(found.lines)


def test_an_outage_and_kills_under_two_supervisors_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pgserver", reason="pip install pgserver brings a PostgreSQL")
    found = torture(
        tmp_path, trials=40, worker_kills=1, supervisor_kills=1, supervisors=2, postgres=True, outage=5.0, seed=1
    )
    assert not found.lost, "\n".join(found.lines)
