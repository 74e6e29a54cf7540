"""The final model as a program of `torch.export`, compared with the model it was made from."""

import copy
import io
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from hpsearch.datasets import Examples, length
from hpsearch.training import take

# The largest difference allowed between the outputs of the model and of the exported program.
TOLERANCE = 1e-4
# The number of test examples on which they are compared.
COMPARED = 256


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model exported by `torch.export`, or the `error` for which it could not be exported.

    `difference` is the largest difference between its outputs and the model's on `examples` examples.
    """

    content: bytes = b""
    examples: int = 0
    difference: float = 0.0
    error: str | None = None


def export_program(model: nn.Module, split: Examples) -> Program:
    """Return a model as a program for any batch size, compared on the first examples of `split`.

    The program is loaded back from its bytes before it is compared. Its `error` is set if it differs by more than
    `TOLERANCE`, or if the model cannot be exported.
    """
    inputs, _ = take(split, torch.arange(min(COMPARED, length(split))), torch.device("cpu"))
    inputs = inputs.cpu()
    # A clone, because the program keeps its example inputs, with all the memory they are a view of.
    batch = torch.export.Dim("batch", min=1, max=65_536)
    try:
        # `torch.export.save` keeps weights contiguous; in training they may have been channels last.
        model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        with warnings.catch_warnings():
            # Warnings, such as the one on an LSTM's weights, do not matter: the program is compared below.
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (inputs[:2].clone(),), dynamic_shapes=({0: batch},))
    # The errors of torch.export for models that it cannot export are not documented.
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        return Program(error=f"the model cannot be exported with torch.export: {first_line}")
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        difference = float((loaded(inputs) - model(inputs)).abs().max())
    # Not `difference > TOLERANCE`, which is false for NaN.
    if not difference <= TOLERANCE:
        return Program(error=f"the exported program's outputs differ from the model's by {difference:g}")
    return Program(content=content, examples=len(inputs), difference=difference)
