import hashlib
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpsearch import MLP, SGD, Dataset, LeNet, Recipe, Space, Steps, Study, UsageError, import_torchvision
from hpsearch.errors import StudyFileError
from hpsearch.space import ReplaySpace
from hpsearch.study import load_study
from hpsearch.study_files import find_study, list_studies

GOOD = '''"""A small study.

With more to say.
"""
from hpsearch import MLP, SGD, Recipe, Study, digits


def recipe(space):
    return Recipe(model=MLP(), optimizer=SGD(lr=space.float("lr", 0.1, 1.0)))


study = Study(recipe=recipe, dataset=digits, epochs=7)
'''


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of studies, the interpreter's module path and modules left as they were."""
    folder = tmp_path / "studies"
    folder.mkdir()
    monkeypatch.setenv("HPSEARCH_STUDIES", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("hpsearch_study_") or name == "study_helpers":
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestLoading:
    def test_by_name(self, studies: Path) -> None:
        path = write(studies, "small.py", GOOD)
        loaded = load_study("small")
        assert (loaded.name, loaded.path) == ("small", path.resolve())
        assert loaded.digest == hashlib.sha256(GOOD.encode()).hexdigest()
        assert loaded.study.epochs == 7

    def test_by_path(self, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "elsewhere.py", GOOD)
        assert load_study(str(tmp_path / "elsewhere.py")).name == "elsewhere"
        monkeypatch.chdir(tmp_path)
        assert load_study("elsewhere.py").path == (tmp_path / "elsewhere.py").resolve()

    def test_without_the_variable_in_the_folder_studies(
        self, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(studies, "small.py", GOOD)
        monkeypatch.delenv("HPSEARCH_STUDIES")
        monkeypatch.chdir(tmp_path)
        assert find_study("small") == Path("studies/small.py")

    def test_a_module_beside_the_study_can_be_imported(self, studies: Path) -> None:
        write(studies, "study_helpers.py", "EPOCHS = 11\n")
        write(
            studies,
            "small.py",
            GOOD.replace("epochs=7", "epochs=study_helpers.EPOCHS").replace(
                "from hpsearch", "import study_helpers\nfrom hpsearch", 1
            ),
        )
        assert load_study("small").study.epochs == 11

    def test_an_edited_file_is_what_runs(self, studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even if the edit keeps the size and falls into the same second, as when a script writes the file."""
        monkeypatch.setattr(sys, "dont_write_bytecode", False)
        path = write(studies, "small.py", GOOD)
        assert load_study("small").study.epochs == 7
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        write(studies, "small.py", GOOD.replace("epochs=7", "epochs=8"))
        os.utime(path, ns=times)
        loaded = load_study("small")
        assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert loaded.study.epochs == 8

    def test_an_unknown_name_suggests_the_nearest(self, studies: Path) -> None:
        for name in ("lenet.py", "mlp.py", "_private.py"):
            write(studies, name, GOOD)
        with pytest.raises(StudyFileError, match=r"there is no study 'lenett' in .*: did you mean lenet"):
            load_study("lenett")
        with pytest.raises(StudyFileError, match=r"there is no study 'qqqq' in .*: it has lenet, mlp$"):
            load_study("qqqq")

    def test_an_unknown_name_in_a_folder_without_studies(self, studies: Path) -> None:
        with pytest.raises(StudyFileError, match=r"it has no study files; give a path .*, or set HPSEARCH_STUDIES"):
            load_study("lenet")

    def test_an_unknown_path(self, studies: Path, tmp_path: Path) -> None:
        for path in (tmp_path / "absent.py", tmp_path / "absent", tmp_path):
            with pytest.raises(StudyFileError, match=f"there is no study file {path}"):
                load_study(str(path))

    @pytest.mark.parametrize(
        ("text", "line", "parts"),
        [
            ("x = 1\nstudy = = 2\n", 2, ["study = = 2", "SyntaxError"]),
            ("def f():\nreturn 1\n", 2, ["return 1", "IndentationError"]),
            ("x = 1\n\nstudy = Studdy()\n", 3, ["study = Studdy()", "NameError", "'Studdy' is not defined"]),
            ("import no_such_module\n", 1, ["import no_such_module", "ModuleNotFoundError"]),
            ("from hpsearch import Lenet\n", 1, ["from hpsearch import Lenet", "ImportError"]),
            ("def f():\n    return 1 / 0\n\n\nf()\n", 2, ["return 1 / 0", "ZeroDivisionError"]),
            (GOOD.replace("epochs=7", "epochs=0"), 12, ["epochs=0", "Study: epochs must be", "got 0"]),
            (GOOD.replace("epochs=7", "epoch=7"), 12, ["epoch=7", "TypeError", "'epoch'"]),
        ],
    )
    def test_a_file_that_does_not_run_shows_the_users_line(
        self, studies: Path, text: str, line: int, parts: list[str]
    ) -> None:
        path = write(studies, "broken.py", text)
        with pytest.raises(StudyFileError) as raised:
            load_study("broken")
        message = str(raised.value)
        assert message.startswith(f"{path}:{line}: ")
        assert "\n" not in message
        for part in parts:
            assert part in message

    def test_an_error_in_an_imported_file_shows_the_line_that_imports_it(self, studies: Path) -> None:
        write(studies, "study_helpers.py", "x = 1\ny = 1 / 0\n")
        path = write(studies, "broken.py", "\nimport study_helpers\n")
        with pytest.raises(StudyFileError, match=f"^{path}:2: 'import study_helpers': ZeroDivisionError"):
            load_study("broken")

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("x = 1\n", "no `study`"),
            ("study = 5\n", "`study` is a int"),
            ("study = {'recipe': None}\n", "`study` is a dict"),
            ("from hpsearch import Study\nstudy = Study\n", "`study` is a type"),
        ],
    )
    def test_a_file_without_a_study(self, studies: Path, text: str, found: str) -> None:
        path = write(studies, "wrong.py", text)
        with pytest.raises(StudyFileError) as raised:
            load_study("wrong")
        assert str(raised.value).startswith(f"{path}: {found}; end the file with study = Study(")

    @pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = '\0'\n"])
    def test_a_file_that_is_not_text(self, studies: Path, content: bytes) -> None:
        (studies / "binary.py").write_bytes(content)
        with pytest.raises(StudyFileError, match=r"binary\.py"):
            load_study("binary")


class TestListing:
    def test_gives_names_and_first_lines_and_runs_nothing(self, studies: Path) -> None:
        marker = studies / "ran"
        write(studies, "b.py", f'"""Second.\n\nMore."""\nopen({str(marker)!r}, "w")\n')
        write(studies, "a.py", GOOD)
        write(studies, "c.py", "raise SystemExit(3)\n")
        write(studies, "d.py", "study = = 2\n")
        write(studies, "_helpers.py", '"""Not a study."""\n')
        write(studies, "notes.txt", "not Python")
        assert list_studies() == {"a": "A small study.", "b": "Second.", "c": "", "d": "(cannot be read as Python)"}
        assert not marker.exists()

    @pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = '\0'\n"])
    def test_a_file_that_is_not_text_does_not_hide_the_others(self, studies: Path, content: bytes) -> None:
        write(studies, "a.py", GOOD)
        (studies / "binary.py").write_bytes(content)
        assert list_studies() == {"a": "A small study.", "binary": "(cannot be read as Python)"}

    def test_no_folder_no_studies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPSEARCH_STUDIES", str(tmp_path / "absent"))
        assert list_studies() == {}


def good_recipe(space: Space) -> Recipe:
    return Recipe(model=MLP(), optimizer=SGD(lr=space.float("lr", 0.1, 1.0)))


class TestArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"model": "lenet"}, "Recipe: model must be an nn.Module, got 'lenet'"),
            ({"model": LeNet}, "Recipe: model must be an nn.Module"),
            ({"optimizer": 0.1}, r"Recipe: optimizer must be callable, such as SGD\(lr=0.1\), got 0.1"),
            ({"optimizer": None}, "Recipe: optimizer must be callable"),
            ({"loss": "mse"}, "Recipe: loss must be callable.*, got 'mse'"),
            ({"loss": None}, "Recipe: loss must be callable.*, got None"),
            ({"schedule": "cosine"}, "Recipe: schedule must be callable.*, got 'cosine'"),
            ({"batch_size": 0}, "Recipe: batch_size must be a whole number of at least 1, got 0"),
            ({"batch_size": 32.0}, "Recipe: batch_size .* got 32.0"),
            ({"batch_size": True}, "Recipe: batch_size .* got True"),
            ({"epochs": 0}, "Recipe: epochs must be a whole number of at least 1, got 0"),
            ({"epochs": "5"}, "Recipe: epochs .* got '5'"),
            ({"clip_norm": 0}, "Recipe: clip_norm must be a number above 0, or None, got 0"),
            ({"clip_norm": -1.0}, "Recipe: clip_norm .* got -1.0"),
            ({"clip_norm": float("nan")}, "Recipe: clip_norm .* got nan"),
            ({"clip_norm": float("inf")}, "Recipe: clip_norm .* got inf"),
            ({"clip_norm": True}, "Recipe: clip_norm .* got True"),
            ({"clip_norm": "1"}, "Recipe: clip_norm .* got '1'"),
            ({"accumulate": 0}, "Recipe: accumulate must be a whole number of at least 1, got 0"),
            ({"accumulate": None}, "Recipe: accumulate .* got None"),
            ({"accumulate": 2.0}, "Recipe: accumulate .* got 2.0"),
            ({"ema": 0.0}, r"Recipe: ema must be a number in \(0, 1\), or None, got 0.0"),
            ({"ema": 1}, "Recipe: ema .* got 1"),
            ({"ema": True}, "Recipe: ema .* got True"),
            ({"ema": float("nan")}, "Recipe: ema .* got nan"),
        ],
    )
    def test_a_wrong_recipe_is_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Recipe(**{"model": MLP(), "optimizer": SGD(lr=0.1), **settings})

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"recipe": 5}, "Study: recipe must be a function, got 5"),
            ({"dataset": "digits"}, "Study: dataset must be a function, got 'digits'"),
            ({"epochs": 0}, "Study: epochs must be a whole number of at least 1, got 0"),
            ({"epochs": 1.5}, "Study: epochs .* got 1.5"),
            ({"n_trials": -1}, "Study: n_trials .* got -1"),
            ({"interval": 0}, "Study: interval .* got 0"),
            ({"interval": 0.5}, "Study: interval .* got 0.5"),
            ({"early_stopping": 5}, "Study: early_stopping .* got 5"),
        ],
    )
    def test_a_wrong_study_is_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Study(**{"recipe": good_recipe, "dataset": lambda: None, **settings})

    @pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
    def test_wrong_steps_are_refused(self, count: Any) -> None:
        with pytest.raises(UsageError, match=f"Steps: count .* got {count!r}"):
            Steps(count)

    def test_a_study_cannot_be_changed(self, digits8: Dataset) -> None:
        study = Study(recipe=good_recipe, dataset=lambda: digits8)
        with pytest.raises(FrozenInstanceError):
            study.epochs = 3  # type: ignore[misc]


class TestRunning:
    def test_replay_gives_the_recipe_at_the_params(self, digits8: Dataset) -> None:
        study = Study(recipe=good_recipe, dataset=lambda: digits8)
        recipe = study.replay({"lr": 0.25})
        assert recipe.optimizer == SGD(lr=0.25)
        assert next(recipe.model.parameters()).device.type == "cpu"
        with pytest.raises(UsageError, match="lr must be from"):
            study.replay({"lr": 2.0})

    def test_trace_builds_no_weights_and_draws_no_random_number(self, digits8: Dataset) -> None:
        study = Study(recipe=good_recipe, dataset=lambda: digits8)
        before = torch.get_rng_state()
        space = ReplaySpace({"lr": 0.5})
        recipe = study.trace(space)
        assert space.params == {"lr": 0.5}
        assert {parameter.device.type for parameter in recipe.model.parameters()} == {"meta"}
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_recipe_that_returns_something_else(self, digits8: Dataset) -> None:
        study = Study(recipe=lambda space: MLP(), dataset=lambda: digits8)  # type: ignore[arg-type,return-value]
        with pytest.raises(UsageError, match=r"the recipe must return a hpsearch\.Recipe or Training, got MLP"):
            study.replay({})

    def test_a_dataset_function_that_returns_something_else(self, digits8: Dataset) -> None:
        assert Study(recipe=good_recipe, dataset=lambda: digits8).load_data() is digits8
        study = Study(recipe=good_recipe, dataset=lambda: [1, 2])  # type: ignore[arg-type,return-value]
        with pytest.raises(UsageError, match=r"dataset must return a hpsearch\.Dataset, got list"):
            study.load_data()


class TestTracing:
    """Models that cannot be built on the meta device."""

    @staticmethod
    def study(model: Callable[[], nn.Module]) -> Study:
        def recipe(space: Space) -> Recipe:
            return Recipe(model=model(), optimizer=SGD(lr=space.float("lr", 0.1, 1.0)))

        return Study(recipe=recipe, dataset=lambda: None)  # type: ignore[arg-type,return-value]

    @pytest.mark.parametrize(
        "read", [lambda tensor: tensor.mean().item(), lambda tensor: tensor.detach().numpy().mean(), bool, list]
    )
    def test_a_model_that_reads_values_is_built_for_real(self, read: Callable[[Any], Any]) -> None:
        def model() -> nn.Module:
            layer = nn.Linear(4, 1)
            with torch.no_grad():
                layer.bias.fill_(0.0)
            read(layer.bias if read in (bool, list) else layer.weight)
            return layer

        before = torch.get_rng_state()
        space = ReplaySpace({"lr": 0.5})
        assert isinstance(self.study(model).trace(space).model, nn.Linear)
        assert space.params == {"lr": 0.5}
        assert torch.equal(torch.get_rng_state(), before)

    def test_loading_weights_says_nothing_there(self) -> None:
        weights = nn.Linear(4, 2).state_dict()

        def model() -> nn.Module:
            layer = nn.Linear(4, 2)
            layer.load_state_dict(weights)
            return layer

        # Warnings are errors here, and this shows that there is one to silence.
        with torch.device("meta"), pytest.warns(UserWarning, match="no-op"):
            model()
        self.study(model).trace(ReplaySpace({"lr": 0.5}))

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("options", [{}, {"map_location": "cpu"}, {"weights_only": True, "mmap": None}], ids=str)
    def test_weights_in_a_file_are_loaded_as_shapes_only(
        self, options: dict[str, Any], zipped: bool, tmp_path: Path
    ) -> None:
        import_torchvision("models")
        from torchvision import models

        trained = models.squeezenet1_1(num_classes=3)
        file = tmp_path / "weights.pt"
        torch.save(trained.state_dict(), file, _use_new_zipfile_serialization=zipped)
        devices: list[str] = []

        def model() -> nn.Module:
            net = models.squeezenet1_1(num_classes=3)
            weights = torch.load(file, **options)
            devices.extend({tensor.device.type for tensor in weights.values()})
            net.load_state_dict(weights)
            return net

        load = torch.load
        study = self.study(model)
        study.trace(ReplaySpace({"lr": 0.5}))
        assert devices == ["meta"]
        assert torch.load is load
        replayed = study.replay({"lr": 0.5}).model
        assert devices == ["meta", "cpu"]
        for ours, theirs in zip(replayed.parameters(), trained.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    def test_a_recipe_that_reads_loaded_weights_gets_them(self, tmp_path: Path) -> None:
        torch.save({"scale": torch.tensor(3.0)}, tmp_path / "scale.pt")
        load = torch.load

        def model() -> nn.Module:
            return nn.Linear(4, int(torch.load(tmp_path / "scale.pt")["scale"].item()))

        traced = self.study(model).trace(ReplaySpace({"lr": 0.5})).model
        assert isinstance(traced, nn.Linear)
        assert traced.out_features == 3
        assert torch.load is load

    def test_a_users_warning_is_still_heard(self) -> None:
        def model() -> nn.Module:
            warnings.warn("this layer is deprecated", UserWarning, stacklevel=1)
            return nn.Linear(4, 2)

        with pytest.warns(UserWarning, match="this layer is deprecated"):
            self.study(model).trace(ReplaySpace({"lr": 0.5}))

    def test_an_error_that_is_the_recipes_own_is_raised(self) -> None:
        def model() -> nn.Module:
            raise KeyError("no such layer")

        with pytest.raises(KeyError, match="no such layer"):
            self.study(model).trace(ReplaySpace({"lr": 0.5}))

    def test_lazy_and_complex_parameters(self) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lazy = nn.LazyLinear(4)
                self.complex = nn.Parameter(torch.randn(4, dtype=torch.complex64))

        self.study(Net).trace(ReplaySpace({"lr": 0.5}))


def test_a_dataset_function_that_splits_at_random_gives_equal_data_each_time() -> None:
    def dataset() -> Dataset:
        whole = torch.utils.data.TensorDataset(torch.arange(10.0), torch.tensor(random.choices([0, 1], k=10)))
        first, second = torch.utils.data.random_split(whole, [7, 3])
        return Dataset(train=first, validation=second, test=None, classes=("a", "b"))

    study = Study(recipe=good_recipe, dataset=dataset)
    before = torch.get_rng_state()
    first, second = study.load_data(), study.load_data()
    assert torch.equal(torch.get_rng_state(), before)
    assert [list(first.train), list(first.validation)] == [list(second.train), list(second.validation)]
