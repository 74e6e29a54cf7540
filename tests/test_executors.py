"""One contract for every executor, and what only processes can do."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from hpsearch import MLP, CrossEntropy, EarlyStopping, checkpoint, datasets
from hpsearch.datasets import Dataset
from hpsearch.executors import (
    Died,
    Ended,
    Event,
    Executor,
    InlineExecutor,
    LocalExecutor,
    Outcome,
    Reported,
    Task,
    Warned,
)
from hpsearch.executors.local import own_device
from hpsearch.executors.task import work
from hpsearch.study import StudyFile, load_study
from hpsearch.training import Run, evaluate, train

STUDIES = Path(__file__).parent / "studies"
PARAMS = {"lr": 0.05, "optimizer": "sgd", "momentum": 0.9, "hidden": 16, "dropout": 0.3}
Make = Callable[[str], Executor]


@pytest.fixture(params=["inline", "local"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """A function that starts an executor on a study of tests/studies."""
    made: list[Executor] = []

    def start(name: str) -> Executor:
        study_file = load_study(str(STUDIES / f"{name}.py"))
        data = study_file.study.load_data()
        executor = _local(study_file, data) if request.param == "local" else InlineExecutor(study_file.study, data)
        made.append(executor)
        return executor

    yield start
    for executor in made:
        executor.close()


def _local(study_file: StudyFile, data: Dataset) -> LocalExecutor:
    return LocalExecutor(study_file, data, workers=1)


@pytest.fixture
def local() -> Iterator[Make]:
    made = []

    def start(name: str) -> Executor:
        study_file = load_study(str(STUDIES / f"{name}.py"))
        made.append(_local(study_file, study_file.study.load_data()))
        return made[-1]

    yield start
    for executor in made:
        executor.close()


def task(folder: Path, params: dict[str, Any] | None = None, **changes: Any) -> Task:
    return Task(number=3, params=params or PARAMS, seed=11, folder=folder, **({"identity": "a/3"} | changes))


def drive(
    executor: Executor, on_report: Callable[[Reported], str | None] = lambda event: "continue"
) -> tuple[list[Event], Outcome | None]:
    """Serve an executor until its task ends or dies; `on_report` returns the verdict, or None to say nothing."""
    events: list[Event] = []
    while True:
        for event in executor.events(0.1):
            events.append(event)
            if isinstance(event, Ended):
                return events, event.outcome
            if isinstance(event, Died):
                return events, None
            if isinstance(event, Reported) and (verdict := on_report(event)):
                executor.reply(event.number, verdict)  # type: ignore[arg-type]


def reports(events: list[Event]) -> list[dict[str, Any]]:
    rows = [event.report.as_row() for event in events if isinstance(event, Reported)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Outcome, dict[str, Any]]:
    """Reports, outcome and best weights of the task, never interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study_file = load_study(str(STUDIES / "tiny.py"))
    executor = _local(study_file, study_file.study.load_data())
    executor.submit(task(folder))
    events, outcome = drive(executor)
    executor.close()
    assert outcome is not None
    return reports(events), outcome, checkpoint.load(folder / "best.pt")


def assert_same_end(
    undisturbed: tuple[list[dict[str, Any]], Outcome, dict[str, Any]],
    rows: list[dict[str, Any]],
    outcome: Outcome | None,
    folder: Path,
) -> None:
    """The history, the outcome and the best weights are those of the undisturbed task, bit for bit."""
    assert outcome is not None
    assert rows == undisturbed[0]
    assert (outcome.reason, outcome.best_value, outcome.best_interval) == (
        undisturbed[1].reason,
        undisturbed[1].best_value,
        undisturbed[1].best_interval,
    )
    best = checkpoint.load(folder / "best.pt")
    assert best["validation_accuracy"] == undisturbed[2]["validation_accuracy"]
    for name, tensor in undisturbed[2]["model"].items():
        assert torch.equal(best["model"][name], tensor), name
    lines = (folder / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows)


def test_a_task_trains_to_its_end_and_leaves_its_files(make: Make, tmp_path: Path, undisturbed: Any) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    rows = reports(events)
    assert_same_end(undisturbed, rows, outcome, tmp_path)
    assert outcome is not None
    assert outcome.best_value == max(row["validation_accuracy"] for row in rows)
    assert outcome.parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert json.loads((tmp_path / "params.json").read_text())["params"] == PARAMS
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_pruned_task_keeps_what_was_reported(make: Make, tmp_path: Path, undisturbed: Any) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path))
    events, outcome = drive(executor, lambda event: "prune" if event.report.interval == 3 else "continue")
    assert outcome is not None
    assert (outcome.reason, outcome.intervals) == ("pruned", 3)
    assert reports(events) == undisturbed[0][:3]
    assert checkpoint.load(tmp_path / "best.pt")["interval"] == outcome.best_interval


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_stopped_task_goes_on_as_if_never_stopped(make: Make, tmp_path: Path, undisturbed: Any, after: int) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path))

    def stop(event: Reported) -> str:
        if event.report.interval == after:
            executor.stop()
        return "continue"

    events, outcome = drive(executor, stop)
    assert outcome is not None
    assert outcome.reason == "interrupted"
    assert after <= len(reports(events)) <= after + 1
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    assert_same_end(undisturbed, reports(events), outcome, tmp_path)


def test_an_ended_task_resubmitted_gives_the_same_outcome_without_training(make: Make, tmp_path: Path) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path))
    _, first = drive(executor)
    best = (tmp_path / "best.pt").stat().st_mtime_ns
    executor.submit(task(tmp_path))
    _, second = drive(executor)
    assert second == first
    assert (tmp_path / "best.pt").stat().st_mtime_ns == best


def test_files_of_another_trial_are_not_resumed(make: Make, tmp_path: Path, undisturbed: Any) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path, {**PARAMS, "hidden": 8}, identity="b/3"))
    drive(executor, lambda event: "prune")
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    assert_same_end(undisturbed, reports(events), outcome, tmp_path)


@pytest.mark.parametrize("damaged", [["last.pt"], ["last.pt", "last.previous.pt"]])
def test_a_damaged_checkpoint_is_recognised_and_made_good(
    make: Make, tmp_path: Path, undisturbed: Any, damaged: list[str]
) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path))

    def stop(event: Reported) -> str:
        if event.report.interval == 4:
            executor.stop()
        return "continue"

    drive(executor, stop)
    for name in damaged:
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (tmp_path / name).write_bytes(content)
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == len(damaged)
    assert all("damaged" in warning for warning in warnings)
    assert_same_end(undisturbed, reports(events), outcome, tmp_path)


def test_an_exception_in_the_users_model_fails_the_trial_with_its_traceback(make: Make, tmp_path: Path) -> None:
    executor = make("moody")
    executor.submit(task(tmp_path, {"mood": "raises", "lr": 0.1}))
    _, outcome = drive(executor)
    assert outcome is not None
    assert outcome.reason == "failed"
    assert outcome.error is not None
    assert "moody.py" in outcome.error
    assert "the user's model is broken" in outcome.error
    executor.submit(task(tmp_path / "next", {"mood": "fine", "lr": 0.1}))
    assert drive(executor)[1].reason == "budget"  # type: ignore[union-attr]


def test_divergence_ends_a_trial_with_what_it_had(make: Make, tmp_path: Path) -> None:
    executor = make("moody")
    executor.submit(task(tmp_path / "later", {"mood": "diverges", "lr": 0.1}))
    events, outcome = drive(executor)
    assert outcome is not None
    assert outcome.reason == "diverged"
    assert outcome.intervals == len(reports(events)) >= 1
    assert outcome.error is not None
    assert "diverged in epoch" in outcome.error
    executor.submit(task(tmp_path / "at once", {"mood": "diverges at once", "lr": 0.1}))
    events, outcome = drive(executor)
    assert outcome is not None
    assert (outcome.reason, outcome.best_value, reports(events)) == ("diverged", None, [])


def test_a_trial_pruned_while_its_reports_are_repeated_keeps_its_best_weights(make: Make, tmp_path: Path) -> None:
    """As after a worker's death between a report and its verdict."""
    executor = make("tiny")
    executor.submit(task(tmp_path))

    def stop(event: Reported) -> str:
        if event.report.interval == 3:
            executor.stop()
        return "continue"

    drive(executor, stop)
    for pruned_at in (2, 3):
        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{pruned_at}"))
        executor.submit(task(folder))
        events, outcome = drive(
            executor, lambda event, at=pruned_at: "prune" if event.report.interval == at else "continue"
        )
        assert outcome is not None
        assert (outcome.reason, outcome.intervals) == ("pruned", len(reports(events)))
        best = checkpoint.load(folder / "best.pt")
        assert best["model"].keys() == MLP(inputs=64, hidden=(16,), dropout=0.3).state_dict().keys()
        assert best["interval"] == outcome.best_interval


@pytest.mark.parametrize("last_verdict", ["continue", "prune"])
@pytest.mark.parametrize("rules", [EarlyStopping(patience=1), EarlyStopping(target=0.3), EarlyStopping()])
def test_a_trial_whose_end_was_not_written_ends_where_it_should(
    tmp_path: Path, rules: EarlyStopping, last_verdict: str
) -> None:
    """As after a death between the last report and the end, which does not depend on the verdict."""
    study_file = load_study(str(STUDIES / "tiny.py"))
    study = replace(study_file.study, early_stopping=rules)
    data = study.load_data()

    class Control:
        def __init__(self) -> None:
            self.word = "continue"

        def stop(self) -> bool:
            return self.word != "continue"

        def verdict(self) -> str:
            return self.word

        def warn(self, message: str) -> None:
            raise AssertionError(message)

    def train(folder: Path, last: int | None = None, *, dies: bool = False) -> Outcome | None:
        control = Control()
        training = work(task(folder), study, data, control)  # type: ignore[arg-type]
        for number in itertools.count(1):
            try:
                next(training)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if number == last:
                control.word = last_verdict
                if dies:
                    return None
        raise AssertionError

    expected = train(tmp_path / "whole")
    assert expected is not None
    train(tmp_path / "killed", expected.intervals, dies=True)
    found = train(tmp_path / "killed", expected.intervals)
    assert found is not None
    timed: dict[str, Any] = {"seconds": 0.0, "latency_ms": None, "batch_latency_ms": None}
    assert replace(found, **timed) == replace(expected, **timed)


@pytest.mark.parametrize("interrupted_after", [1, 2, None])
def test_the_average_of_the_weights_is_kept_as_the_best(tmp_path: Path, interrupted_after: int | None) -> None:
    tiny = load_study(str(STUDIES / "tiny.py")).study
    study = replace(tiny, epochs=4, recipe=lambda space: replace(tiny.recipe(space), ema=0.98))
    data = study.load_data()
    run = Run(study, PARAMS, data, seed=task(tmp_path).seed)
    kept = {report.interval: checkpoint.digest(run.evaluated.state_dict()) for report in train(run)}
    executor = InlineExecutor(study, data)
    if interrupted_after is not None:
        executor.submit(task(tmp_path))

        def stop(event: Reported) -> str:
            if event.report.interval == interrupted_after:
                executor.stop()
            return "continue"

        drive(executor, stop)
    executor.submit(task(tmp_path))
    _, outcome = drive(executor)
    assert outcome is not None
    assert outcome.best_interval is not None
    best = checkpoint.load(tmp_path / "best.pt")["model"]
    assert checkpoint.digest(best) == kept[outcome.best_interval]
    model = study.replay(PARAMS).model
    model.load_state_dict(best)
    assert evaluate(model, CrossEntropy(), data.validation)["accuracy"] == outcome.best_value


def test_params_that_do_not_fit_fail_the_trial(make: Make, tmp_path: Path) -> None:
    executor = make("tiny")
    executor.submit(task(tmp_path, {"lr": 0.1}))
    _, outcome = drive(executor)
    assert outcome is not None
    assert outcome.reason == "failed"
    assert "optimizer" in (outcome.error or "")


def test_a_killed_worker_is_noticed_and_its_trial_goes_on(local: Make, tmp_path: Path, undisturbed: Any) -> None:
    executor = local("tiny")
    for after in (2, 4):
        executor.submit(task(tmp_path))

        def kill(event: Reported, after: int = after) -> str:
            if event.report.interval == after:
                executor.kill(event.number)
            return "continue"

        events, outcome = drive(executor, kill)
        assert outcome is None
        assert isinstance(events[-1], Died)
        assert "SIGKILL" in events[-1].why
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    assert_same_end(undisturbed, reports(events), outcome, tmp_path)


def test_an_aborting_model_takes_only_its_worker_down(local: Make, tmp_path: Path) -> None:
    executor = local("moody")
    executor.submit(task(tmp_path, {"mood": "dies", "lr": 0.1}))
    events, outcome = drive(executor)
    assert outcome is None
    assert isinstance(events[-1], Died)
    assert "SIGABRT" in events[-1].why
    executor.submit(task(tmp_path / "next", {"mood": "fine", "lr": 0.1}))
    assert drive(executor)[1].reason == "budget"  # type: ignore[union-attr]


def test_a_study_file_changed_during_the_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.py"
    path.write_text((STUDIES / "tiny.py").read_text())
    study_file = load_study(str(path))
    with closing(_local(study_file, study_file.study.load_data())) as executor:
        path.write_text(path.read_text() + "# changed\n")
        executor.submit(task(tmp_path / "3"))
        _, outcome = drive(executor)
    assert outcome is not None
    # No trial's fault: each is as it was before.
    assert outcome.reason == "interrupted"
    assert "was changed during the run" in (outcome.error or "")


# What a study does in a worker only, at this point of its life.
IN_A_WORKER = """
import multiprocessing, os, signal, sys, threading, time
import torch
from hpsearch import MLP, SGD, Dataset, Recipe, Space, Study, digits

def here(place):
    return place == "{place}" and multiprocessing.parent_process() is not None

def act():
    {act}

if here("import"):
    act()

class Examples(torch.utils.data.Dataset):
    def __init__(self, split): self.split = split
    def __len__(self): return len(self.split.targets)
    def __getitem__(self, index): return self.split.inputs[index], self.split.targets[index]

def dataset():
    if here("data"):
        act()
    data = digits(size=8)
    if "{place}" != "data":
        return data
    return Dataset(train=Examples(data.train), validation=Examples(data.validation), test=None, classes=data.classes)

class Model(MLP):
    def __init__(self, **options):
        super().__init__(**options)
        if here("model"):
            act()

def recipe(space):
    return Recipe(model=Model(inputs=64, hidden=(8,)), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)))

study = Study(recipe=recipe, dataset=dataset, epochs=3)
"""
LR = {"lr": 0.05}


def starts(folder: Path, place: str, act: str, **options: Any) -> LocalExecutor:
    """Return an executor of a study that does `act` in its workers."""
    path = folder / "acting.py"
    path.write_text(IN_A_WORKER.replace("{place}", place).replace("{act}", act))
    study_file = load_study(str(path))
    return LocalExecutor(study_file, study_file.study.load_data(), workers=1, **options)


@pytest.mark.parametrize("place", ["import", "data"])
def test_what_fails_while_a_worker_loads_is_no_trials_fault_and_is_named(tmp_path: Path, place: str) -> None:
    with closing(starts(tmp_path, place, "raise ValueError('the file is gone')")) as executor:
        for _ in range(2):
            executor.submit(task(tmp_path / "3", LR))
            _, outcome = drive(executor)
            assert outcome is not None
            assert outcome.reason == "interrupted"
            assert "acting.py:10: \"raise ValueError('the file is gone')\": ValueError" in (outcome.error or "")


@pytest.mark.parametrize("place", ["import", "data"])
def test_a_worker_that_never_ends_loading_is_noticed(tmp_path: Path, place: str) -> None:
    with closing(starts(tmp_path, place, "time.sleep(600)", load_timeout=2.0)) as executor:
        executor.submit(task(tmp_path / "3", LR))
        _, outcome = drive(executor)
    assert outcome is not None
    assert outcome.reason == "interrupted"
    assert "acting.py and its data within 2 s" in (outcome.error or "")


def test_a_worker_may_take_its_time_to_load(tmp_path: Path) -> None:
    with closing(starts(tmp_path, "data", "time.sleep(3)", load_timeout=60.0)) as executor:
        executor.submit(task(tmp_path / "3", LR))
        _, outcome = drive(executor)
    assert outcome is not None
    assert outcome.reason == "budget"


def test_a_killed_worker_whose_child_holds_the_pipe_is_noticed(tmp_path: Path) -> None:
    act = "os.fork() == 0 and (time.sleep(20), os._exit(0)); os.kill(os.getpid(), signal.SIGKILL)"
    with closing(starts(tmp_path, "model", act)) as executor:
        executor.submit(task(tmp_path / "3", LR))
        began = time.monotonic()
        events, _ = drive(executor)
        assert isinstance(events[-1], Died)
        assert "SIGKILL" in events[-1].why
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("act", ["sys.exit(0)", "os.chdir('/')"])
def test_what_a_model_does_to_its_process_harms_its_trial_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(starts(tmp_path, "model", act)) as executor:
        executor.submit(task(Path("runs/3"), LR))
        _, outcome = drive(executor)
    assert outcome is not None
    if act == "os.chdir('/')":
        assert outcome.reason == "budget"
        assert (tmp_path / "runs/3/best.pt").exists()
    else:
        assert outcome.reason == "failed"
        assert "acting.py" in (outcome.error or "")


def server_of(executor: LocalExecutor) -> psutil.Process:
    server = psutil.Process(executor._workers[0].child.pid).parent()
    assert server is not None
    return server


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_workers_go_on_when_their_server_is_killed(tmp_path: Path, undisturbed: Any) -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    with closing(_local(study_file, study_file.study.load_data())) as executor:
        executor.submit(task(tmp_path))

        def kill(event: Reported) -> str:
            if event.report.interval == 2:
                server_of(executor).kill()
            return "continue"

        events, outcome = drive(executor, kill)
        assert_same_end(undisturbed, reports(events), outcome, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_server_and_worker_killed_together_are_replaced(tmp_path: Path, undisturbed: Any) -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    with closing(_local(study_file, study_file.study.load_data())) as executor:
        executor.submit(task(tmp_path))

        def kill(event: Reported) -> str:
            worker = psutil.Process(executor._workers[0].child.pid)
            server_of(executor).kill()
            worker.kill()
            return "continue"

        events, outcome = drive(executor, kill)
        assert outcome is None
        assert isinstance(events[-1], Died)
        executor.submit(task(tmp_path))
        events, outcome = drive(executor)
        assert_same_end(undisturbed, reports(events), outcome, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_a_server_killed_while_it_starts_a_worker_is_replaced(tmp_path: Path) -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    with closing(_local(study_file, study_file.study.load_data())) as executor, ThreadPoolExecutor(1) as pool:
        server = server_of(executor)
        server.suspend()
        started = pool.submit(executor._start)
        time.sleep(0.5)
        server.kill()
        worker = started.result(timeout=60)
        assert psutil.Process(worker.child.pid).is_running()
        worker.child.close()


def test_nothing_is_left_once_an_executor_is_closed(tmp_path: Path) -> None:
    executor = starts(tmp_path, "import", "time.sleep(600)")
    executor.submit(task(tmp_path / "3", LR))
    worker = psutil.Process(executor._workers[0].child.pid)
    executor.close()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    executor.close()


def test_the_inline_executor_trains_with_one_thread_as_workers_do() -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    torch.set_num_threads(2)
    executor = InlineExecutor(study_file.study, study_file.study.load_data())
    assert torch.get_num_threads() == 1
    executor.close()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


VARYING = """
import os

import torch
from torch.utils.data import TensorDataset

from hpsearch import MLP, SGD, Dataset, Recipe, Study


def dataset():
    inputs = torch.zeros(20, 4)
    inputs[0, 0] = {first}
    examples = TensorDataset(inputs, torch.arange(20) % 2)
    return Dataset(train=examples, validation=examples, test=None, classes=("a", "b"))


study = Study(
    recipe=lambda space: Recipe(model=MLP(inputs=4, hidden=(), classes=2), optimizer=SGD(lr=space.float("lr", 0.1, 1))),
    dataset=dataset,
    epochs=1,
)
"""


@pytest.mark.parametrize(("first", "reason"), [("os.getpid()", "interrupted"), ("7", "budget")])
def test_a_worker_with_other_data_does_not_train(first: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "varying.py"
    path.write_text(VARYING.format(first=first))
    study_file = load_study(str(path))
    executor = _local(study_file, study_file.study.load_data())
    for number in range(2):
        executor.submit(task(tmp_path / str(number), {"lr": 0.5}))
        _, outcome = drive(executor)
        assert outcome is not None
        assert outcome.reason == reason
        if reason == "interrupted":
            assert "the data set of varying.py is different in a worker: train has 20 examples" in str(outcome.error)
            assert "\n" not in str(outcome.error)
            assert not (tmp_path / str(number)).exists()
    executor.close()


def test_without_room_in_shared_memory_workers_load_the_data_themselves(
    tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.dataset, "free_shared_memory", lambda: 1000)
    study_file = load_study(str(STUDIES / "tiny.py"))
    data = study_file.study.load_data()
    executor = _local(study_file, data)
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "does not fit into shared memory (/dev/shm: 0 MiB are free there), so every worker loads its own" in said
    assert isinstance(data.train, datasets.Split)
    assert not data.train.inputs.is_shared()
    executor.submit(task(tmp_path))
    events, outcome = drive(executor)
    executor.close()
    assert_same_end(undisturbed, reports(events), outcome, tmp_path)


def test_shared_memory_that_is_really_small(tmp_path: Path) -> None:
    """In a mount namespace of its own, as a container's. Writing past its end would kill the process."""
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a small /dev/shm")
    code = (
        "import torch; from hpsearch.datasets import Dataset, Split\n"
        "split = Split(torch.ones(3_000_000), torch.ones(3_000_000))\n"
        "print(Dataset(train=split, validation=split, test=None, classes=()).share())"
    )
    done = subprocess.run([*small, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert "the data set (23 MiB) does not fit into shared memory (/dev/shm: 1 MiB are free there)" in done.stderr


def test_workers_take_turns_on_the_gpus() -> None:
    assert [own_device(worker, 2) for worker in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert own_device(3, 1) == "cuda:0"


@pytest.mark.parametrize(
    ("device", "given"), [("cuda", ["cuda:0", "cuda:1"]), ("cuda:1", ["cuda:1"] * 2), ("cpu", ["cpu"] * 2)]
)
def test_each_worker_is_sent_its_device(
    device: str, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    study_file = load_study(str(STUDIES / "tiny.py"))
    executor = LocalExecutor(study_file, study_file.study.load_data(), workers=2)
    sent: list[Any] = []
    monkeypatch.setattr("hpsearch.executors.processes.Child.send", lambda child, message: sent.append(message))
    for number in range(2):
        executor.submit(Task(number=number, params=PARAMS, seed=11, folder=tmp_path, identity="a", device=device))
    executor.close()
    assert [message.device for message in sent] == given
