"""What hpsearch leans on that other packages do not promise: each by name, so that a change there is found by name."""

import ast
import multiprocessing.forkserver
import multiprocessing.resource_tracker
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import optuna
import pytest
import torch
from optuna.samplers import QMCSampler
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from torch.utils.tensorboard import SummaryWriter

import hpsearch

PACKAGE = Path(hpsearch.__file__).parent

# Modules and names that are imported.
IMPORTED = {
    "optuna.storages._rdb.models",
    "optuna.storages._CachedStorage",
    "optuna.study._frozen.FrozenStudy",
    "torch.nn.modules.batchnorm._BatchNorm",
}
# Attributes, and where they are.
MEMBERS: dict[str, object] = {
    "_assert_async": torch,
    "_assert_tensor_metadata": torch,
    "_forkserver": multiprocessing.forkserver,
    "_forkserver_pid": multiprocessing.forkserver._forkserver,
    "_shutdown_workers": _MultiProcessingDataLoaderIter,
    "_stop": multiprocessing.forkserver._forkserver,
    "_get_file_writer": SummaryWriter,
    "_get_trials": optuna.Study,
    "_storage": optuna.create_study(),
    "_study_id": optuna.create_study(),
    "_trial_id": optuna.trial.FrozenTrial,
}
# Methods that subclasses of ours call or replace without naming the class.
INHERITED = [
    (QMCSampler, "_find_sample_id"),
    (RDBStorage, "_version_manager"),
    (RDBStorage, "scoped_session"),
    (RDBStorage, "check_trial_is_updatable"),
]
# Tables, and the columns used.
COLUMNS = {
    models.StudyModel: ("study_id", "study_name"),
    models.TrialModel: ("trial_id", "study_id", "number", "state", "datetime_start", "datetime_complete"),
    models.TrialValueModel: ("trial_id", "objective", "value", "value_type"),
    models.TrialIntermediateValueModel: ("trial_id", "step", "intermediate_value"),
    models.TrialUserAttributeModel: ("trial_id", "key", "value_json"),
    models.TrialSystemAttributeModel: ("trial_id", "key", "value_json"),
    models.TrialHeartbeatModel: ("trial_id", "heartbeat"),
    models.StudyUserAttributeModel: ("study_id", "key", "value_json"),
}
# Not private, whatever they are called.
PUBLIC = {"_exit", "_asdict", "_run_exitfuncs"}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            yield path, node


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_every_private_attribute_of_others_is_listed() -> None:
    used = {
        node.attr
        for _, node in nodes()
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    assert used == MEMBERS.keys() | PUBLIC


def test_every_private_import_is_listed() -> None:
    used = {
        f"{node.module}.{alias.name}"
        for _, node in nodes()
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("hpsearch")
        for alias in node.names
        if is_private(alias.name) or any(map(is_private, node.module.split(".")))
    }
    assert used == IMPORTED


@pytest.mark.parametrize("name", sorted(IMPORTED))
def test_what_is_imported_is_there(name: str) -> None:
    module, _, member = name.rpartition(".")
    assert hasattr(import_module(module), member)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_the_attribute_is_there(name: str) -> None:
    home = MEMBERS[name]
    made = name in getattr(home, "__annotations__", {}) or name == "_trial_id"
    found = optuna.trial.create_trial(value=0.0) if made and home is optuna.trial.FrozenTrial else home
    assert hasattr(found, name), f"{home!r} has no {name} any more"


@pytest.mark.parametrize(("owner", "name"), INHERITED)
def test_the_inherited_member_is_there(owner: type, name: str, tmp_path: Path) -> None:
    if owner is not RDBStorage:
        assert hasattr(owner, name)
        return
    storage = RDBStorage(f"sqlite:///{tmp_path}/test.db")
    assert hasattr(storage, name)
    storage.engine.dispose()


def test_the_tables_have_the_columns() -> None:
    for table, names in COLUMNS.items():
        assert {*names} <= {*table.__table__.columns.keys()}, table
