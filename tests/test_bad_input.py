"""Bad input, through the real command line: one line that helps, the right exit code, and nothing created."""

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from support import STUDIES
from support.command_line import hpsearch
from support.in_process import exit_code_here

BROKEN = STUDIES / "broken"

# Arguments; what the one line must contain.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "unknown command": (["rnu"], ["No such command 'rnu'"]),
    "unknown option": (["run", "--study", "tiny", "--trials", "5"], ["No such option", "--trials"]),
    "no study": (["run"], ["--study"]),
    "wrong study name": (["run", "--study", "tinny"], ["no study 'tinny'", "did you mean tiny"]),
    "nothing near": (["run", "--study", "zzzzzz"], ["no study 'zzzzzz'", "tiny"]),
    "no such file": (["run", "--study", "./missing.py"], ["no study file missing.py"]),
    "syntax error": (["run", "--study", str(BROKEN / "syntax.py")], ["syntax.py:3", "study = Study(recipe="]),
    "name error": (["run", "--study", str(BROKEN / "names.py")], ["names.py:5", "recipee", "NameError"]),
    "no study in it": (["run", "--study", str(BROKEN / "nothing.py")], ["nothing.py", "no `study`"]),
    "study of wrong type": (["run", "--study", str(BROKEN / "wrong_type.py")], ["`study` is a str"]),
    "wrong value in it": (["run", "--study", str(BROKEN / "epochs.py")], ["epochs.py:10", "epochs", "got 0"]),
    "range turned round": (["run", "--study", str(BROKEN / "range.py")], ["range.py:9", "lr", "low=0.1, high=0.01"]),
    "not a recipe": (["run", "--study", str(BROKEN / "not_a_recipe.py")], ["must return a hpsearch.Recipe", "float"]),
    "data fails": (["run", "--study", str(BROKEN / "data.py")], ["data.py:11", "/nowhere/at/all"]),
    "float without grid": (
        ["run", "--study", str(BROKEN / "no_grid.py"), "--sampler", "grid"],
        ["lr has no grid points", "grid=4"],
    ),
    "no trials": (["run", "--study", "tiny", "--n-trials", "0"], ["--n-trials", "0"]),
    "negative trials": (["run", "--study", "tiny", "--n-trials", "-3"], ["--n-trials", "-3"]),
    "trials not a number": (["run", "--study", "tiny", "--n-trials", "many"], ["--n-trials", "many"]),
    "unknown sampler": (["run", "--study", "tiny", "--sampler", "tep"], ["unknown sampler 'tep'", "tpe", "random"]),
    "unknown sampler option": (
        ["run", "--study", "tiny", "--sampler", "tpe:startup=5"],
        ["startup=5", "n_startup_trials"],
    ),
    "wrong sampler value": (
        ["run", "--study", "tiny", "--sampler", "tpe:n_startup_trials=soon"],
        ["n_startup_trials", "soon"],
    ),
    "unknown pruner": (["run", "--study", "tiny", "--pruner", "axe"], ["unknown pruner 'axe'", "median"]),
    "wrong pruner value": (
        ["run", "--study", "tiny", "--pruner", "median:n_startup_trials=-1"],
        ["n_startup_trials", "-1"],
    ),
    "trials of 5,000 digits": (
        ["run", "--study", "tiny", "--n-trials", "9" * 5000],
        ["--n-trials", "a whole number of at least 1", "..."],
    ),
    "no time": (["run", "--study", "tiny", "--timeout", "0"], ["--timeout", "greater than 0", "'0'"]),
    "time without a number": (["run", "--study", "tiny", "--timeout", "nan"], ["--timeout", "seconds", "'nan'"]),
    "time without end": (["run", "--study", "tiny", "--trial-timeout", "inf"], ["--trial-timeout", "'inf'"]),
    "outage without end": (["run", "--study", "tiny", "--outage", "inf"], ["--outage", "of at least 0", "'inf'"]),
    "port out of range": (["dashboard", "--port", "65536"], ["--port", "from 0 to 65535", "65536"]),
    "sampler nested too deep": (
        ["run", "--study", "tiny", "--sampler", "tpe:n_startup_trials=" + "[" * 100_000],
        ["n_startup_trials must be a whole number", "..."],
    ),
    "pruner nested too deep": (
        ["run", "--study", "tiny", "--pruner", "median:n_startup_trials=" + '{"a":' * 20_000],
        ["n_startup_trials must be a whole number", "..."],
    ),
    "number of 5,000 digits": (["enqueue", "--study", "tiny", "lr=" + "9" * 5000], ["lr must be a number", "..."]),
    "number of 4,000 digits": (["enqueue", "--study", "tiny", "lr=" + "9" * 4000], ["lr must be from 0.001", "..."]),
    "value nested too deep": (["enqueue", "--study", "tiny", "hidden=" + "[" * 100_000], ["hidden must be", "..."]),
    "negative workers": (["run", "--study", "tiny", "--workers", "-1"], ["--workers", "-1"]),
    "unknown device": (["run", "--study", "tiny", "--device", "abacus"], ["abacus", "cpu"]),
    "device that is not there": (["run", "--study", "tiny", "--device", "cuda:99"], ["cuda:99", "this machine"]),
    "no URL": (["run", "--study", "tiny", "--storage", "hpsearch"], ["bad storage URL", "sqlite:///"]),
    "unknown database": (["run", "--study", "tiny", "--storage", "oracle9://x/y"], ["oracle9", "sqlite:///"]),
    "unsupported database": (["run", "--study", "tiny", "--storage", "mssql://x/y"], ["mssql", "not supported"]),
    "in memory": (["run", "--study", "tiny", "--storage", "sqlite://"], ["in memory", "sqlite:///FILE"]),
    "in memory by a URI": (
        ["run", "--study", "tiny", "--storage", "sqlite:///file:x?mode=memory&uri=true"],
        ["SQLite URI", "not supported", "sqlite:///FILE"],
    ),
    "exits": (["run", "--study", str(BROKEN / "exits.py")], ["exits.py:3", "sys.exit(0)", "SystemExit"]),
    "changes folder": (
        ["run", "--study", str(BROKEN / "changes_folder.py")],
        ["changes_folder.py", "remove os.chdir", "Path(__file__).parent"],
    ),
    "changes folder for its data": (
        ["run", "--study", str(BROKEN / "changes_folder_for_data.py")],
        ["changes_folder_for_data.py", "remove os.chdir"],
    ),
    "missing folder": (
        ["run", "--study", "tiny", "--storage", "sqlite:////no/such/folder/x.db"],
        ["/no/such/folder", "does not exist"],
    ),
    "SQLite with a user": (
        ["run", "--study", "tiny", "--storage", "sqlite://user:S3cret@/x"],
        ["SQLite is a file without user or host", "sqlite:///FILE", "user:***@"],
    ),
    "storage is a folder": (["run", "--study", "tiny", "--storage", "sqlite:///."], ["is a folder"]),
    "server away": (
        ["run", "--study", "tiny", "--storage", "postgresql://me:S3cret@127.0.0.1:9/x"],
        ["me:***@127.0.0.1:9", "cannot use the database"],
    ),
    "status without a database": (["status"], ["no database hpsearch.db", "hpsearch run"]),
    "dashboard without a database": (["dashboard", "--port", "0"], ["no database hpsearch.db"]),
    "check of a wrong name": (["check", "--study", "tinny"], ["did you mean tiny"]),
    "check of a broken recipe": (["check", "--study", str(BROKEN / "range.py")], ["range.py:9", "lr"]),
}


# Which are seen through a real process too.
REAL = ("unknown option", "wrong study name", "name error", "unknown sampler", "server away")


@pytest.mark.parametrize("case", CASES)
def test_one_line_that_helps(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, parts = CASES[case]
    code = exit_code_here(tmp_path, *arguments)
    printed = capsys.readouterr()
    check(code, printed.out, printed.err, parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", REAL)
def test_one_line_of_a_process(case: str, tmp_path: Path) -> None:
    arguments, parts = CASES[case]
    done = hpsearch(*arguments, cwd=tmp_path)
    check(done.returncode, done.stdout, done.stderr, parts)
    assert list(tmp_path.iterdir()) == []


def check(code: int, out: str, err: str, parts: list[str]) -> None:
    assert code == 2, err
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("hpsearch: ")
    for part in parts:
        assert part in lines[0], lines[0]
    assert "S3cret" not in err


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two trials."""
    folder = tmp_path_factory.mktemp("studied")
    done = hpsearch("run", "--study", "tiny", "--n-trials", "2", "--workers", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def refused(folder: Path, *arguments: str) -> str:
    done = hpsearch(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_another_seed_is_refused(studied: Path) -> None:
    said = refused(studied, "run", "--study", "tiny", "--n-trials", "3", "--seed", "8")
    assert "seed was 0, is now 8" in said
    assert "--fresh" in said
    assert "--name" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"lr", 1e-3, 1.0', '"lr", 1e-4, 1.0', "space lr was float 0.001 .. 1 log, is now float 0.0001 .. 1 log"),
        (
            '["sgd", "adam"]',
            '["sgd", "adam", "rmsprop"]',
            "optimizer was choice sgd, adam, is now choice sgd, adam, rms",
        ),
        ('"dropout", 0.0', '"drop", 0.0', "space drop is new"),
        ("size=8)", "size=8, seed=1)", "data train was 1,077 examples"),
    ],
)
def test_a_changed_study_is_refused_with_the_difference(
    studied: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (STUDIES / "tiny.py").read_text()
    assert old in text
    (tmp_path / "tiny.py").write_text(text.replace(old, new))
    line = refused(studied, "run", "--study", str(tmp_path / "tiny.py"), "--n-trials", "3")
    assert said in line
    assert "--fresh" in line


def test_a_study_of_another_tool_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/hpsearch.db", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "made by another tool" in refused(tmp_path, "run", "--study", "tiny")
    optuna.create_study(study_name="down", storage=f"sqlite:///{tmp_path}/hpsearch.db", direction="minimize")
    assert "does not maximise its objective" in refused(tmp_path, "run", "--study", "tiny", "--name", "down")


def test_foreign_files_are_left_as_they_are(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("my notes, not a database at all\n" * 50)
    before = text.read_bytes()
    assert "is not a SQLite database" in refused(tmp_path, "run", "--study", "tiny", "--storage", "sqlite:///text.db")
    assert text.read_bytes() == before
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = other.read_bytes()
    said = refused(tmp_path, "run", "--study", "tiny", "--storage", "sqlite:///other.db")
    assert "another program" in said
    assert "recipes" in said
    assert other.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.db", "text.db"]


def test_an_old_schema_names_the_upgrade_command(tmp_path: Path) -> None:
    optuna.create_study(study_name="old", storage=f"sqlite:///{tmp_path}/hpsearch.db")
    with closing(sqlite3.connect(tmp_path / "hpsearch.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    said = refused(tmp_path, "run", "--study", "tiny")
    assert "optuna storage upgrade --storage sqlite:///hpsearch.db" in said


def test_status_of_a_wrong_name_lists_the_right_ones(studied: Path) -> None:
    said = refused(studied, "status", "--study", "tinny")
    assert "no study 'tinny'" in said
    assert "it has tiny" in said


def test_a_taken_port_is_named(studied: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be used" in refused(studied, "dashboard", "--port", port)
