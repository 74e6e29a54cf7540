"""Every study has a folder of its own inside `runs`, whatever its name and however many ask for it at once."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.errors import FilesUnavailable, UsageError
from hpsearch.search.folders import MARKER, find_folder, folder_name, make_folder
from hpsearch.search.owner import Owner
from hpsearch.search.storage import Storage
from hpsearch.search.study_attrs import STUDY_ID
from support import STUDIES
from support.in_process import hpsearch_here

ORDINARY = ["lenet", "lenet.2", "mnist10k@tpe+hyperband#1", "tiny@gp:seed=1,a=b#2", "a b", "Zahlen-Übung", "50%"]
ODD = {
    "../../etc": "%2E./../etc".replace("/", "%2F"),
    "/etc": "%2Fetc",
    "..": "%2E.",
    ".": "%2E",
    ".hidden": "%2Ehidden",
    "a/b\\c": "a%2Fb%5Cc",
    "line\nbreak\x00": "line%0Abreak%00",
    "a\udcff": "a%ED%B3%BF",
    "": "%",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_its_folders(name: str) -> None:
    assert folder_name(name) == name


@pytest.mark.parametrize("name", ODD)
def test_any_name_has_a_folder_inside_runs(tmp_path: Path, name: str) -> None:
    assert folder_name(name) == ODD[name]
    folder = make_folder(tmp_path / "runs", name, "some id")
    assert folder.parent == tmp_path / "runs"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert find_folder(tmp_path / "runs", name, "some id") == folder


def test_long_names_have_different_folders(tmp_path: Path) -> None:
    names = ["x" * 300, "x" * 301, "ü" * 300, "😀" * 512]
    folders = [make_folder(tmp_path, name, name) for name in names]
    assert len(set(folders)) == len(names)
    # Room for `.2` and for what else is made of it.
    assert all(len(folder.name.encode()) <= 200 for folder in folders)


def test_names_that_share_a_folders_name_have_folders_of_their_own(tmp_path: Path) -> None:
    assert make_folder(tmp_path, "a/b", "one") == tmp_path / "a%2Fb"
    assert make_folder(tmp_path, "a%2Fb", "two") == tmp_path / "a%2Fb.2"
    assert find_folder(tmp_path, "a/b", "one") == tmp_path / "a%2Fb"
    assert find_folder(tmp_path, "a%2Fb", "two") == tmp_path / "a%2Fb.2"
    assert find_folder(tmp_path, "a/b", "three") is None


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.tex").touch()
    assert make_folder(tmp_path, "tiny", "id") == tmp_path / "tiny.2"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["thesis.tex"]


def test_a_number_that_was_freed_does_not_hide_the_study(tmp_path: Path) -> None:
    for uid in ("one", "two", "three"):
        make_folder(tmp_path, "tiny", uid)
    (tmp_path / "tiny.2" / MARKER).unlink()
    (tmp_path / "tiny.2").rmdir()
    assert make_folder(tmp_path, "tiny", "three") == tmp_path / "tiny.3"


def test_what_a_killed_process_left_does_not_make_a_folder_someone_elses(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / f".{MARKER}.12345.tmp").touch()
    assert make_folder(tmp_path, "tiny", "id") == tmp_path / "tiny"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [MARKER]


def test_what_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(FilesUnavailable, match=r"cannot access .*runs/tiny"):
        make_folder(tmp_path / "runs", "tiny", "id")


def _make(runs: Path, rounds: int, ready: Any, made: Any) -> None:
    for number in range(rounds):
        ready.wait()
        made.put((number, str(make_folder(runs, f"study{number}", f"id{number}"))))


def test_processes_that_start_together_use_the_same_folder(tmp_path: Path) -> None:
    context, processes, rounds = multiprocessing.get_context("fork"), 4, 100
    ready, made = context.Barrier(processes), context.Queue()
    started = [context.Process(target=_make, args=(tmp_path, rounds, ready, made)) for _ in range(processes)]
    for process in started:
        process.start()
    found = {made.get(timeout=60) for _ in range(processes * rounds)}
    for process in started:
        process.join()
    assert len(found) == rounds
    for number, folder in found:
        assert json.loads((Path(folder) / MARKER).read_text()) == {"study": f"study{number}", "id": f"id{number}"}
    assert len(list(tmp_path.iterdir())) == rounds


RUN = ("run", "--study", "tiny", "--n-trials", "1", "--sampler", "random", "--pruner", "none", "--workers", "0")


def test_runs_with_odd_names_stay_in_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    for name in ("../../etc", str(tmp_path / "elsewhere"), "x" * 300):
        assert hpsearch_here(here, *RUN, "--name", name) == 0
        # Of the one study, and of the whole database.
        assert hpsearch_here(here, "status", "--study", name) == 0
        assert f"files in runs/{folder_name(name)}/" in capsys.readouterr().out
        assert (here / "runs" / folder_name(name) / "0" / "best.pt").exists()
    assert hpsearch_here(here, "status") == 0
    assert hpsearch_here(here, "report", "--study", "tiny", "--name", name) == 0
    assert (here / "reports" / folder_name(name) / "summary.md").exists()
    assert len(list((here / "runs").iterdir())) == 3
    assert [path.name for path in tmp_path.rglob("*") if here not in (path, *path.parents)] == ["a"]


def test_a_run_removes_what_dead_writers_left_in_its_folder(tmp_path: Path) -> None:
    assert hpsearch_here(tmp_path, *RUN) == 0
    folder = tmp_path / "runs" / "tiny"
    orphans = [
        folder / ".study.json.1234.tmp",
        folder / "0" / ".params.json.1234.tmp",
        folder / "9" / ".best.pt.9a.tmp",
    ]
    for orphan in orphans:
        orphan.parent.mkdir(exist_ok=True)
        orphan.touch()
    assert hpsearch_here(tmp_path, *RUN, "--n-trials", "2") == 0
    assert not any(orphan.exists() for orphan in orphans)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny"]
    assert (folder / "1" / "best.pt").exists()


def resume_points(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("last*.pt"))


def test_a_resume_point_whose_supervisor_died_too_early_to_remove_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    for n_trials in ("1", "1", "2"):
        assert hpsearch_here(tmp_path, *RUN, "--n-trials", n_trials) == 0
        assert resume_points(folder) == []
        for name in ("last.pt", "last.previous.pt"):
            (folder / "0" / name).touch()
    assert hpsearch_here(tmp_path, *RUN, "--n-trials", "2") == 0
    assert resume_points(folder) == []


def test_a_resume_point_that_another_supervisor_leaves_during_a_run_is_removed(tmp_path: Path) -> None:
    text = (STUDIES / "tiny.py").read_text()
    (tmp_path / "mine.py").write_text(
        f"{text}\nimport dataclasses, pathlib\nzero = pathlib.Path('runs/mine/0')\n"
        "recipe = study.recipe\n"
        "def leaving(space):\n"
        "    if zero.exists():\n"
        "        (zero / 'last.pt').touch()\n"
        "    return recipe(space)\n"
        "study = dataclasses.replace(study, recipe=leaving)\n"
    )
    for n_trials in ("1", "2"):
        run = ("run", "--study", "./mine.py", *RUN[3:], "--n-trials", n_trials)
        assert hpsearch_here(tmp_path, *run) == 0
        assert resume_points(tmp_path / "runs") == []


def test_a_failed_trial_keeps_its_resume_point(tmp_path: Path) -> None:
    assert hpsearch_here(tmp_path, *RUN, "--n-trials", "1") == 0
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/hpsearch.db")
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))
    folder = tmp_path / "runs" / "tiny"
    (folder / "1").mkdir()
    for name in ("last.pt", "last.previous.pt"):
        (folder / "1" / name).touch()
    assert hpsearch_here(tmp_path, *RUN, "--n-trials", "2") == 0
    assert resume_points(folder) == ["1/last.pt"]


def test_a_copy_of_a_study_goes_on_in_a_folder_of_its_own(tmp_path: Path) -> None:
    first, second = (f"sqlite:///{tmp_path}/{name}.db" for name in ("first", "second"))
    assert hpsearch_here(tmp_path, *RUN, "--storage", first) == 0
    storage = Storage(first, Owner.this_process())
    study_id = storage.get_study_id_from_name("tiny")
    # Another supervisor, which is alive, runs the next trial of the first study.
    assert storage.claim(study_id, 2, []) is not None
    optuna.copy_study(from_study_name="tiny", from_storage=first, to_storage=second)
    optuna.copy_study(from_study_name="tiny", from_storage=first, to_storage=first, to_study_name="copied")
    original = {path: path.read_bytes() for path in (tmp_path / "runs" / "tiny").rglob("*") if path.is_file()}
    for arguments in (["--storage", second], ["--storage", first, "--name", "copied"]):
        assert hpsearch_here(tmp_path, *RUN, *arguments, "--n-trials", "2") == 0
    for folder in ("tiny.2", "copied"):
        assert (tmp_path / "runs" / folder / "1" / "best.pt").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "runs" / "tiny").rglob("*") if path.is_file()} == original
    # Once is enough: each goes on where it is.
    for url, name, folder in ((first, "tiny", "tiny"), (second, "tiny", "tiny.2"), (first, "copied", "copied")):
        assert (
            hpsearch_here(tmp_path, *RUN, "--storage", url, "--name", name, "--n-trials", "3", "--timeout", "0.01") == 0
        )
        markers = {path.parent.name for path in (tmp_path / "runs").glob(f"*/{MARKER}")}
        assert markers == {"tiny", "tiny.2", "copied"}
        assert find_folder(tmp_path / "runs", name, uid_of(url, name)) == tmp_path / "runs" / folder


def uid_of(url: str, name: str) -> str:
    uid: str = optuna.load_study(study_name=name, storage=url).user_attrs[STUDY_ID]
    return uid


@pytest.mark.parametrize("name", ["a\udcff", "x" * 513, "two\nlines"])
def test_a_name_that_no_database_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    for command in (RUN, ("compare", "--study", "tiny", "--strategies", "random", "--epoch-budget", "8")):
        with pytest.raises(UsageError, match="at most 512 characters, all of them printable"):
            hpsearch_here(tmp_path, *command, "--name", name)
        assert list(tmp_path.iterdir()) == []
