"""Trying a study out on one real batch before it is run, so that what cannot work is said once and with its cause.

One configuration that fails is a trial that fails. A study is refused when several from different parts of its space
fail in the same way.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from hpsearch.datasets import Dataset, Examples, Split, length
from hpsearch.errors import HpsearchError, StudyFileError, UsageError
from hpsearch.optim import has_one_output
from hpsearch.seeding import seeded
from hpsearch.space import Parameter, Params, Space, middle
from hpsearch.study import Study, StudyFile, locate
from hpsearch.training import EVALUATION_BATCH, Run, class_numbers, take

# A first batch that takes longer is not waited for.
SECONDS = 20.0


def check_first_batch(study_file: StudyFile, data: Dataset, *, device: str = "cpu") -> None:
    """Try a batch of a configuration from the middle of the space, and two others where that fails.

    Raises StudyFileError, with the user's line, if all of them fail with the same type of error. On a CPU it happens in
    a process of its own, which may crash or hang: then nothing is said, as another configuration may do better.
    """
    apart = sys.platform == "linux" and torch.device(device).type == "cpu" and not torch.cuda.is_initialized()
    failure = _in_another_process(_failure, study_file, data, device) if apart else _failure(study_file, data, device)
    if failure is not None:
        raise StudyFileError(failure)


def try_batch(study: Study, params: Params, data: Dataset, *, device: str = "cpu", seed: int = 0) -> None:
    """Train and evaluate a configuration on one batch each, without a step of its optimiser.

    The batches have the lowest and the highest of the targets in memory. Raises what the user's code or torch raises,
    or UsageError where it is known what does not fit.
    """
    run = Run(study, params, data, seed=seed, device=device)
    with seeded(seed, run.device):
        run.model.train()
        inputs, targets = take(run.train_split, _telling(run.train_split, run.batch_size), run.device)
        with _explained(run, inputs, targets):
            outputs = run.model(inputs)
        with _explained(run, inputs, targets, outputs):
            class_numbers(outputs, targets)
            run.loss(outputs, targets).backward()
        run.model.eval()
        inputs, targets = take(run.validation_split, _telling(run.validation_split, EVALUATION_BATCH), run.device)
        with torch.no_grad():
            with _explained(run, inputs, targets):
                outputs = run.model(inputs)
            with _explained(run, inputs, targets, outputs):
                class_numbers(outputs, targets)
                run.loss(outputs, targets)


def _telling(split: Examples, count: int) -> Tensor:
    """Return the indices of a batch: the first examples, and in memory those of the lowest and the highest target."""
    count = min(count, length(split))
    first = torch.arange(count)
    if isinstance(split, Split) and split.targets.numel() == length(split):
        targets = split.targets.flatten()
        extremes = [int(targets.argmax()), int(targets.argmin())]
        first = torch.tensor(list(dict.fromkeys([*extremes, *first.tolist()]))[:count])
    return first


@contextlib.contextmanager
def _explained(run: Run, inputs: Tensor, targets: Tensor, outputs: Tensor | None = None) -> Iterator[None]:
    """Turn an error of the model, or of the loss on its `outputs`, into one that says what does not fit."""
    try:
        yield
    except HpsearchError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        why = _of_the_model(run, inputs, what) if outputs is None else _of_the_loss(outputs, targets, what)
        # With the user's lines in it.
        raise UsageError(why).with_traceback(error.__traceback__) from error


def _of_the_model(run: Run, inputs: Tensor, what: str) -> str:
    if "Expected more than 1 value per channel" in what:
        return f"batch norm needs more than one example in a batch to train on: batch_size is {run.batch_size}"
    return f"the model fails on inputs {_shown_tensor(inputs)}: {what}"


def _of_the_loss(outputs: Tensor, targets: Tensor, what: str) -> str:
    if not targets.is_floating_point() and not has_one_output(outputs):
        high, classes = int(targets.max()), outputs.shape[1]
        if high >= classes:
            return f"targets go up to {high}, but the model has {classes} outputs, for classes from 0 to {classes - 1}"
    if "scalar outputs" in what:
        return "the loss is no single number: average it over the batch"
    return f"the loss fails on outputs {_shown_tensor(outputs)} and targets {_shown_tensor(targets)}: {what}"


def _shown_tensor(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


class _EndSpace(Space):
    """Answers with the first or the last of each parameter's probing values."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index

    def _pick(self, parameter: Parameter) -> Any:
        return parameter.probes[self._index]


def _failure(study_file: StudyFile, data: Dataset, device: str) -> str | None:
    """Return one line on what is wrong with the study, or None if a configuration works or they fail differently."""
    study = study_file.study
    line, kinds = "", set()
    for number, params in enumerate(_different(study)):
        try:
            try_batch(study, params, data, device=device)
        except Exception as error:
            kinds.add(type(error.__cause__ or error))
            # That of the middle is the likeliest to be understood.
            line = line or f"{locate(error, study_file.path)} (in the first batch, with {_shown(params)})"
        else:
            return None
        if len(kinds) > 1 or number == 2:
            break
    return line if len(kinds) == 1 else None


def _different(study: Study) -> Iterator[Params]:
    """Yield params from the middle, the lower and the upper end of the space, equal ones once."""
    tried: list[Params] = []
    for where in ("middle", 0, -1):
        params = _at_end(study, where) if isinstance(where, int) else middle(study.trace)
        if params not in tried:
            tried.append(params)
            yield params


def _at_end(study: Study, index: int) -> Params:
    space = _EndSpace(index)
    # What it raises is raised again, and counted, where its params are tried.
    with contextlib.suppress(Exception):
        study.trace(space)
    return space.params


def _shown(params: Params) -> str:
    texts = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items())
    return " ".join(texts) or "no parameters"


def _in_another_process(function: Callable[..., str | None], *arguments: Any) -> str | None:
    """Return what `function` returns in a copy of this process, or None if that crashes or takes longer than SECONDS.

    As the worker processes of torch's `DataLoader` do, it works with one thread: the others are not copied.
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
    # The terminal's interrupt is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    connection.send(function(*arguments))
    # Not the interpreter's end, with what others registered for it.
    os._exit(0)
