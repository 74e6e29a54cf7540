"""Who may write in a trial's folder."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hpsearch import checkpoint
from hpsearch.errors import TrialLost
from hpsearch.executors import Ended, InlineExecutor, Reported, Task
from hpsearch.executors.fence import Fence
from hpsearch.study import load_study

STUDIES = Path(__file__).parent / "studies"
PARAMS = {"lr": 0.05, "optimizer": "sgd", "momentum": 0.9, "hidden": 16, "dropout": 0.3}


def test_a_later_claim_shuts_out_the_earlier_one_for_good(tmp_path: Path) -> None:
    early, late = Fence(tmp_path, "study/3", 1), Fence(tmp_path, "study/3", 2)
    early.enter()
    with early.held():
        pass
    late.enter()
    with pytest.raises(TrialLost), early.held():
        raise AssertionError
    with pytest.raises(TrialLost):
        early.enter()
    with late.held():
        pass
    # A fresh worker of the same claim.
    Fence(tmp_path, "study/3", 2).enter()
    with late.held():
        pass


def test_a_claim_of_another_identity_counts_for_nothing(tmp_path: Path) -> None:
    Fence(tmp_path, "other/3", 9).enter()
    ours = Fence(tmp_path, "study/3", 1)
    ours.enter()
    with ours.held():
        pass


def test_a_damaged_claim_is_written_again(tmp_path: Path) -> None:
    (tmp_path / ".claim").write_bytes(b"\x00\xffnonsense")
    ours = Fence(tmp_path, "study/3", 1)
    ours.enter()
    with ours.held():
        pass


def test_a_file_that_was_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    early = Fence(tmp_path, "study/3", 1)
    early.enter()
    checkpoint.save(tmp_path / "last.pt", {"of": 1}, guard=early.held())
    Fence(tmp_path, "study/3", 2).enter()
    with pytest.raises(TrialLost):
        checkpoint.save(tmp_path / "last.pt", {"of": 2}, previous=tmp_path / "last.previous.pt", guard=early.held())
    assert checkpoint.load(tmp_path / "last.pt") == {"of": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", ".claim"}


def _writes(folder: Path, claim: int, count: int) -> None:
    fence = Fence(folder, "study/3", claim)
    fence.enter()
    for number in range(count):
        checkpoint.write_atomically(folder / "file", f"{claim} {number}".encode(), durable=False, guard=fence.held())


def test_a_process_frozen_at_any_moment_never_writes_over_a_later_claim(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    early: Any = context.Process(target=_writes, args=(tmp_path, 1, 1_000_000))
    early.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "file").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(early.pid, signal.SIGSTOP)
    late: Any = context.Process(target=_writes, args=(tmp_path, 2, 10))
    late.start()
    late.join(10)
    os.kill(early.pid, signal.SIGCONT)
    late.join(60)
    early.join(60)
    assert (early.exitcode, late.exitcode) == (1, 0)
    assert (tmp_path / "file").read_text() == "2 9"


def test_a_worker_whose_trial_was_claimed_again_ends_it_and_writes_nothing(tmp_path: Path) -> None:
    study = load_study(str(STUDIES / "tiny.py")).study
    data = study.load_data()

    def submitted(claim: int) -> InlineExecutor:
        executor = InlineExecutor(study, data)
        executor.submit(Task(number=3, params=PARAMS, seed=11, folder=tmp_path, identity="a/3", claim=claim))
        return executor

    early = submitted(1)
    for _ in range(2):
        (event,) = early.events(0.0)
        assert isinstance(event, Reported)
    late = submitted(2)
    for _ in range(3):
        (event,) = late.events(0.0)
        assert isinstance(event, Reported)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("events")}
    events = {path.name for path in tmp_path.glob("events*")}
    (event,) = early.events(0.0)
    assert isinstance(event, Ended)
    assert event.outcome.reason == "lost"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("events")} == before
    assert {path.name for path in tmp_path.glob("events*")} == events
    early.close()
    late.close()
    # One that comes late from the start ends at once.
    (event,) = submitted(1).events(0.0)
    assert isinstance(event, Ended)
    assert event.outcome.reason == "lost"
