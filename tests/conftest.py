"""What several test modules need: one thread, a small data set and a study that trains in milliseconds."""

import os
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.storages import RDBStorage

from hpsearch import MLP, SGD, Dataset, Recipe, Space, Split, Study, digits
from support.command_line import Started

# pytest-xdist sets it, and a table would be folded to it.
os.environ.pop("COLUMNS", None)

# Further cases of what another case of the same test shows, which take long: with `--all` only.
FURTHER_CASES = (
    "test_chaos.py::test_nothing_is_lost[26]",
    "test_chaos.py::test_nothing_is_lost[36]",
    "changes_nothing_that_was_taken_over[sqlite-alone]",
    "changes_nothing_that_was_taken_over[postgresql-with its workers]",
    "test_a_supervisor_frozen_alone_goes_on_where_it_was[sqlite]",
    "test_from_check_to_retrain[resnet18]",
    "test_from_check_to_retrain[mobilenet]",
    "test_a_killed_worker_on_the_command_line[batch norm]",
    "test_a_killed_worker_on_the_command_line[view after convolutions]",
    "test_an_interrupted_run_saves_its_work_and_goes_on[15]",
    "test_is_killed_in_mid_epoch_and_continues_exactly[training worker]",
    "test_is_killed_in_mid_epoch_and_continues_exactly[supervisor]",
    "test_a_users_file_hides_no_module_of_pythons[module]",
    "test_minimising_the_error_is_maximising_the_accuracy[random-median]",
    "test_minimising_the_error_is_maximising_the_accuracy[nsga2",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the cases that repeat what another one shows, for longer")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--all"):
        return
    for item in items:
        if any(case in item.nodeid for case in FURTHER_CASES):
            item.add_marker(pytest.mark.skip(reason="another case shows the same; --all runs this one too"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal runs are promised bit for bit on one thread only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _closed_connections() -> Iterator[None]:
    """Close what Optuna's own storages leave open, which is a ResourceWarning from Python 3.13 on."""

    def make(storage: RDBStorage, *arguments: Any, **options: Any) -> None:
        made(storage, *arguments, **options)
        # Ours closes its own.
        if type(storage) is RDBStorage:
            weakref.finalize(storage, storage.engine.dispose)

    made = RDBStorage.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RDBStorage, "__init__", make)
        yield


@pytest.fixture(scope="session")
def digits8() -> Dataset:
    """The digits in their own 8x8 pixels."""
    return digits(size=8)


@pytest.fixture(scope="session")
def few_digits(digits8: Dataset) -> Dataset:
    """The first 100 training and 60 validation digits: an epoch of four batches of 32, the last one short."""
    assert isinstance(digits8.train, Split)
    assert isinstance(digits8.validation, Split)
    return Dataset(
        train=Split(*(part[:100] for part in digits8.train)),
        validation=Split(*(part[:60] for part in digits8.validation)),
        test=None,
        classes=digits8.classes,
    )


@pytest.fixture
def tiny_study(few_digits: Dataset) -> Callable[..., Study]:
    """Return a function that builds a study of a small MLP on a few digits, searched for `lr` only."""

    def build(
        *,
        optimizer: Callable[..., Any] = SGD,
        schedule: Any = None,
        dropout: float = 0.0,
        batch_size: int = 32,
        **settings: Any,
    ) -> Study:
        def recipe(space: Space) -> Recipe:
            return Recipe(
                model=MLP(inputs=64, hidden=[8], dropout=dropout),
                optimizer=optimizer(lr=space.float("lr", 1e-4, 1e9, log=True)),
                schedule=schedule,
                batch_size=batch_size,
            )

        return Study(**{"recipe": recipe, "dataset": lambda: few_digits, "epochs": 3, **settings})

    return build


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """A function that starts a command in the test's folder, which ends with the test."""
    started: list[Started] = []

    def start(*arguments: str, **options: Any) -> Started:
        started.append(Started(*arguments, **({"cwd": tmp_path} | options)))
        return started[-1]

    yield start
    for run in started:
        run.signal_tree(signal.SIGKILL)
        run.wait()
