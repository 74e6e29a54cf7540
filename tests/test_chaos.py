"""The chaos run (`tests/chaos.py`) under three of its seeds: both databases, one and two supervisors, three pruners."""

from pathlib import Path

import pytest

from chaos import chaos, draw


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [26, 36, 39])
def test_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    plan = draw(seed)
    if plan.database == "postgresql":
        pytest.importorskip("pgserver", reason="pip install pgserver brings a PostgreSQL")
    found = chaos(plan, tmp_path)
    assert not found.lost, str(found)
