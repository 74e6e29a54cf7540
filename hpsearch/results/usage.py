"""The model card's section on use: plain PyTorch that loads the exported program and asks it."""

from typing import Any

from torch import nn

from hpsearch.optim import BinaryCrossEntropy, CrossEntropy
from hpsearch.results.program import DESCRIPTION, Program

WEIGHTS = "`model.pt` holds the weights alone, for `hpsearch.checkpoint.load`."
# The losses that make of softmax, or the sigmoid, of the outputs what they call probabilities.
LIKELIHOODS = (CrossEntropy, BinaryCrossEntropy, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)


def usage(program: Program, onnx: Program | None, loss: Any) -> str:
    """Return the section, for a model trained with `loss`; `onnx` is None unless it was asked for."""
    if program.error is not None:
        return f"There is no exported program: {program.error}. {WEIGHTS}"
    about = program.description
    imports, reading = _reading(about["input"])
    return f"""```python
import json

{imports}

files = {{"{DESCRIPTION}": ""}}
program = torch.export.load("model.pt2", extra_files=files).module()
about = json.loads(files["{DESCRIPTION}"])

{reading}
{_asking(about)}
```

It takes {_preprocessing(about["input"])}
{_answers(about["output"], loss)}

`model.pt2` was loaded back: on {_compared(program)}.
{WEIGHTS}{_onnx(onnx, about)}"""


def _reading(taken: dict[str, Any]) -> tuple[str, str]:
    """Return the imports, and the lines that make `raw`, the tensor that the program takes."""
    # What a user's own module says of itself may lack any of these.
    if taken.get("kind") == "image" and taken.keys() >= {"mode", "height", "width", "resized"}:
        return "import numpy\nimport torch\nfrom PIL import Image", _image_lines(taken)
    if taken.get("kind") == "table":
        return "import pandas\nimport torch", _TABLE_LINES
    return "import torch", f"raw = {_zeros(taken['form'])}  # in place of your examples"


def _is_tensor(form: Any) -> bool:
    return isinstance(form, dict) and form.keys() == {"dtype", "shape"}


def _zeros(form: Any) -> str:
    """Return what makes one example of zeros; it is long where an example may have any length."""
    if _is_tensor(form):
        sizes = {"N": "1", "L": "20"}
        shape = ", ".join(sizes.get(size, str(size)) for size in form["shape"])
        return f"torch.zeros({shape or '()'}, dtype=torch.{form['dtype']})"
    if isinstance(form, dict):
        return f"{{{', '.join(f'{key!r}: {_zeros(item)}' for key, item in form.items())}}}".replace("'", '"')
    return f"[{', '.join(map(_zeros, form))}]"


def _text(form: Any) -> str:
    if _is_tensor(form):
        return f"{form['dtype']} {_shape(form)}"
    if isinstance(form, dict):
        return f"a dict of {', '.join(f'{key}: {_text(item)}' for key, item in form.items())}"
    return f"a list of {', '.join(map(_text, form))}"


def _image_lines(taken: dict[str, Any]) -> str:
    height, width, mode = taken["height"], taken["width"], taken["mode"]
    fitted = f"""
# As in training: resized until it covers {height}x{width}, and cropped at its centre.
width, height = image.size
size = max({width}, {height} * width // height), max({height}, {width} * height // width)
left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)
image = image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + {width}, top + {height}))"""
    return f"""image = Image.open("image.png").convert("{mode}"){fitted if taken["resized"] else ""}
raw = torch.from_numpy(numpy.array(image)).reshape(1, {height}, {width}, {len(mode)}).permute(0, 3, 1, 2)"""


# A category that was made a text, because those of its column are of several types, is found as one.
_TABLE_LINES = """def number(value, name, categories=None):
    value = None if pandas.isna(value) else value
    if categories is None:
        return float("nan" if value is None else value)
    same = [known == value or None not in (known, value) and str(known) == str(value) for known in categories]
    places = [place for place, known in enumerate(same) if known]
    return places[0] if places else -1  # a category that was not in training


columns = about["input"]["columns"]
texts = {c["name"]: str for c in columns if any(isinstance(known, str) for known in c.get("categories", []))}
rows = pandas.read_csv("rows.csv", dtype=texts).to_dict("records")
raw = [[number(row[column["name"]], **column) for column in columns] for row in rows]
raw = torch.tensor(raw, dtype=torch.float64)"""


def _asking(about: dict[str, Any]) -> str:
    kind = about["output"]["kind"]
    asking = f"{kind} = program(raw)  # {_shape(about['output'])}"
    if kind != "probabilities" or len(about["output"]["shape"]) != 2:
        return asking
    return f"""{asking}
for row in {kind}:
    print(about["classes"][row.argmax()], f"{{row.max():.1%}}")"""


def _shape(form: dict[str, Any]) -> str:
    return f"({', '.join(map(str, form['shape']))}{',' * (len(form['shape']) == 1)})"


def _preprocessing(taken: dict[str, Any]) -> str:
    form = f"{_text(taken['form'])}, any number N of examples; another type or shape is an error."
    if taken.get("kind") == "image":
        return f"{form}\nPixels are of 8 bits, from 0 to 255: it scales and normalises them itself."
    if taken.get("kind") == "table":
        return f"""{form}
The columns are in the order of `about["input"]["columns"]`. It standardises numbers itself, NaN where they are missing,
and encodes categories, which are given by their place among those of their column."""
    if taken["preprocessing"]:
        return f"{form}\nThey are {taken.get('description', 'raw examples')}: it preprocesses them itself."
    return f"{form}\nThey are as the study's data set function gives them: there is no preprocessing in the file."


def _answers(answered: dict[str, Any], loss: Any) -> str:
    if answered["kind"] != "probabilities":
        return f"It returns the model's outputs{', the predicted numbers' * (answered['kind'] == 'predictions')}."
    text = 'It returns the probabilities of the classes in `about["classes"]`.'
    if isinstance(loss, LIKELIHOODS):
        return text
    name = getattr(loss, "__name__", type(loss).__name__)
    return (
        f"{text} They are the outputs' softmax, or the sigmoid of a single output: the loss, {name}, need not make "
        f"these probabilities, so only their order counts."
    )


def _compared(program: Program) -> str:
    what = program.description["output"]["kind"]
    return f"{program.examples} test examples its {what} differ from the model's\nby at most {program.difference:.1e}"


def _onnx(onnx: Program | None, about: dict[str, Any]) -> str:
    if onnx is None:
        return ""
    if onnx.error is not None:
        return f"\n\nThere is no `model.onnx`: {onnx.error}."
    return f"""

`model.onnx` is the same program for onnxruntime: on {_compared(onnx)}. It checks types and shapes, but no values.

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
{about["output"]["kind"]} = session.run(None, {{{_fed(about["input"]["form"], "raw", "raw")}}})[0]
about = json.loads(session.get_modelmeta().custom_metadata_map["{DESCRIPTION}"])
```"""


def _fed(form: Any, name: str, value: str) -> str:
    """Return the tensors by their names, as arrays."""
    if _is_tensor(form):
        return f'"{name}": {value}.numpy()'
    items = form.items() if isinstance(form, dict) else enumerate(form)
    parts = [_fed(item, f"{name}_{key}", f"{value}[{key!r}]".replace("'", '"')) for key, item in items]
    return ", ".join(parts)
