"""The files of a final model: weights, exported programs, tables, a figure, a model card."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpsearch import checkpoint
from hpsearch.baseline import baseline_of
from hpsearch.checkpoint import write_atomically
from hpsearch.datasets import Dataset, Split
from hpsearch.measure import ACCURACY, column_of
from hpsearch.own_run import OwnRun
from hpsearch.provenance import machine, versions, versions_line
from hpsearch.results import markdown
from hpsearch.results.configurations import Configuration
from hpsearch.results.figures import COLOURS, make_figure, write_figure
from hpsearch.results.program import Program
from hpsearch.results.retrain import Evaluation, luck
from hpsearch.results.usage import usage
from hpsearch.text import plural
from hpsearch.training import Run


@dataclass(frozen=True, kw_only=True)
class FinalModel:
    """A trained model and the results that led to it.

    `candidates` and `confirmed` are the frames of `hpsearch.results.retrain`, `command` is what was typed,
    `onnx` is None unless it was asked for.
    """

    configuration: Configuration
    run: Run | OwnRun
    data: Dataset
    candidates: pd.DataFrame
    confirmed: pd.DataFrame
    evaluation: Evaluation
    program: Program
    onnx: Program | None
    command: str
    device: str


def write_model(folder: Path, final: FinalModel) -> dict[str, Any]:
    """Write all of a final model's files; return what `result.json` holds."""
    configuration, run = final.configuration, final.run
    evaluation, program = final.evaluation, final.program
    if isinstance(run, Run):
        run.evaluated.cpu()
    weights = run.kept_state()
    digest = checkpoint.digest(weights)
    folder.mkdir(parents=True, exist_ok=True)
    tested = list(dict.fromkeys([*_tested_before(folder), digest]))
    checkpoint.save(folder / "model.pt", {"model": weights, "params": configuration.params, "intervals": run.interval})
    for name, exported in (("model.pt2", program), ("model.onnx", final.onnx)):
        (folder / name).unlink(missing_ok=True)
        if exported is not None and exported.error is None:
            write_atomically(folder / name, exported.content)
    result = {
        "configuration": configuration.digest,
        "params": configuration.params,
        "seed": configuration.trial_seed,
        "intervals": run.interval,
        "epochs": run.epochs_trained,
        "parameters": run.parameters,
        "weights_digest": digest,
        "test_examples": evaluation.examples,
        **({"test_correct": evaluation.correct} if evaluation.count else {}),
        **{f"test_{column_of(name)}": value for name, value in evaluation.values.items()},
        **(
            {f"test_{evaluation.measure.column}_95": [evaluation.low, evaluation.high]}
            if evaluation.has_interval
            else {}
        ),
        "exported_difference": program.difference if program.error is None else program.error,
        **(
            {"onnx_difference": final.onnx.difference if final.onnx.error is None else final.onnx.error}
            if final.onnx
            else {}
        ),
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
    candidates, evaluation = final.candidates, final.evaluation
    best = candidates.to_dict("records")[0]
    shape = f" of {'x'.join(map(str, data.test.inputs.shape[1:]))}" if isinstance(data.test, Split) else ""
    if run.schedule is None:
        how = f"for {plural(run.interval, run.unit)}, from the median of the best {run.unit}s under those seeds"
    else:
        how = "to the end of its learning rate schedule"
    notes = [data.note] if data.note else []
    measure = evaluation.measure
    bounds = f", {evaluation.bounds} ({evaluation.interval})" if evaluation.has_interval else ""
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

**Test {measure.name} {evaluation.format(evaluation.value)}**{bounds}{correct}. \
{_use_of_the_test_set(tested)}{_no_better(final)}

## The model

{run.name} with {run.parameters:,} trained parameters, for inputs{shape} as the study's data set
function gives them{f" and {len(data.classes)} classes: {', '.join(data.classes)}" if data.classes else ""}.

{markdown.table(params)}

## How it was found and trained

1. A search, `{configuration.study}` in `{configuration.study_file}`, found the configuration: its best validation
   {measure.name} was {searched} in trial {configuration.trial}.
2. Each candidate was trained again on the training examples under {int(best["seeds"])} new seeds. The best mean is
   candidate {int(best["candidate"])}'s, {markdown.measured(best["mean"], best["sd"], measure)} (± standard deviation).
   {luck(float(best["searched"]), float(best["mean"]), float(best["sd"]), int(best["seeds"]), measure)}
3. It was trained from scratch on training and validation examples together, {how}:
   {run.epochs_trained:g} epochs on {run.trained_on:,} examples.

{markdown.table(ranking)}

## On the test set

{_test_results(evaluation)}

1,000 examples take {evaluation.seconds * 1000:.3g} ms on the machine named below.

## Use

{usage(final.program, final.onnx, run.loss)}

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
    if evaluation.confusion is None:
        return ""
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
