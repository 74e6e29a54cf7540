"""`hpsearch export`: what is in the files, and that a file that is not whole is refused."""

import dataclasses
import hashlib
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hpsearch import UsageError
from hpsearch.results import open_results
from hpsearch.results.configurations import best_configurations, file_name, read_configuration, write_configuration
from hpsearch.seeding import derive_seed
from support import STUDIES
from support.finished_study import make_study
from support.in_process import hpsearch_here


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose three best configurations have been exported."""
    folder = tmp_path_factory.mktemp("exported")
    make_study(folder, ["budget", "pruned", "patience", "failed", "budget", "budget", None])
    assert hpsearch_here(folder, "export", "--study", "tiny", "--top", "3") == 0
    return folder


def test_the_best_trials_of_the_database_are_exported(exported: Path) -> None:
    assert sorted(path.name for path in (exported / "best").iterdir()) == ["tiny-1.json", "tiny-2.json", "tiny-3.json"]
    query = "SELECT number, value FROM trial_values NATURAL JOIN trials WHERE state = 'COMPLETE' ORDER BY value DESC"
    with closing(sqlite3.connect(exported / "hpsearch.db")) as connection:
        expected = list(connection.execute(query))
        rates = dict(
            connection.execute(
                "SELECT number, param_value FROM trial_params NATURAL JOIN trials WHERE param_name = 'lr'"
            )
        )
    for rank, (number, value) in enumerate(expected[:3], start=1):
        content = json.loads((exported / f"best/tiny-{rank}.json").read_text())
        assert (content["trial"], content["value"]) == (number, value)
        assert content["params"]["lr"] == pytest.approx(rates[number])
        assert ("momentum" in content["params"]) == (content["params"]["optimizer"] == "sgd")
        assert content["trial_seed"] == derive_seed(content["study_seed"], "trial", number)
        assert content["study_digest"] == hashlib.sha256((STUDIES / "tiny.py").read_bytes()).hexdigest()
        assert content["data"]["train"].startswith("1,077 examples")
        assert content["space"]["optimizer"] == "choice sgd, adam"
        assert content["versions"]["torch"]


def test_a_file_reads_back_as_it_was_written(exported: Path, tmp_path: Path) -> None:
    configuration = read_configuration(exported / "best/tiny-1.json")
    write_configuration(tmp_path / "again.json", configuration)
    assert (tmp_path / "again.json").read_bytes() == (exported / "best/tiny-1.json").read_bytes()
    assert read_configuration(tmp_path / "again.json") == configuration


@pytest.mark.parametrize(
    "field", ["trial", "params", "value", "trial_seed", "study_digest", "data", "versions", "digest"]
)
def test_any_change_is_noticed(exported: Path, tmp_path: Path, field: str) -> None:
    content = json.loads((exported / "best/tiny-1.json").read_text())
    content[field] = {**content[field], "lr": 0.5} if isinstance(content[field], dict) else f"{content[field]}1"
    (tmp_path / "changed.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"changed\.json was changed after its export.*hpsearch export"):
        read_configuration(tmp_path / "changed.json")


def test_a_truncated_file_is_noticed_wherever_it_ends(exported: Path, tmp_path: Path) -> None:
    content = (exported / "best/tiny-1.json").read_bytes()
    path = tmp_path / "short.json"
    for size in range(0, len(content.rstrip()), 50):
        path.write_bytes(content[:size])
        with pytest.raises(UsageError, match=r"short\.json is truncated or not JSON"):
            read_configuration(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", "not a configuration"),
        (b'{"params": {}}', "not a configuration"),
        (b"\xff\xfe\x00", "truncated or not JSON"),
        (b"", "truncated or not JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "other.json").write_bytes(content)
    with pytest.raises(UsageError, match=expected) as error:
        read_configuration(tmp_path / "other.json")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read_configuration(path)


def test_equal_configurations_are_exported_once(tmp_path: Path) -> None:
    stored = make_study(tmp_path, ["budget", "budget"])
    study = stored.optuna_study()
    study.add_trial(study.trials[0])
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db")
    found = best_configurations(results, 5)
    assert len(results.trials) == 3
    assert sorted(configuration.trial for configuration in found) == [0, 1]
    assert found[0] != dataclasses.replace(found[0], value=0.0)


def test_fewer_than_asked_for_are_exported_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path, ["budget", "pruned"])
    assert hpsearch_here(tmp_path, "export", "--study", "tiny", "--top", "4", "--out", "few") == 0
    assert [path.name for path in (tmp_path / "few").iterdir()] == ["tiny-1.json"]
    assert "only 1 different complete configuration" in " ".join(capsys.readouterr().err.split())


def test_a_name_that_is_no_file_name_is_changed() -> None:
    assert file_name("lenet@tpe:group=false+asha#3", 1) == "lenet@tpe:group=false+asha#3-1.json"
    assert file_name("a/b c", 2) == "a_b_c-2.json"


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    make_study(tmp_path, ["pruned", "failed"])
    with pytest.raises(UsageError, match="study tiny has no complete trial to export yet: hpsearch run --study tiny"):
        hpsearch_here(tmp_path, "export", "--study", "tiny")
    assert not (tmp_path / "best").exists()
    make_study(tmp_path, ["budget"], name="other")
    with pytest.raises(UsageError, match=r"cannot write to the folder hpsearch\.db/x"):
        hpsearch_here(tmp_path, "export", "--study", "tiny", "--name", "other", "--out", "hpsearch.db/x")


def test_a_study_file_changed_since_the_search_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "tiny.py"
    original = (STUDIES / "tiny.py").read_text()
    original = original.replace("epochs=8", "epochs=1")
    copy.write_text(original.replace("A small MLP", "A little MLP"))
    arguments = ["--study", str(copy), "--n-trials", "1", "--workers", "0"]
    assert hpsearch_here(tmp_path, "run", *arguments) == 0
    assert hpsearch_here(tmp_path, "export", "--study", str(copy)) == 0
    assert "was changed" not in capsys.readouterr().err
    # What the space does not show is pointed out.
    copy.write_text(original)
    assert hpsearch_here(tmp_path, "export", "--study", str(copy)) == 0
    assert "tiny.py has changed since trials of tiny were run" in " ".join(capsys.readouterr().err.split())
    # Another space is not what was searched.
    copy.write_text(original.replace("0.0, 0.5, grid", "0.0, 0.6, grid"))
    with pytest.raises(UsageError, match=r"tiny\.py has changed since study tiny was run: space dropout was float 0"):
        hpsearch_here(tmp_path, "export", "--study", str(copy))


def test_an_export_does_not_wait_for_matplotlib() -> None:
    program = "import sys, hpsearch.cli.export; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False\n"
