"""What changes a study's results is refused with its name; what does not, passes."""

from pathlib import Path

import pytest

from hpsearch import L1, SGD, BinaryCrossEntropy, CrossEntropy
from hpsearch.search.fingerprint import _text, describe_study, differences
from hpsearch.search.pruners import parse_pruner, same_pruner
from hpsearch.study import load_study
from support.command_line import hpsearch

TEXT = '''"""A study."""
from functools import partial

import torch
from torch import nn

from hpsearch import MLP, SGD, Cosine, CrossEntropy, EarlyStopping, RandomFlip, Recipe, Space, Steps, Study, digits

WIDTH = 8
UNUSED = 1


def scaled(inputs):
    """Return the inputs, scaled."""
    return inputs * 0.5


class Net(nn.Module):
    """A network."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, inputs):
        return self.layers(scaled(inputs))


def recipe(space: Space) -> Recipe:
    """Draw one configuration."""
    lr = space.float("lr", 0.01, 0.1)
    if space.choice("optimizer", ["sgd", "by hand"]) == "sgd":
        optimizer = SGD(lr=lr, momentum=0.9)
    else:
        optimizer = lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.5)
    return Recipe(model=Net(WIDTH), optimizer=optimizer, schedule=Cosine(), batch_size=32)


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=3, early_stopping=EarlyStopping(patience=2))
'''

REFUSED = {
    "epochs=3": ("epochs=4", "training epochs was 3, is now 4"),
    "epochs=3,": ("epochs=3, interval=Steps(5),", "training interval was 1, is now 5 steps"),
    "patience=2": ("patience=3", "training early stopping was EarlyStopping"),
    "batch_size=32": ("batch_size=64", "training recipe's batch_size was 32, is now 64"),
    "batch_size=32)": ("batch_size=32, epochs=2)", "training recipe's epochs was None, is now 2"),
    "momentum=0.9": ("momentum=0.8", "training optimizer was "),
    "momentum=0.5": ("momentum=0.6", "training optimizer was "),
    "Cosine()": ("Cosine(warmup=0.1)", "training schedule was Cosine"),
    "schedule=Cosine(), ": ("", "is now none"),
    "WIDTH = 8": ("WIDTH = 9", "code WIDTH was "),
    "nn.ReLU()": ("nn.Tanh()", "training model was Net"),
    "    return Recipe(model=Net(WIDTH)": (
        "    net = Net(WIDTH)\n    net.layers[1].requires_grad_(False)\n    return Recipe(model=net",
        "training frozen is new",
    ),
    "inputs * 0.5": ("inputs * 0.25", "code scaled was "),
    "self.layers(scaled(inputs))": ("self.layers(scaled(inputs)) * 2", "code Net was "),
    '"lr", 0.01, 0.1': ('"lr", 0.01, 0.2', "space lr was float 0.01 .. 0.1, is now float 0.01 .. 0.2"),
    "size=8": ("size=8, seed=1", "data train was "),
}
PASSES = {
    '"""A study."""': '"""Another docstring."""',
    "UNUSED = 1": "UNUSED = 2\n# a comment",
    '    """A network."""\n': "",
    '"""Return the inputs, scaled."""': '"""Halve the inputs."""',
    "return inputs * 0.5": "return (inputs * 0.5)  # a half",
    "patience=2))": "patience=2), n_trials=7, figures={})",
    "lr = space": "rate = lr = space",
    'space.float("lr", 0.01, 0.1)': 'space.float("lr", 0.01, 0.1, grid=[0.05])',
}


def changes(folder: Path, old: str, new: str) -> list[str]:
    """Return what is said of a study whose text has `new` for `old`."""
    described = []
    for text in (TEXT, TEXT.replace(old, new, 1)):
        path = folder / "mine.py"
        path.write_text(text)
        study_file = load_study(str(path))
        described.append(describe_study(study_file, study_file.study.load_data(), 0))
    assert old in TEXT
    return differences(*described)


@pytest.mark.parametrize("old", REFUSED)
def test_what_changes_results_is_named(tmp_path: Path, old: str) -> None:
    new, expected = REFUSED[old]
    found = changes(tmp_path, old, new)
    assert expected in "; ".join(found)


@pytest.mark.parametrize("old", PASSES)
def test_what_does_not_passes(tmp_path: Path, old: str) -> None:
    assert changes(tmp_path, old, PASSES[old]) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("clip_norm=1.0", ["training recipe's clip_norm is new"]),
        ("accumulate=2", ["training recipe's accumulate is new"]),
        ("ema=0.9", ["training recipe's ema is new"]),
        ("clip_norm=None, accumulate=1, ema=None", []),
        ("augment=[RandomFlip()]", ["training augment is new"]),
        ("groups={'layers.1': {'lr': 0.5}}", ["training groups is new"]),
        ("precision='bfloat16'", ["training recipe's precision is new"]),
        ("compile=True", ["training recipe's compile is new"]),
        ("augment=(), groups={}, precision=None, compile=False", []),
        ("loss=CrossEntropy()", []),
        ("loss=CrossEntropy(weight=(1.0,) * 10)", ["training loss was CrossEntropy"]),
    ],
)
def test_an_option_of_the_recipe_is_named_if_it_is_on(tmp_path: Path, settings: str, expected: list[str]) -> None:
    found = changes(tmp_path, "batch_size=32)", f"batch_size=32, {settings})")
    assert [change[: len(said)] for change, said in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("augment=[RandomFlip()]", "augment=[RandomFlip(0.3)]", "training augment was RandomFlip ("),
        (
            "augment=[lambda x, y: (x, y)]",
            "augment=[lambda x, y: (2 * x, y)]",
            "training augment was recipe.<locals>.<lambda> (",
        ),
        ("groups={'layers.1': {'lr': 0.5}}", "groups={'layers.1': {'lr': 0.6}}", "training groups was layers.1 ("),
        ("precision='bfloat16'", "precision='float16'", "training recipe's precision was 'bfloat16', is now 'float16'"),
    ],
)
def test_another_value_of_an_option_is_named(tmp_path: Path, before: str, now: str, said: str) -> None:
    # An option of a function as the optimiser is not known before it is built.
    text = TEXT.replace("lr=lr, momentum=0.9", "lr=lr")
    described = []
    for settings in (before, before, now):
        path = tmp_path / "mine.py"
        path.write_text(text.replace("batch_size=32)", f"batch_size=32, {settings})"))
        described.append(describe_study(load_study(str(path)), None, 0))
    assert differences(*described[:2]) == []
    assert [change[: len(said)] for change in differences(*described[1:])] == [said]


def test_values_of_an_option_are_named(tmp_path: Path) -> None:
    described = []
    for high in (2.0, 4.0):
        path = tmp_path / "mine.py"
        path.write_text(TEXT.replace("batch_size=32)", f"batch_size=32, clip_norm=space.float('norm', 1.0, {high}))"))
        described.append(describe_study(load_study(str(path)), None, 0))
    assert "training recipe's clip_norm was 1.0, 2.0, is now 1.0, 4.0" in differences(*described)


def test_an_option_that_is_off_leaves_the_text_of_earlier_versions() -> None:
    assert _text(CrossEntropy()) == "CrossEntropy(label_smoothing=0.0)"
    assert _text(CrossEntropy(weight=(1.0, 2.0))) == "CrossEntropy(label_smoothing=0.0, weight=(1.0, 2.0))"
    assert _text(BinaryCrossEntropy()) == "BinaryCrossEntropy()"
    assert _text(SGD(lr=0.1)) == repr(SGD(lr=0.1))
    assert _text(L1(SGD(lr=0.1), 0.5)) == repr(L1(SGD(lr=0.1), 0.5))


def test_functions_in_other_objects_are_known_by_their_source(tmp_path: Path) -> None:
    def schedule(gamma: float) -> str:
        return f"hpsearch.Warmup(0.1, then=lambda o, n: torch.optim.lr_scheduler.ExponentialLR(o, {gamma}))"

    text = TEXT.replace("import torch\n", "import hpsearch\nimport torch\n")
    described = []
    for gamma in (0.5, 0.5, 0.9):
        path = tmp_path / "mine.py"
        path.write_text(text.replace("Cosine(), batch", f"{schedule(gamma)}, batch"))
        described.append(describe_study(load_study(str(path)), None, 0))
    assert differences(*described[:2]) == []
    assert "training schedule was Warmup" in "; ".join(differences(*described[1:]))


def test_a_run_of_a_changed_study_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    command = ("run", "--study", "mine.py", "--workers", "0", "--seed", "0")
    assert hpsearch(*command, "--n-trials", "1", cwd=tmp_path).returncode == 0
    path.write_text(TEXT.replace("epochs=3", "epochs=30"))
    for n_trials in ("1", "2"):
        refused = hpsearch(*command, "--n-trials", n_trials, cwd=tmp_path)
        assert refused.returncode == 2
        assert "training epochs was 3, is now 30. Undo the change, or" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    path.write_text(TEXT)
    other = hpsearch(*command, "--n-trials", "2", "--pruner", "hyperband:reduction_factor=4", cwd=tmp_path)
    assert other.returncode == 2
    assert "study mine was run with --pruner hyperband, not hyperband:reduction_factor=4" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    same = ("--pruner", "hyperband:reduction_factor=3", "--sampler", "random")
    assert hpsearch(*command, "--n-trials", "2", *same, cwd=tmp_path).returncode == 0


def test_a_pruner_is_known_by_all_its_options() -> None:
    def same(one: str, other: str) -> bool:
        return same_pruner(parse_pruner(one), parse_pruner(other))

    assert same("hyperband", "hyperband:reduction_factor=3")
    assert not same("hyperband", "hyperband:reduction_factor=4")
    assert not same("hyperband", "asha")
    assert same("median:n_warmup_steps=2,n_startup_trials=3", "median:n_startup_trials=3,n_warmup_steps=2")


def test_a_study_of_an_earlier_version_goes_on() -> None:
    before = {"space": {"lr": "float"}, "data": {}, "direction": "maximize", "seed": 0}
    assert differences(before, {**before, "training": {"epochs": "3"}, "code": {}}) == []
