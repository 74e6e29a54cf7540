"""What a run does with trials that fail, hang, diverge or die, and with a disk or a database that gives out."""

import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpsearch.search.stored_study import open_for_run
from hpsearch.study import load_study
from support import STUDIES
from support.command_line import Started, hpsearch, states, wait_for

MOODY = ("run", "--study", "moody", "--sampler", "random", "--workers", "1")
TINY = ("run", "--study", "tiny", "--sampler", "random", "--pruner", "none", "--workers", "1")


def enqueue(folder: Path, *moods: str) -> optuna.Study:
    """Make the study and put trials of these moods into its queue."""
    study_file = load_study(str(STUDIES / "moody.py"))
    data, url = study_file.study.load_data(), f"sqlite:///{folder}/hpsearch.db"
    open_for_run(url, study_file, data, name="moody", seed=0, runs=folder / "runs")
    study = optuna.load_study(study_name="moody", storage=url)
    for mood in moods:
        study.enqueue_trial({"mood": mood, "lr": 0.05})
    return study


def test_trials_that_fail_do_not_count_and_the_run_goes_on(tmp_path: Path) -> None:
    study = enqueue(tmp_path, "fine", "raises", "no recipe", "diverges", "diverges at once", "dies", "fine")
    run = hpsearch(*MOODY, "--n-trials", "4", "--max-retries", "1", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    trials = {
        trial.params["mood"]: trial
        for trial in study.get_trials()
        if trial.state.is_finished() and "mood" in trial.params
    }
    assert (trials["raises"].state.name, trials["raises"].user_attrs["reason"]) == ("FAIL", "failed")
    assert "the user's model is broken" in trials["raises"].user_attrs["error"]
    assert "moody.py" in trials["raises"].user_attrs["error"]
    assert "this configuration makes no sense" in trials["no recipe"].user_attrs["error"]
    # The worst of results, which samplers see.
    for mood in ("diverges", "diverges at once"):
        found = trials[mood]
        assert (found.state.name, found.value, found.user_attrs["reason"]) == ("COMPLETE", 0.0, "diverged")
    assert trials["diverges"].user_attrs["best_value"] == max(trials["diverges"].intermediate_values.values())
    assert trials["diverges at once"].user_attrs["best_value"] is None
    assert trials["dies"].state.name == "FAIL"
    assert "SIGABRT" in trials["dies"].user_attrs["error"]
    assert trials["dies"].user_attrs["retries"] == 1
    assert trials["fine"].state.name == "COMPLETE"
    counts = states(tmp_path / "hpsearch.db", "moody")
    assert counts["COMPLETE"] == 4
    assert counts["RUNNING"] == 0
    # Whatever a trial had learned is in its best weights or, where it failed, in its resume point.
    learned = [trial for trial in study.get_trials() if trial.intermediate_values and trial.state.is_finished()]
    assert {trial.state.name for trial in learned} == {"COMPLETE", "FAIL"}
    for trial in learned:
        names = {path.name for path in (tmp_path / "runs/moody" / str(trial.number)).glob("*.pt")}
        assert names == ({"last.pt"} if trial.state.name == "FAIL" else {"best.pt"})


def test_a_hung_trial_is_restarted_and_then_given_up(tmp_path: Path) -> None:
    study = enqueue(tmp_path, "fine", "hangs")
    run = hpsearch(
        *MOODY, "--n-trials", "2", "--trial-timeout", "4", "--max-retries", "1", "--timeout", "40", cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    hung = [trial for trial in study.get_trials() if trial.params.get("mood") == "hangs"]
    assert hung[0].state.name == "FAIL"
    assert "--trial-timeout" in hung[0].user_attrs["error"]
    assert "given up after 1 retry" in hung[0].user_attrs["error"]


def test_a_run_stops_when_the_first_five_trials_fail(tmp_path: Path) -> None:
    enqueue(tmp_path, *["raises"] * 7)
    run = hpsearch(*MOODY, "--n-trials", "20", cwd=tmp_path)
    assert run.returncode == 1
    assert "5 trials of this run" in run.stderr
    assert "ValueError: the user's model is broken" in run.stderr
    assert states(tmp_path / "hpsearch.db", "moody") == Counter({"FAIL": 5, "WAITING": 2})


def test_divergence_is_a_result_and_no_failure_in_a_row(tmp_path: Path) -> None:
    enqueue(tmp_path, *["diverges at once"] * 12)
    run = hpsearch(*MOODY, "--n-trials", "12", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert states(tmp_path / "hpsearch.db", "moody") == Counter({"COMPLETE": 12})
    assert "diverged in epoch 1" in run.stderr
    assert "No trial is complete yet" in run.stdout


def test_a_timeout_ends_the_run_with_everything_saved(tmp_path: Path) -> None:
    run = hpsearch(*TINY, "--n-trials", "1000", "--timeout", "2", cwd=tmp_path)
    assert run.returncode == 0
    assert "the time limit of 2 s is reached; everything is saved" in run.stderr
    assert states(tmp_path / "hpsearch.db", "tiny")["RUNNING"] == 0


def test_keep_best_keeps_the_weights_of_the_best(tmp_path: Path) -> None:
    run = hpsearch(*TINY, "--n-trials", "6", "--keep-best", "2", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/hpsearch.db")
    order = sorted(study.get_trials(), key=lambda trial: (-(trial.value or 0), trial.number))
    kept = {int(path.parent.name) for path in (tmp_path / "runs" / "tiny").glob("*/best.pt")}
    assert kept == {trial.number for trial in order[:2]}


def test_n_trials_counts_all_runs_of_a_study_together(tmp_path: Path) -> None:
    assert hpsearch(*TINY, "--n-trials", "2", cwd=tmp_path).returncode == 0
    again = hpsearch(*TINY, "--n-trials", "2", cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing is left to do" in again.stderr
    assert hpsearch(*TINY, "--n-trials", "3", cwd=tmp_path).returncode == 0
    assert states(tmp_path / "hpsearch.db", "tiny") == Counter({"COMPLETE": 3})
    fresh = hpsearch(*TINY, "--n-trials", "1", "--fresh", cwd=tmp_path)
    assert fresh.returncode == 0
    assert states(tmp_path / "hpsearch.db", "tiny.2") == Counter({"COMPLETE": 1})
    assert states(tmp_path / "hpsearch.db", "tiny") == Counter({"COMPLETE": 3})


def test_two_databases_do_not_mix_their_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = hpsearch(
            *TINY,
            "--n-trials",
            "1",
            "--seed",
            (name == "a" and "1") or "2",
            "--storage",
            f"sqlite:///{name}.db",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "tiny" / "0" / "best.pt").exists()
    assert (tmp_path / "runs" / "tiny.2" / "0" / "best.pt").exists()


def test_a_lock_held_by_another_program_is_waited_out(tmp_path: Path) -> None:
    run = Started(*TINY, "--n-trials", "6", cwd=tmp_path)
    wait_for(lambda: states(tmp_path / "hpsearch.db", "tiny")["COMPLETE"] >= 1)
    with closing(sqlite3.connect(tmp_path / "hpsearch.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(8)
        connection.execute("ROLLBACK")
    assert run.wait() == 0
    assert "the database does not answer (database is locked)" in run.err.read_text()
    assert "the database is back" in run.err.read_text()
    whole(tmp_path, 6)


def whole(folder: Path, trials: int) -> None:
    """Every trial is complete and has every report."""
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/hpsearch.db")
    found: list[Any] = study.get_trials()
    assert [trial.state.name for trial in found] == ["COMPLETE"] * trials
    assert all(len(trial.intermediate_values) == trial.user_attrs["intervals"] for trial in found)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_costs_nothing(tmp_path: Path, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1000 * 1024))
    run = hpsearch(*TINY, "--n-trials", "3", "--runs", str(small_disk / "runs"), cwd=tmp_path)
    assert run.returncode == 1
    assert "no space left" in run.stderr
    assert "Traceback" not in run.stderr
    counts = states(tmp_path / "hpsearch.db", "tiny")
    assert counts["RUNNING"] == counts["FAIL"] == 0
    filler.unlink()
    again = hpsearch(*TINY, "--n-trials", "3", "--runs", str(small_disk / "runs"), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    whole(tmp_path, 3)


def test_a_folder_that_cannot_be_written_ends_the_run_and_costs_nothing(tmp_path: Path, small_disk: Path) -> None:
    options = ("--n-trials", "4", "--workers", "2", "--runs", str(small_disk / "runs"))
    assert hpsearch(*TINY, *options, "--n-trials", "1", cwd=tmp_path).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = hpsearch(*TINY, *options, cwd=tmp_path)
    assert run.returncode == 1
    assert "hpsearch: cannot access" in run.stderr
    assert "Read-only file system" in run.stderr
    assert "Traceback" not in run.stderr
    counts = states(tmp_path / "hpsearch.db", "tiny")
    assert counts["RUNNING"] == counts["FAIL"] == 0
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    again = hpsearch(*TINY, *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    whole(tmp_path, 4)


def test_a_full_disk_under_the_database_ends_the_run_and_costs_nothing(tmp_path: Path, small_disk: Path) -> None:
    database = small_disk / "hpsearch.db"
    storage = ("--storage", f"sqlite:///{database}")
    run = Started(*TINY, "--n-trials", "6", "--outage", "3", *storage, cwd=tmp_path)
    wait_for(lambda: states(database, "tiny")["COMPLETE"] >= 1)
    filler = small_disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1k"], check=False, capture_output=True)
    assert run.wait() == 1
    assert "the database did not answer for" in run.err.read_text()
    filler.unlink()
    again = hpsearch(*TINY, "--n-trials", "6", *storage, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert states(database, "tiny") == Counter({"COMPLETE": 6})
