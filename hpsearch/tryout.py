"""Check a study on one batch of its data before it is run, so that an error in it is reported once, with its cause.

If one configuration fails, only its trial fails. A study is refused if several configurations from different parts of
its space fail in the same way.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.datasets import Dataset, Split, length
from hpsearch.errors import HpsearchError, StudyFileError, UsageError
from hpsearch.loading import EVALUATION_BATCH, Loader, Source, take
from hpsearch.measure import LOSS
from hpsearch.meters import make_meter
from hpsearch.optim import CrossEntropy, has_one_output
from hpsearch.own_run import OwnRun, start_run
from hpsearch.seeding import seeded
from hpsearch.space import Parameter, Params, Space, draw, middle
from hpsearch.study import Study, StudyFile, locate
from hpsearch.training import Run, forward

# The check is abandoned if the first batch takes longer.
SECONDS = 20.0
# Where the ends of the space do not meet its requirements: how many configurations are drawn, for how long at most.
DRAWN, DRAWN_SECONDS = 50, 2.0


def check_first_batch(study_file: StudyFile, data: Dataset, *, device: str = "cpu") -> None:
    """Try one batch with a configuration from the middle of the space, and with two others if that fails.

    Raises StudyFileError, with the user's line, if all of them fail with the same type of error. On a CPU the check
    runs in a separate process. If that crashes or hangs, nothing is raised, as another configuration may work.
    """
    separate = sys.platform == "linux" and torch.device(device).type == "cpu" and not torch.cuda.is_initialized()
    failure = (
        _in_another_process(_failure, study_file, data, device) if separate else _failure(study_file, data, device)
    )
    if failure is not None:
        raise StudyFileError(failure)


def try_batch(study: Study, params: Params, data: Dataset, *, device: str = "cpu", seed: int = 0) -> None:
    """Train and evaluate a configuration on one batch each, without an optimiser step; a `Training` is started only.

    If the targets are in memory, the batches contain the lowest and the highest of them. Raises what the user's code or
    torch raises, or UsageError if the cause is known.
    """
    run = start_run(study, params, data, seed=seed, device=device)
    if isinstance(run, OwnRun):
        return
    with seeded(seed, run.device):
        run.model.train()
        inputs, targets = take(run.train_split, _batch_indices(run.train_split, run.batch_size), run.device)
        with _explaining_errors(run, inputs, targets, augmenting=True):
            augmented, given = run.augment(inputs, targets)
        with _explaining_errors(run, augmented, given):
            outputs = forward(run.model, augmented, run.precision)
        with _explaining_errors(run, augmented, given, outputs):
            _check_one_output(run, outputs)
            _measure(run, outputs, targets)
            loss = _loss(run, outputs, given)
            _check_inputs(inputs, loss)
            loss.backward()
        run.model.eval()
        inputs, targets = take(run.validation_split, _batch_indices(run.validation_split, EVALUATION_BATCH), run.device)
        with torch.no_grad():
            with _explaining_errors(run, inputs, targets):
                outputs = forward(run.model, inputs, run.precision)
            with _explaining_errors(run, inputs, targets, outputs):
                _measure(run, outputs, targets)
                _check_inputs(inputs, _loss(run, outputs, targets))
            _check_names(data, targets)


def doubts(run: Run) -> list[str]:
    """Return what works but was probably not meant, in a line each, from one batch of the training examples."""
    indices = torch.arange(min(run.batch_size, length(run.train_split)))
    inputs, _ = take(run.train_split, indices, run.device)
    with seeded(run.seed, run.device), torch.no_grad():
        outputs = forward(run.model.eval(), inputs, run.precision)
    if isinstance(run.loss, CrossEntropy | nn.CrossEntropyLoss) and not has_one_output(outputs):
        sums = outputs.sum(dim=1)
        if outputs.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            return [
                "the model's outputs are probabilities, and cross-entropy applies softmax itself: "
                "leave the softmax out of the model"
            ]
    return []


# What changes the shape or the type of a tensor, as autograd names it.
_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "ToCopy")


def _check_one_output(run: Run, outputs: Tensor) -> None:
    """Raise UsageError if the one output that names a class, above 0 or not, is that of a sigmoid, so always above."""
    if not isinstance(outputs, Tensor) or not has_one_output(outputs):
        return
    node: Any = outputs.grad_fn
    while node is not None and node.name().startswith(_RESHAPES):
        node = node.next_functions[0][0]
    if node is not None and node.name().startswith("SigmoidBackward"):
        for measure in run.measures:
            if measure.targets == "classes":
                raise UsageError(
                    f"the model ends in a sigmoid, whose output is always above 0, which is the second class to the "
                    f"measure {measure.name}: leave the sigmoid out of the model and use BinaryCrossEntropy(), which "
                    f"includes it"
                )


def _measure(run: Run, outputs: Tensor, targets: Tensor) -> None:
    """Compute the measures of a batch. Raises UsageError if they do not fit the outputs and targets."""
    if not isinstance(outputs, Tensor):
        raise UsageError(f"the model must return one tensor of outputs, got a {type(outputs).__name__}")
    for measure in run.measures:
        if measure == LOSS:
            continue
        try:
            meter = make_meter(measure, run.device)
            meter.update(outputs.detach(), targets)
            # Of a single example, many measures are not defined.
            if len(targets) > 1:
                meter.compute()
        except HpsearchError:
            raise
        except Exception as error:
            what = f"outputs {_describe(outputs)} and targets {_describe(targets)}"
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"the measure {measure.name} fails on {what}: {text}") from error


def _loss(run: Run, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of a batch. Raises a warning of torch's that shapes are broadcast."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        return run.loss(outputs, targets)


def _check_names(data: Dataset, targets: Tensor) -> None:
    """Raise UsageError if class numbers, one for each example, go beyond the names of the classes."""
    one_each = not targets.is_floating_point() and targets.numel() == len(targets)
    if data.classes and one_each and int(targets.max()) >= max(len(data.classes), 2):
        raise UsageError(
            f"targets go up to {int(targets.max())}, but the data set names {len(data.classes)} classes, from 0 to "
            f"{len(data.classes) - 1}: name them all, or number classes from 0"
        )


def _check_inputs(inputs: Any, loss: Tensor) -> None:
    """Raise UsageError if inputs that are not finite make a loss that is not."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.isfinite().all():
        return
    if not loss.detach().isfinite().all():
        number = inputs[~inputs.isfinite()][0].item()
        raise UsageError(
            f"the data set's inputs hold {number:g}, and so the loss is {loss.detach().mean().item():g}: leave these "
            f"examples out, or fill in their missing values"
        )


def _batch_indices(split: Source, count: int) -> Tensor:
    """Return the indices of a batch: the first examples and, if in memory, the lowest and the highest target.

    An example whose inputs are not finite, if there is one, comes first.
    """
    count = min(split.batch_size if isinstance(split, Loader) else count, length(split))
    # Of a folder that is sorted by class, the first examples are of one.
    first = torch.arange(count) if isinstance(split, Split) else torch.linspace(0, length(split) - 1, count).long()
    extremes: list[int] = []
    if isinstance(split, Split) and split.inputs.is_floating_point():
        finite = split.inputs.isfinite().reshape(length(split), -1).all(dim=1)
        extremes += (~finite).nonzero()[:1, 0].tolist()
    if isinstance(split, Split) and split.targets.numel() == length(split):
        targets = split.targets.flatten()
        extremes += [int(targets.argmax()), int(targets.argmin())]
    if extremes:
        first = torch.tensor(list(dict.fromkeys([*extremes, *first.tolist()]))[:count])
    return first


@contextlib.contextmanager
def _explaining_errors(
    run: Run, inputs: Any, targets: Tensor, outputs: Tensor | None = None, *, augmenting: bool = False
) -> Iterator[None]:
    """Re-raise an error of the model, of the loss on its `outputs` or of the augmentation, with what explains it."""
    try:
        yield
    except HpsearchError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if augmenting:
            message = f"the augmentation, (inputs, targets) -> (inputs, targets), fails on {_describe(inputs)}: {text}"
        else:
            message = _model_message(run, inputs, text) if outputs is None else _loss_message(outputs, targets, text)
        # The traceback contains the user's lines.
        raise UsageError(message).with_traceback(error.__traceback__) from error


def _model_message(run: Run, inputs: Any, error: str) -> str:
    if "Expected more than 1 value per channel" in error:
        return f"batch norm needs more than one example in a batch to train on: batch_size is {run.batch_size}"
    return f"the model fails on inputs {_describe(inputs)}: {error}{_hint(inputs)}"


def _hint(inputs: Any) -> str:
    """Return what may be wrong with inputs, if that shows."""
    if not isinstance(inputs, Tensor):
        return ""
    if inputs.dtype == torch.float64:
        return "; inputs.float() makes them float32, as the model's weights are"
    if inputs.dtype == torch.uint8:
        return "; inputs.float() / 255 makes numbers of pixels"
    if inputs.dim() == 4 and inputs.shape[3] in (1, 3, 4) and inputs.shape[1] not in (1, 3, 4):
        return "; images are (N, channels, height, width): inputs.permute(0, 3, 1, 2)"
    return ""


def _loss_message(outputs: Tensor, targets: Tensor, error: str) -> str:
    if not targets.is_floating_point() and not has_one_output(outputs):
        high, classes = int(targets.max()), outputs.shape[1]
        if high >= classes:
            return f"targets go up to {high}, but the model has {classes} outputs, for classes from 0 to {classes - 1}"
    if "Using a target size" in error:
        return (
            f"the loss would compare every output with every target, because outputs are {tuple(outputs.shape)} and "
            f"targets {tuple(targets.shape)}: give both one shape, as with targets[:, None], or use hpsearch's MSE()"
        )
    if "scalar outputs" in error:
        return "the loss is not a single number: average it over the batch"
    return f"the loss fails on outputs {_describe(outputs)} and targets {_describe(targets)}: {error}"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_describe(item)}" for name, item in value.items())
    if type(value) in (tuple, list):
        return ", ".join(map(_describe, value))
    return f"a {type(value).__name__}"


class _EndSpace(Space):
    """A space that gives each parameter the first or the last of its `probes`."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index

    def _pick(self, parameter: Parameter) -> Any:
        return parameter.probes[self._index]


def _failure(study_file: StudyFile, data: Dataset, device: str) -> str | None:
    """Return the error of the study in one line, or None if a configuration works or their errors differ."""
    study = study_file.study
    line, kinds = "", set()
    for number, params in enumerate(_distinct_params(study)):
        try:
            try_batch(study, params, data, device=device)
        except Exception as error:
            kinds.add(type(error.__cause__ or error))
            # The error at the middle of the space is the most typical one.
            line = line or f"{locate(error, study_file.path)} (in the first batch, with {_format(params)})"
        else:
            return None
        if len(kinds) > 1 or number == 2:
            break
    return line if len(kinds) == 1 else None


def _distinct_params(study: Study) -> Iterator[Params]:
    """Yield the params at the middle, the lower and the upper end of the space, without duplicates.

    Where an end does not meet the requirements, others that do are drawn. There may be none.
    """
    tried: list[Params] = []
    with contextlib.suppress(UsageError):
        tried.append(middle(study.trace))
        yield tried[0]
    ends = [_at_end(study, index) for index in (0, -1)]
    drawn = draw(study.trace, DRAWN, DRAWN_SECONDS) if any(space.unmet is not None for space in ends) else ()
    for space in (*ends, *drawn):
        if space.unmet is None and space.params not in tried:
            tried.append(space.params)
            yield space.params


def _at_end(study: Study, index: int) -> Space:
    space = _EndSpace(index)
    # An error here is raised again, and handled, when the params are tried.
    with contextlib.suppress(Exception):
        study.trace(space)
    return space


def _format(params: Params) -> str:
    texts = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items())
    return " ".join(texts) or "no parameters"


def _in_another_process(function: Callable[..., str | None], *arguments: Any) -> str | None:
    """Return the result of `function` in a fork of this process, or None if it crashes or takes longer than SECONDS.

    The fork uses one thread, as the worker processes of torch's `DataLoader` do: threads are not copied by a fork.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, function, *arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()
        ours.close()


def _send(connection: Connection, function: Callable[..., str | None], *arguments: Any) -> None:
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    connection.send(function(*arguments))
    # Skip the exit handlers that the parent registered.
    os._exit(0)
