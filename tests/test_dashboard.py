"""The dashboard over HTTP: it shows names and notes, and refuses what would change a study with a reason."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsearch.dashboard import make_server, serve_in_background
from hpsearch.search.stored_study import StoredStudy
from support.finished_study import make_study


@pytest.fixture
def stored(tmp_path: Path) -> StoredStudy:
    return make_study(tmp_path, ["budget", "pruned", "failed", "budget", None])


@pytest.fixture
def address(stored: StoredStudy, tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard on the study."""
    server = make_server(f"sqlite:///{tmp_path}/hpsearch.db", 0, tmp_path / "runs")
    thread = serve_in_background(server)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def get(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def refused(request: urllib.request.Request) -> tuple[int, str | None, dict[str, str]]:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    with error.value as answer:
        return answer.code, answer.headers["Content-Type"], json.load(answer)


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/api/studies/1"), ("PUT", "/api/studies/1/note")])
def test_a_request_that_would_change_something_is_refused_as_json(address: str, method: str, path: str) -> None:
    code, kind, body = refused(urllib.request.Request(address + path, method=method, data=b"{}"))
    assert (code, kind) == (405, "application/json")
    assert "read-only" in body["reason"]
    assert len(get(f"{address}/api/studies")["study_summaries"]) == 1


def test_a_request_by_another_host_name_is_refused_as_json(address: str) -> None:
    code, _, body = refused(urllib.request.Request(f"{address}/api/studies", headers={"Host": "evil.example"}))
    assert code == 421
    assert body["reason"]


def test_the_value_has_its_name(address: str, stored: StoredStudy) -> None:
    assert stored.optuna_study().metric_names == ["validation accuracy"]
    assert get(f"{address}/api/studies/{stored.study_id}")["objective_names"] == ["validation accuracy"]


def test_the_study_and_each_trial_have_a_note(address: str, stored: StoredStudy) -> None:
    best = stored.best_trial()
    assert best is not None
    weights = stored.folder / str(best.number) / "best.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"")
    shown = get(f"{address}/api/studies/{stored.study_id}")
    note = shown["note"]["body"]
    assert f"Best trial: {best.number}, validation accuracy {best.value:.4f} after epoch" in note
    assert f"`{weights}`" in note
    assert "no longer there" not in note
    assert "hpsearch export --study tiny --storage sqlite:///" in note
    notes = [trial["note"]["body"] for trial in shown["trials"]]
    assert f"after epoch {best.user_attrs['best_interval']}; ended by: budget" in notes[best.number]
    assert f"tensorboard --logdir {stored.folder}/1" in notes[1]
    assert "no longer there" in notes[1]
    assert "ValueError: the user's model is broken" in notes[2]
    assert "hpsearch run --study tiny" in notes[4]


def test_a_fresh_study_is_named_beside_its_file(tmp_path: Path) -> None:
    stored = make_study(tmp_path, [], name="tiny.2")
    server = make_server(f"sqlite:///{tmp_path}/hpsearch.db", 0, tmp_path / "runs")
    thread = serve_in_background(server)
    note = get(f"http://127.0.0.1:{server.server_port}/api/studies/{stored.study_id}")["note"]["body"]
    server.shutdown()
    thread.join()
    server.server_close()
    assert "No trial is complete yet" in note
    assert "hpsearch run --study tiny --name tiny.2" in note
