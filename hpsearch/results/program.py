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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.datasets import Dataset, length
from hpsearch.errors import UsageError
from hpsearch.loading import call, source, take
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
        self.preprocessing = preprocessing
        self.model = model
        self.answers = ANSWERS[answers]

    def forward(self, raw: Any) -> Tensor:
        raw = _mapped(_checking, raw)
        inputs = raw if self.preprocessing is None else self.preprocessing(raw)
        answers: Tensor = self.answers(call(self.model, inputs))
        return answers


def _checking(raw: Tensor) -> Tensor:
    """Return a tensor, which must be of this type and number of dimensions whenever the program is called.

    Without that it could give wrong answers to examples of another type, such as images from 0 to 1. The sizes are
    checked by torch.export, but not how many they are, of which `permute` needs the same.
    """
    torch._assert_tensor_metadata(raw, dtype=raw.dtype)
    return raw.permute(*range(raw.dim()))


def check_preprocessing(data: Dataset) -> None:
    """Raise UsageError if a data set's preprocessing does not make the test split's inputs of its raw examples."""
    if data.preprocessing is None or data.test is None:
        return
    raw, inputs = _batch(data, _places(data))
    preprocessing = copy.deepcopy(data.preprocessing).cpu().eval()
    try:
        with torch.no_grad():
            made = preprocessing(raw)
    except Exception as error:
        message = f"dataset: preprocessing fails on raw_test: {type(error).__name__}: {' '.join(str(error).split())}"
        # The traceback contains the user's lines.
        raise UsageError(message).with_traceback(error.__traceback__) from error
    got, expected = dict(_tensors(made)), dict(_tensors(inputs))
    forms = [{name: (tensor.dtype, tensor.shape) for name, tensor in each.items()} for each in (got, expected)]
    if forms[0] != forms[1]:
        raise UsageError(
            f"dataset: preprocessing makes {_described(got)} of raw_test, but the test split has "
            f"{_described(expected)}: they must be the same examples"
        )
    difference = _difference([got[name] for name in got], [expected[name] for name in got])
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
    buffer = io.BytesIO()
    # The errors of torch.export for models that it cannot export are not documented.
    try:
        model = _copied(model)
        batches = _batches(data)
        expected = [_answers(model, inputs, answers) for _, inputs in batches]
        whole = _Answering(data.preprocessing, model, answers).eval()
        raw = _two(data)
        with _quiet():
            program = torch.export.export(whole, (raw,), dynamic_shapes=(_mapped(_sizes(data), raw),))
            taken = iter(_taken(program))
            form = _mapped(lambda tensor: _form(next(taken)), raw)
            description = _description(data, form, expected[0], answers) | about
            torch.export.save(
                program, buffer, extra_files={DESCRIPTION: json.dumps(description, indent=2, default=str)}
            )
            content = buffer.getvalue()
            loaded = load_program(content)
            with torch.no_grad():
                found = [loaded(raw) for raw, _ in batches]
    except Exception as error:
        advice = ""
        if data.collate is not None and "Guard failed" in str(error):
            advice = "; recurrent layers are exported for one length: let collate pad all sequences to the same"
        return Program(error=f"the model cannot be exported with torch.export: {_first_line(error)}{advice}")
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

    # Neither are the errors of the exporter documented.
    try:
        model = _copied(model)
        batches = _batches(data)
        expected = [_answers(model, inputs, answers) for _, inputs in batches]
        raw = _two(data)
        with _quiet():
            made = torch.onnx.export(
                torch.export.load(io.BytesIO(program.content)),
                (raw,),
                input_names=[name for name, _ in _tensors(raw)],
                output_names=[program.description["output"]["kind"]],
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            made.model.metadata_props[DESCRIPTION] = json.dumps(program.description, default=str)
            content = made.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            fed = [{name: tensor.numpy() for name, tensor in _tensors(raw)} for raw, _ in batches]
            found = [torch.from_numpy(session.run(None, tensors)[0]) for tensors in fed]
    except Exception as error:
        return Program(error=f"the model cannot be exported to ONNX: {_first_line(error)}")
    return _compared(content, program.description, found, expected)


def _places(data: Dataset) -> Tensor:
    """Return indices from all parts of the test split."""
    assert data.test is not None
    count = length(data.test) if data.raw_test is None else len(data.raw_test)
    compared = min(count, COMPARED)
    return torch.arange(compared) * count // compared


def _batch(data: Dataset, places: Tensor) -> tuple[Any, Any]:
    """Return test examples as the program takes them, and as the model takes them, on the CPU."""
    cpu = torch.device("cpu")
    inputs, _ = take(source(data, "test", cpu), places, cpu)
    raw = inputs if data.raw_test is None else data.raw_test[places].cpu()
    return _mapped(lambda tensor: tensor, raw), inputs


def _batches(data: Dataset) -> list[tuple[Any, Any]]:
    """Return the batches on which a program is compared: if they are collated, an example of its own length as well."""
    places = _places(data)
    return [_batch(data, chosen) for chosen in ([places, places[:1]] if data.collate else [places])]


def _two(data: Dataset) -> Any:
    """Return two raw examples: torch.export takes the size of a batch of one for a constant.

    They are copies, because the program keeps them, with all the memory that they are a view of.
    """
    return _mapped(torch.clone, _batch(data, _places(data)[[0, -1]])[0])


def _sizes(data: Dataset) -> Callable[[Tensor], dict[int, Any]]:
    """Return which sizes of a tensor may differ from batch to batch: the first, or any if examples are collated."""
    batch = torch.export.Dim("batch", min=1, max=65_536)
    any_size = torch.export.Dim.AUTO
    return lambda tensor: dict.fromkeys(range(tensor.dim()), any_size) if data.collate else {0: batch}


def _copied(model: nn.Module) -> nn.Module:
    # `torch.export.save` keeps weights contiguous; in training they may have been channels last.
    copied: nn.Module = copy.deepcopy(model).cpu().eval()
    copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return copied


def _answers(model: nn.Module, inputs: Any, answers: str) -> Tensor:
    with torch.no_grad():
        return ANSWERS[answers](call(model, inputs))


def _description(data: Dataset, form: Any, found: Tensor, answers: str) -> dict[str, Any]:
    """Return what a program's file says of it: `form` is that of raw examples, `found` are answers."""
    about = getattr(data.preprocessing, "about", {})
    return {
        "input": {**about, "form": form, "preprocessing": data.preprocessing is not None},
        "output": {**_form(found), "kind": ANSWERS[answers].__name__},
        "classes": list(data.classes),
    }


def _taken(program: torch.export.ExportedProgram) -> list[Tensor]:
    """Return tensors of the types and shapes that a program takes; a size is symbolic where it takes any."""
    names = program.graph_signature.user_inputs
    return [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def _form(tensor: Tensor) -> dict[str, Any]:
    """Return a type and a shape: N is the number of examples, L any length."""
    sizes = [_size(size) for size in tensor.shape]
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["N", *sizes[1:]] if sizes else []}


def _size(size: Any) -> int | str:
    # A symbol may stand for a number, if the model takes no other.
    number: int | None = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else size
    return "L" if number is None else number


def _mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return a value with a function's results in place of its tensors, nested as `call` takes them, but in lists.

    Raises UsageError for anything else in it.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _mapped(function, item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return [_mapped(function, item) for item in value]
    raise UsageError(
        f"its inputs hold a {type(value).__name__}, and torch.export takes tensors, such as padded sequences and their "
        f"lengths in a dict"
    )


def _tensors(value: Any, name: str = "raw") -> list[tuple[str, Tensor]]:
    """Return the tensors of a value, nested as `call` takes them, by name: `raw_KEY` for those of a dict."""
    if isinstance(value, Mapping) or type(value) in (tuple, list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return [named for key, item in items for named in _tensors(item, f"{name}_{key}")]
    return [(name, value)] if isinstance(value, Tensor) else []


def _described(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors.values()) or "no tensor"


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference of tensors, relative to numbers above 1; NaN if there is one."""
    pairs = [(got.double(), wanted.double()) for got, wanted in zip(found, expected, strict=True)]
    differences = [((got - wanted).abs() / wanted.abs().clamp(min=1)).max() for got, wanted in pairs]
    # Nothing to compare, as a `PackedSequence`, differs in nothing. Unlike Python's, torch's maximum passes NaN on.
    return float(torch.stack(differences).max()) if differences else 0.0


def _compared(
    content: bytes, description: dict[str, Any], found: Sequence[Tensor], expected: Sequence[Tensor]
) -> Program:
    for got, wanted in zip(found, expected, strict=True):
        if got.shape != wanted.shape:
            return Program(error=f"the exported program's answers are {tuple(got.shape)}, not {tuple(wanted.shape)}")
    difference = _difference(found, expected)
    # Not `difference > TOLERANCE`, which is false for NaN.
    if not difference <= TOLERANCE:
        return Program(error=f"the exported program's answers differ from the model's by {difference:g}")
    return Program(content=content, description=description, examples=len(expected[0]), difference=difference)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let warnings, such as the one on an LSTM's weights, pass: the program is compared afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
