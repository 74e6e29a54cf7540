"""`Study` and `Recipe`, which users write, and the loading of study files.

This module runs the user's code. It does not depend on Optuna or on the training loop.
"""

import os
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hpsearch import study_files
from hpsearch.augmentation import Augmentation
from hpsearch.datasets import Dataset, Split
from hpsearch.errors import HpsearchError, StudyFileError, UsageError
from hpsearch.measure import ACCURACY, Measure
from hpsearch.meters import check_targets, measure_of
from hpsearch.optim import CrossEntropy, Loss, Optimizer, Schedule, check_groups, is_between
from hpsearch.own_training import Training
from hpsearch.seeding import seeded
from hpsearch.space import Described, Space, describe, replay
from hpsearch.stopping import EarlyStopping
from hpsearch.study_files import find_study
from hpsearch.text import brief, unit

PRECISIONS = ("bfloat16", "float16")


@dataclass(frozen=True)
class Steps:
    """An interval of `count` steps (batches), for when an epoch is too long."""

    count: int

    def __post_init__(self) -> None:
        check_count("Steps: count", self.count)

    def __str__(self) -> str:
        return f"{self.count} step{'s' * (self.count != 1)}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One configuration: all that training needs besides the data and a seed.

    `optimizer`, `loss` and `schedule` are those of `hpsearch.optim` or any callables of the same form. Without a
    schedule the learning rate is constant. `epochs` overrides the study's.

    `clip_norm` scales the gradients of an update down to this norm, of all together, if theirs is larger. The gradients
    of `accumulate` batches make one update, fewer at the end of an epoch: that of the mean over their examples, if the
    loss is a mean over examples. A step is a batch, but the schedule is stepped once per update. With `ema`, such as
    0.999, the exponential moving average of the weights with this decay per update is what is evaluated and kept, with
    the model's buffers, while training continues with the weights themselves (Polyak and Juditsky, *Acceleration of
    stochastic approximation by averaging*, SIAM J. Control Optim. 30, 1992).

    `augment` is a list of augmentations, such as `[RandomCrop(4), RandomFlip()]` of `hpsearch.augmentation` or any
    callables `(inputs, targets) -> (inputs, targets)`, applied to each training batch in this order. If one of them
    changes the targets, as `MixUp` does, the training measures are those of some training examples as they are,
    evaluated after each interval; otherwise they are those of the augmented examples while training.

    `groups` gives some parameters their own options of the optimiser, by the name of a parameter or module, or a
    pattern: `{"head": {"lr": 0.1}, "*.bias": {"weight_decay": 0.0}}`. The first name that fits a parameter counts; all
    other parameters have the optimiser's options, and its `lr` is the one that is reported. A schedule scales the
    learning rates of all groups. Parameters with `requires_grad=False` are frozen for the whole run. Batch norm in
    frozen layers still adapts its running mean and variance to the data, unless the model overrides `train` to keep
    these layers in evaluation mode.

    `precision` "bfloat16" or, on a CUDA device only, "float16" computes the model's layers in that type, in training
    and evaluation, where torch's autocast finds it safe; weights, outputs and losses stay in single precision. The
    gradients of float16 are scaled, and an update in which they overflow is left out (Micikevicius et al., arXiv
    1710.03740). A retrained model is tested in single precision. With `compile`, `torch.compile` compiles the model
    for training, once for each shape of batches.
    """

    model: nn.Module
    optimizer: Optimizer
    loss: Loss = field(default_factory=CrossEntropy)
    schedule: Schedule | None = None
    batch_size: int = 64
    epochs: int | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    ema: float | None = None
    augment: Sequence[Augmentation] = ()
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: Literal["bfloat16", "float16"] | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise UsageError(f"Recipe: model must be an nn.Module, got {self.model!r}")
        for name in ("optimizer", "loss", "schedule"):
            value = getattr(self, name)
            if not callable(value) and not (name == "schedule" and value is None):
                raise UsageError(f"Recipe: {name} must be callable, such as SGD(lr=0.1), got {value!r}")
        if isinstance(self.loss, type):
            name = self.loss.__qualname__
            raise UsageError(f"Recipe: loss must be an instance, such as {name}(), got the class {name}")
        if isinstance(self.loss, nn.BCELoss):
            raise UsageError(
                "Recipe: nn.BCELoss is for models that end in a sigmoid, whose outputs are all above 0, which is the "
                "second class: leave the sigmoid out of the model and use BinaryCrossEntropy(), which includes it"
            )
        check_count("Recipe: batch_size", self.batch_size)
        if self.epochs is not None:
            check_count("Recipe: epochs", self.epochs)
        if self.clip_norm is not None and not is_between(0, self.clip_norm, float("inf")):
            raise UsageError(f"Recipe: clip_norm must be a number above 0, or None, got {self.clip_norm!r}")
        check_count("Recipe: accumulate", self.accumulate)
        if self.ema is not None and not is_between(0, self.ema, 1):
            raise UsageError(f"Recipe: ema must be a number in (0, 1), or None, got {self.ema!r}")
        if not isinstance(self.augment, Sequence) or not all(map(callable, self.augment)):
            raise UsageError(f"Recipe: augment must be a list, such as [RandomFlip()], got {self.augment!r}")
        check_groups(self.groups, self.model, self.optimizer)
        if self.precision not in (None, *PRECISIONS):
            raise UsageError(f"Recipe: precision must be one of None, {', '.join(PRECISIONS)}, got {self.precision!r}")
        if not isinstance(self.compile, bool):
            raise UsageError(f"Recipe: compile must be True or False, got {self.compile!r}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to train, on what data (`dataset`), for how long, and how often to evaluate.

    `recipe` returns a `Recipe`, or a `Training` of your own.

    `measure` is what is optimised: the name of a measure ("accuracy", "loss", "macro F1", "AUROC", "average precision",
    "balanced accuracy", "top-5 accuracy", "MSE", "RMSE", "MAE", "R2", ...), a metric of torchmetrics, or a `Measure` of
    your own, each with its direction. The measures in `also` are recorded beside it.

    `epochs` is the maximum for a trial. After every `interval` (a number of epochs, or `Steps`) a trial is evaluated,
    reported and made resumable. `n_trials`, `sampler` and `pruner` are defaults for the command line. `figures` maps
    file names to functions that take `hpsearch.results.Results` and return a matplotlib figure; `hpsearch report` adds
    these figures to the report, with the functions' docstrings as captions.
    """

    recipe: Callable[[Space], Recipe | Training]
    dataset: Callable[[], Dataset]
    # Turned into a Measure, as those of `also`.
    measure: Any = ACCURACY
    also: Sequence[Any] = ()
    epochs: int = 20
    interval: int | Steps = 1
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    n_trials: int = 50
    sampler: str = "tpe"
    pruner: str = "hyperband"
    seed: int = 0
    figures: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("recipe", "dataset"):
            if not callable(getattr(self, name)):
                raise UsageError(f"Study: {name} must be a function, got {getattr(self, name)!r}")
        check_count("Study: epochs", self.epochs)
        check_count("Study: n_trials", self.n_trials)
        if not isinstance(self.early_stopping, EarlyStopping):
            raise UsageError(f"Study: early_stopping must be an EarlyStopping(...), got {self.early_stopping!r}")
        if not isinstance(self.interval, Steps):
            check_count("Study: interval", self.interval)
        if isinstance(self.also, str) or not isinstance(self.also, Sequence):
            raise UsageError(f"Study: also must be a list of measures, got {self.also!r}")
        object.__setattr__(self, "measure", measure_of(self.measure))
        object.__setattr__(self, "also", tuple(map(measure_of, self.also)))
        columns = [measure.column for measure in self.measures]
        if twice := [column for index, column in enumerate(columns) if column in columns[:index]]:
            raise UsageError(f"Study: measure {twice[0]} is given twice: name them differently with Measure(name=...)")
        self.early_stopping.check(self.measure)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measure, and those recorded beside it."""
        return (self.measure, *self.also)

    @property
    def unit(self) -> str:
        """What users read for an interval: "epoch" if it is one."""
        return unit(self.interval)

    def trace(self, space: Space) -> Recipe | Training:
        """Run the recipe for its hyperparameters only: models are built on the meta device, which costs nothing.

        If that fails, for example for a model that reads a tensor's values when it is built, they are built normally,
        but not after a requirement that is not met: such a model may be too large to build.
        """
        try:
            with _shapes_only():
                return self._checked(self.recipe(space))
        except HpsearchError:
            raise
        except Exception:
            if space.unmet is not None:
                raise
            with seeded(0):
                return self._checked(self.recipe(space))

    def explore(self, look: Callable[[Space, Recipe | Training], None]) -> dict[str, Described]:
        """Trace the recipe throughout the space and call `look` with each result; return the parameters by name.

        Configurations that do not meet a requirement are included, as far as the recipe can make them.
        """

        def recipe(space: Space) -> Recipe | Training:
            traced = self.trace(space)
            look(space, traced)
            return traced

        return describe(recipe)

    def replay(self, params: Mapping[str, Any]) -> Recipe | Training:
        """Build the recipe at fixed `params`. Raises UsageError if they do not fit it."""
        return self._checked(replay(self.recipe, params))

    def load_data(self) -> Dataset:
        """Return the data set. Raises UsageError if the user's function returns something else, or its targets do not
        fit the measure.

        The random generators are seeded, so a function with torch's `random_split` gives the same data in every
        process.
        """
        with seeded(0):
            dataset = self.dataset()
        if not isinstance(dataset, Dataset):
            raise UsageError(f"Study: dataset must return a hpsearch.Dataset, got {type(dataset).__name__}")
        for measure in self.measures:
            for name in ("train", "validation", "test"):
                split = getattr(dataset, name)
                if isinstance(split, Split):
                    check_targets(measure, split.targets, dataset.classes, name)
        return dataset

    @staticmethod
    def _checked(recipe: Any) -> Recipe | Training:
        if not isinstance(recipe, Recipe | Training):
            raise UsageError(f"the recipe must return a hpsearch.Recipe or Training, got {type(recipe).__name__}")
        return recipe


@contextmanager
def _shapes_only() -> Iterator[None]:
    """Have models built on the meta device, and weights loaded there by `torch.load`, which then reads no numbers."""
    load = torch.load

    def load_shapes(f: Any, map_location: Any = None, *arguments: Any, **options: Any) -> Any:
        return load(f, "meta", *arguments, **options)

    torch.load = load_shapes
    try:
        with torch.device("meta"), warnings.catch_warnings():
            # Weights that are loaded in another way.
            warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter", UserWarning)
            yield
    finally:
        torch.load = load


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise UsageError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, got {brief(value)}")


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """A loaded study file: its name (the file's stem), its path, a digest of its text, and the study in it.

    Loading it took `seconds`.
    """

    name: str
    path: Path
    digest: str
    study: Study
    seconds: float = 0.0


def load_study(name_or_path: str) -> StudyFile:
    """Find and run a study file and return it with its `study`.

    Raises StudyFileError, with the user's line, if the file is missing, raises an error, or defines no `study`.
    """
    began = time.monotonic()
    path = find_study(name_or_path)
    content = path.read_bytes()
    module = types.ModuleType(f"hpsearch_study_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    if (folder := str(path.parent.resolve())) not in sys.path:
        sys.path.append(folder)
    with users_code(path):
        # Not imported: cached bytecode could be that of an older text than the digest's.
        exec(compile(content, str(path), "exec"), module.__dict__)
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        problem = f"`study` is a {type(study).__name__}" if study is not None else "no `study`"
        raise StudyFileError(f"{path}: {problem}; end the file with study = Study(recipe=..., dataset=...)")
    return StudyFile(
        name=path.stem,
        path=path.resolve(),
        digest=study_files.digest(content),
        study=study,
        seconds=time.monotonic() - began,
    )


@contextmanager
def users_code(path: Path) -> Iterator[None]:
    """Run code of the study file at `path`; its errors become StudyFileErrors that name the user's line.

    Raises StudyFileError as well if the code changes the working folder, in which relative paths are looked up.
    """
    folder = Path.cwd()
    try:
        yield
    except StudyFileError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, HpsearchError) and not _frames(error, path):
            raise
        raise StudyFileError(locate(error, path)) from error
    finally:
        moved = Path.cwd() != folder
        os.chdir(folder)
    if moved:
        raise StudyFileError(
            f"{path} changes the working folder, in which --runs and --storage are looked up: remove os.chdir and "
            f"give files as Path(__file__).parent / 'NAME'"
        )


def _frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]


def locate(error: BaseException, path: Path) -> str:
    """Return one line on where in the user's file an error arose: file, line number, the line, the error."""
    if isinstance(error, SyntaxError) and error.filename:
        line, text = error.lineno or 0, (error.text or "").strip()
        return f"{error.filename}:{line}: {text!r}: {type(error).__name__}: {error.msg}"
    frames = _frames(error, path)
    what = str(error) if isinstance(error, HpsearchError) else f"{type(error).__name__}: {error}"
    what = " ".join(what.split())
    return f"{path}:{frames[-1].lineno}: {frames[-1].line!r}: {what}" if frames else f"{path}: {what}"
