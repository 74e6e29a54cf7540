"""The final model as one file that needs no hpsearch: raw examples in, named classes with probabilities out.

A program is the data set's preprocessing, the model, and what makes answers of its outputs. It is loaded back from its
bytes and compared with the model on raw test examples. Its file says in JSON what goes in and what comes out.
"""

import contextlib
import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.datasets import Dataset, length
from hpsearch.errors import UsageError
from hpsearch.loading import source, take
from hpsearch.optim import has_one_output

# The largest difference allowed between the answers of the model and of the exported program.
TOLERANCE = 1e-4
# The number of test examples on which they are compared.
COMPARED = 256
# The name of the description within the files.
DESCRIPTION = "model.json"
# What `export_onnx` imports, beside torch.
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Program:
    """An exported program, or the `error` for which there is none.

    `difference` is the largest difference between its answers and the model's on `examples` examples. `description` is
    what its file says of itself.
    """

    content: bytes = b""
    description: dict[str, Any] = field(default_factory=dict)
    examples: int = 0
    difference: float = 0.0
    error: str | None = None


def probabilities(outputs: Tensor) -> Tensor:
    """Return the probabilities of the classes, (N, classes, ...): softmax, or the sigmoid of one output."""
    if not has_one_output(outputs):
        return outputs.softmax(dim=1)
    second = outputs.unsqueeze(1) if outputs.dim() == 1 else outputs
    return torch.cat([(-second).sigmoid(), second.sigmoid()], dim=1)


def predictions(outputs: Tensor) -> Tensor:
    """Return the outputs: predicted numbers."""
    return outputs


def outputs(outputs: Tensor) -> Tensor:
    """Return the outputs, of which nothing is known."""
    return outputs


# What makes answers of a model's outputs, by what a study's models answer; a function's name says what the answers are.
ANSWERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "classes": probabilities,
    "numbers": predictions,
    "other": outputs,
}


class _Answering(nn.Module):
    """A model between its preprocessing and its answers."""

    def __init__(self, preprocessing: nn.Module | None, model: nn.Module, answers: str) -> None:
        super().__init__()
        self.preprocessing = preprocessing or nn.Identity()
        self.model = model
        self.answers = ANSWERS[answers]

    def forward(self, raw: Tensor) -> Tensor:
        # Otherwise the program could give wrong answers to examples of another type, such as images from 0 to 1. Nor
        # does torch.export check the number of dimensions, of which `permute` needs the same.
        torch._assert_tensor_metadata(raw, dtype=raw.dtype)
        inputs = self.preprocessing(raw.permute(*range(raw.dim())))
        answers: Tensor = self.answers(self.model(inputs))
        return answers


def check_preprocessing(data: Dataset) -> None:
    """Raise UsageError if a data set's preprocessing does not make the test split's inputs of its raw examples."""
    if data.preprocessing is None or data.test is None:
        return
    raw, inputs = _examples(data)
    preprocessing = copy.deepcopy(data.preprocessing).cpu().eval()
    try:
        with torch.no_grad():
            made = preprocessing(raw)
    except Exception as error:
        message = f"dataset: preprocessing fails on raw_test: {type(error).__name__}: {' '.join(str(error).split())}"
        # The traceback contains the user's lines.
        raise UsageError(message).with_traceback(error.__traceback__) from error
    if not isinstance(made, Tensor) or made.shape != inputs.shape or made.dtype != inputs.dtype:
        got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise UsageError(
            f"dataset: preprocessing makes {got} of raw_test, but the test split has {inputs.dtype} "
            f"{tuple(inputs.shape)}: they must be the same examples"
        )
    difference = float((made - inputs).abs().max())
    if not difference <= TOLERANCE:
        raise UsageError(
            f"dataset: what preprocessing makes of raw_test differs from the test split's inputs by {difference:g}: "
            f"they must be the same examples, preprocessed as in training"
        )


def export_program(model: nn.Module, data: Dataset, answers: str = "classes", **about: Any) -> Program:
    """Return a model as a program of `torch.export` for any batch size; its file says what `about` says as well.

    `answers`, a key of `ANSWERS`, is what it answers. With preprocessing it takes raw examples, and is compared on
    those of the test split. Its `error` is set if its answers differ by more than `TOLERANCE`, or if the model cannot
    be exported.
    """
    batch = torch.export.Dim("batch", min=1, max=65_536)
    buffer = io.BytesIO()
    # The errors of torch.export for models that it cannot export are not documented.
    try:
        raw, inputs = _examples(data)
        model = _copied(model)
        expected = _answers(model, inputs, answers)
        description = _described(data, raw, expected, answers) | about
        whole = _Answering(data.preprocessing, model, answers).eval()
        with _quiet():
            # Two examples, because torch.export takes a batch of one for a constant; copied, because the program keeps
            # them, with all the memory that they are a view of.
            program = torch.export.export(whole, (raw[[0, -1]],), dynamic_shapes=({0: batch},))
            torch.export.save(
                program, buffer, extra_files={DESCRIPTION: json.dumps(description, indent=2, default=str)}
            )
            content = buffer.getvalue()
            with torch.no_grad():
                found = load_program(content)(raw)
    except Exception as error:
        return Program(error=f"the model cannot be exported with torch.export: {_first_line(error)}")
    return _compared(content, description, found, expected)


def load_program(content: bytes) -> nn.Module:
    """Return the program of a file's content."""
    return torch.export.load(io.BytesIO(content)).module()


def check_onnx() -> None:
    """Raise UsageError if a package that `export_onnx` needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if not _is_installed(name)]
    if missing:
        raise UsageError(f"--onnx needs {' and '.join(missing)}: pip install 'hpsearch[onnx]'")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    # Of a package that is imported without one.
    except ValueError:
        return False


def export_onnx(program: Program, model: nn.Module, data: Dataset, answers: str = "classes") -> Program:
    """Return an exported program in the ONNX format, compared with the model as `export_program` does it.

    Its answers are those of onnxruntime on the CPU. Needs what `check_onnx` checks.
    """
    if program.error is not None:
        return Program(error=program.error)
    import onnxruntime

    raw, inputs = _examples(data)
    # Neither are the errors of the exporter documented.
    try:
        expected = _answers(_copied(model), inputs, answers)
        with _quiet():
            exported = torch.export.load(io.BytesIO(program.content))
            made = torch.onnx.export(
                exported,
                (raw[[0, -1]],),
                input_names=["raw"],
                output_names=[program.description["output"]["kind"]],
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.model.metadata_props[DESCRIPTION] = json.dumps(program.description, default=str)
            content = made.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (found,) = session.run(None, {"raw": raw.numpy()})
    except Exception as error:
        return Program(error=f"the model cannot be exported to ONNX: {_first_line(error)}")
    return _compared(content, program.description, torch.from_numpy(found), expected)


def _examples(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return examples from all parts of the test split as the program takes them, and their inputs, on the CPU."""
    assert data.test is not None
    count = length(data.test) if data.raw_test is None else len(data.raw_test)
    compared = min(count, COMPARED)
    places = torch.arange(compared) * count // compared
    cpu = torch.device("cpu")
    inputs, _ = take(source(data, "test", cpu), places, cpu)
    if not isinstance(inputs, Tensor):
        raise UsageError(f"its inputs are a {type(inputs).__name__}, not one tensor")
    inputs = inputs.cpu()
    return (inputs if data.raw_test is None else data.raw_test[places].cpu()), inputs


def _copied(model: nn.Module) -> nn.Module:
    # `torch.export.save` keeps weights contiguous; in training they may have been channels last.
    copied: nn.Module = copy.deepcopy(model).cpu().eval()
    copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return copied


def _answers(model: nn.Module, inputs: Tensor, answers: str) -> Tensor:
    with torch.no_grad():
        return ANSWERS[answers](model(inputs))


def _described(data: Dataset, raw: Tensor, found: Tensor, answers: str) -> dict[str, Any]:
    """Return what a program's file says of it."""
    about = getattr(data.preprocessing, "about", {})
    return {
        "input": {**about, **_format(raw), "preprocessing": data.preprocessing is not None},
        "output": {**_format(found), "kind": ANSWERS[answers].__name__},
        "classes": list(data.classes),
    }


def _format(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["N", *tensor.shape[1:]]}


def _compared(content: bytes, description: dict[str, Any], found: Tensor, expected: Tensor) -> Program:
    if found.shape != expected.shape:
        return Program(error=f"the exported program's answers are {tuple(found.shape)}, not {tuple(expected.shape)}")
    difference = float((found - expected).abs().max())
    # Of large numbers a share. Not `difference > TOLERANCE`, which is false for NaN.
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        return Program(error=f"the exported program's answers differ from the model's by {difference:g}")
    return Program(content=content, description=description, examples=len(expected), difference=difference)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let warnings, such as the one on an LSTM's weights, pass: the program is compared afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
