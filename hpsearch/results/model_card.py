"""The files of a final model: weights, a checked exported program, tables, a figure, a model card."""

import copy
import io
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from hpsearch import checkpoint
from hpsearch.baseline import baseline_of
from hpsearch.checkpoint import write_atomically
from hpsearch.datasets import Dataset, Split, length
from hpsearch.loading import Source, source, take
from hpsearch.measure import ACCURACY, column_of
from hpsearch.optim import has_one_output
from hpsearch.provenance import machine, versions, versions_line
from hpsearch.results import markdown
from hpsearch.results.configurations import Configuration
from hpsearch.results.figures import COLOURS, make_figure, write_figure
from hpsearch.results.retrain import Evaluation, luck
from hpsearch.text import plural
from hpsearch.training import Run

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


@dataclass(frozen=True, kw_only=True)
class FinalModel:
    """A trained model and the results that led to it.

    `candidates` and `confirmed` are the frames of `hpsearch.results.retrain`, `command` is what was typed.
    """

    configuration: Configuration
    run: Run
    data: Dataset
    candidates: pd.DataFrame
    confirmed: pd.DataFrame
    evaluation: Evaluation
    program: Program
    command: str
    device: str


def export_program(model: nn.Module, split: Source) -> Program:
    """Return a model as a program for any batch size, compared on the first examples of `split`.

    The program is loaded back from its bytes before it is compared. Its `error` is set if it differs by more than
    `TOLERANCE`, or if the model cannot be exported.
    """
    inputs, _ = take(split, torch.arange(min(COMPARED, length(split))), torch.device("cpu"))
    if not isinstance(inputs, Tensor):
        return Program(error=f"a model whose inputs are a {type(inputs).__name__}, not one tensor, is not exported")
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


def write_model(folder: Path, final: FinalModel) -> dict[str, Any]:
    """Write all of a final model's files; return what `result.json` holds."""
    configuration, run = final.configuration, final.run
    evaluation, program = final.evaluation, final.program
    model = run.evaluated.cpu()
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    digest = checkpoint.digest(weights)
    folder.mkdir(parents=True, exist_ok=True)
    tested = list(dict.fromkeys([*_tested_before(folder), digest]))
    checkpoint.save(folder / "model.pt", {"model": weights, "params": configuration.params, "intervals": run.interval})
    (folder / "model.pt2").unlink(missing_ok=True)
    if program.error is None:
        write_atomically(folder / "model.pt2", program.content)
    result = {
        "configuration": configuration.digest,
        "params": configuration.params,
        "seed": configuration.trial_seed,
        "intervals": run.interval,
        "epochs": run.step / run.steps_per_epoch,
        "parameters": run.parameters,
        "weights_digest": digest,
        "test_examples": evaluation.examples,
        **({"test_correct": evaluation.correct} if evaluation.count else {}),
        **{f"test_{column_of(name)}": value for name, value in evaluation.values.items()},
        f"test_{evaluation.measure.column}_95": [evaluation.low, evaluation.high],
        "exported_difference": program.difference if program.error is None else program.error,
        "tested": tested,
        "versions": versions(),
    }
    write_atomically(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    write_atomically(folder / "candidates.csv", final.candidates.to_csv(index=False).encode())
    write_atomically(folder / "confirmed.csv", final.confirmed.to_csv(index=False).encode())
    if evaluation.classes is not None and evaluation.confusion is not None:
        write_atomically(folder / "classes.csv", evaluation.classes.to_csv(index=False).encode())
        write_atomically(folder / "confusion.csv", evaluation.confusion.to_csv(index_label="true").encode())
        write_figure(plot_confusion(evaluation.confusion), folder / "confusion.png")
    if evaluation.numbers is not None:
        write_atomically(folder / "predictions.csv", evaluation.numbers.to_csv(index=False).encode())
        write_figure(plot_residuals(evaluation.numbers), folder / "residuals.png")
    page = _card(final, digest, tested=len(tested))
    write_atomically(folder / "card.md", page.encode())
    return result


def plot_confusion(confusion: pd.DataFrame) -> Figure:
    """Return a figure of a confusion matrix: counts, shaded by their share of the true class, errors in bold."""
    count, numbers = len(confusion), confusion.to_numpy(dtype=int)
    figure, ((axes,),) = make_figure(height=min(3 + 0.42 * count, 9))
    shares = numbers / numbers.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(count):
        for column in range(count):
            if number := numbers[row, column]:
                right = row == column
                colour = "white" if shares[row, column] > 0.5 else "black" if right else "#A03000"
                weight = "normal" if right else "bold"
                axes.text(column, row, str(number), ha="center", va="center", color=colour, weight=weight, fontsize=9)
    turn = 45 if max(map(len, map(str, confusion.columns))) > 3 else 0
    axes.set_xticks(range(count), list(confusion.columns), rotation=turn, ha="right" if turn else "center")
    axes.set_yticks(range(count), list(confusion.index))
    axes.set(xlabel="Predicted class", ylabel="True class")
    figure.colorbar(image, ax=axes, label="Share of the true class", fraction=0.04, pad=0.02)
    return figure


def plot_residuals(numbers: pd.DataFrame) -> Figure:
    """Return a figure of predicted against true numbers, and of the residuals (true minus predicted)."""
    figure, ((against, left),) = make_figure(1, 2, height=4.2)
    outputs = numbers.groupby("output") if "output" in numbers else [(None, numbers)]
    size = float(np.clip(4000 / max(len(numbers), 1), 2, 30))
    for index, (output, rows) in enumerate(outputs):
        colour, label = COLOURS[index % len(COLOURS)], None if output is None else f"output {output!s}"
        against.scatter(rows["true"], rows["predicted"], s=size, alpha=0.6, linewidths=0, color=colour, label=label)
        left.hist(rows["true"] - rows["predicted"], bins=40, color=colour, alpha=0.7)
    ends = (float(numbers["true"].min()), float(numbers["true"].max()))
    against.plot(ends, ends, color="black", linewidth=1)
    against.set(xlabel="True", ylabel="Predicted")
    left.axvline(0, color="black", linewidth=1)
    left.set(xlabel="True minus predicted", ylabel="Examples")
    for axes in (against, left):
        axes.grid(alpha=0.25)
    if "output" in numbers:
        against.legend(fontsize="small")
    return figure


def _card(final: FinalModel, digest: str, *, tested: int) -> str:
    """Return the page; `tested` models of the study have been tested, this one included."""
    configuration, run, data = final.configuration, final.run, final.data
    candidates, evaluation, program = final.candidates, final.evaluation, final.program
    best = candidates.to_dict("records")[0]
    shape = "x".join(map(str, data.test.inputs.shape[1:])) if isinstance(data.test, Split) else "as the data set gives"
    if run.schedule is None:
        how = f"for {plural(run.interval, run.unit)}, from the median of the best {run.unit}s under those seeds"
    else:
        how = "to the end of its learning rate schedule"
    notes = [data.note] if data.note else []
    measure = evaluation.measure
    test_value, low, high = map(evaluation.format, (evaluation.value, evaluation.low, evaluation.high))
    correct = f": {evaluation.correct:,} of\n{evaluation.count:,} test examples correct" if measure == ACCURACY else ""
    searched = measure.format(float(best["searched"]))
    ranking = pd.DataFrame(
        {
            "candidate": candidates["candidate"],
            "trial": candidates["trial"],
            "in the search": [measure.format(value) for value in candidates["searched"]],
            "confirmed": [
                markdown.measured(mean, sd, measure)
                for mean, sd in zip(candidates["mean"], candidates["sd"], strict=True)
            ],
            "lowest": [measure.format(value) for value in candidates["low"]],
            "highest": [measure.format(value) for value in candidates["high"]],
            "failed seeds": candidates["failed"],
            f"best {run.unit}": candidates["intervals"],
        }
    )
    params = pd.DataFrame(
        # As texts: among floats pandas would make floats of whole numbers.
        {"parameter": list(configuration.params), "value": [str(value) for value in configuration.params.values()]}
    )
    return f"""# Model card: {configuration.study}, trial {configuration.trial}

**Test {measure.name} {test_value}**, 95 % interval {low} to {high} ({evaluation.interval}){correct}. \
{_use_of_the_test_set(tested)}{_no_better(final)}

## The model

{type(run.model).__name__} with {run.parameters:,} trained parameters, for inputs of {shape} as the study's data set
function gives them{f" and {len(data.classes)} classes: {', '.join(data.classes)}" if data.classes else ""}.

{markdown.table(params)}

## How it was found and trained

1. A search, `{configuration.study}` in `{configuration.study_file}`, found the configuration: its best validation
   {measure.name} was {searched} in trial {configuration.trial}.
2. Each candidate was trained again on the training examples under {int(best["seeds"])} new seeds. The best mean is
   candidate {int(best["candidate"])}'s, {markdown.measured(best["mean"], best["sd"], measure)} (± standard deviation).
   {luck(float(best["searched"]), float(best["mean"]), float(best["sd"]), int(best["seeds"]), measure)}
3. It was trained from scratch on training and validation examples together, {how}:
   {run.step / run.steps_per_epoch:g} epochs on {length(run.train_split):,} examples.

{markdown.table(ranking)}

## On the test set

{_test_results(evaluation)}

1,000 examples take {evaluation.seconds * 1000:.3g} ms on the machine named below.

## Use

{_use(run, data, program, shape)}

## Limits

The figures hold for data like the test set's. Nothing was measured for data from other sources, shifted or damaged
inputs and inputs that belong to no class, nor how well the outputs are calibrated as probabilities.

## Provenance

| | |
| --- | --- |
| command | `{final.command}` |
| configuration | digest `{configuration.digest}` |
| weights | digest `{digest}`, seed {configuration.trial_seed}; the same on the same versions and processor |
| data | {"; ".join([f"{name}: {text}" for name, text in configuration.data.items() if name != "classes"] + notes)} |
| machine | {machine(final.device)} |
| versions | {versions_line()} |
"""


def _test_results(evaluation: Evaluation) -> str:
    """Return the tables and figures of the results on the test set."""
    values = pd.DataFrame(
        {"measure": list(evaluation.values), "test set": [f"{value:.5g}" for value in evaluation.values.values()]}
    )
    parts = [markdown.table(values)] if len(values) > 1 else []
    if evaluation.classes is not None:
        texts = {name: [f"{value:.4f}" for value in evaluation.classes[name]] for name in ("precision", "recall", "f1")}
        parts += [
            markdown.table(evaluation.classes.assign(**texts)),
            "![Confusion matrix: true classes in rows, predicted ones in columns](confusion.png)",
        ]
    if evaluation.numbers is not None:
        parts.append("![Predicted against true numbers, and the residuals](residuals.png)")
    return "\n\n".join(parts)


def _no_better(final: FinalModel) -> str:
    """Return a warning where always giving one answer would do as well."""
    evaluation, data = final.evaluation, final.data
    if evaluation.measure != ACCURACY:
        assert data.test is not None
        baseline = baseline_of(replace(data, validation=data.test), evaluation.measure)
        if baseline is None or not baseline.beats(evaluation.value):
            return ""
        text = str(baseline).replace("validation examples", "test examples")
        return f"\n\n**Caution:** that is no better than {text}."
    assert evaluation.confusion is not None
    counts = evaluation.confusion.sum(axis=1)
    commonest = str(counts.idxmax())
    if evaluation.correct > counts.max():
        return ""
    return (
        f"\n\n**Caution:** that is no better than always answering {commonest!r}, which is right for "
        f"{counts.max() / evaluation.count:.2%} of the test examples."
    )


def _tested_before(folder: Path) -> list[str]:
    """Return the digests of the weights tested before, from the folder's `result.json`."""
    try:
        digests: list[str] = json.loads((folder / "result.json").read_text())["tested"]
    except (OSError, ValueError, KeyError):
        return []
    return digests


def _use_of_the_test_set(tested: int) -> str:
    if tested == 1:
        return "The test set was used\nonce by this command, after everything below was decided."
    place = f"It is number {tested} of this\nstudy's models to be tested"
    return f"**{place}**: the best of several test results is optimistic."


def _use(run: Run, data: Dataset, program: Program, shape: str) -> str:
    """Return the section on how to load and call the model."""
    weights = "`model.pt` holds the weights, for `hpsearch.checkpoint.load`."
    if program.error is not None:
        return f"There is no exported program: {program.error}. {weights}"
    assert data.test is not None
    inputs, _ = take(source(data, "test", run.device), torch.arange(min(2, length(data.test))), run.device)
    with torch.no_grad():
        one = has_one_output(run.evaluated.to(run.device).eval()(inputs))
    classes = "program(inputs).flatten() > 0" if one else "program(inputs).argmax(dim=1)"
    sizes = shape.replace("x", ", ")
    return f"""```python
import torch

program = torch.export.load("model.pt2").module()
classes = {classes}  # inputs: (N, {sizes}) float32, as the data set gives them
```

`model.pt2` was loaded back: on {program.examples} test examples its outputs differ from the model's by at most
{program.difference:.1e}. {weights}"""
